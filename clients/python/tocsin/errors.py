"""What a call can fail with, one class for each reason that a server gives.

Code decides by class (or by `reason`), never by text. A reason that this version does not know falls
back to the class of its gRPC code, so catching the inner nodes of the tree keeps working::

    TocsinError
    ├── InvalidRequest            INVALID_ARGUMENT
    │   ├── InvalidField            INVALID_FIELD
    │   ├── Undecodable             UNDECODABLE
    │   ├── InvalidPageToken        INVALID_PAGE_TOKEN
    │   ├── PageTokenMismatch       PAGE_TOKEN_MISMATCH
    │   ├── InvalidMetadata         INVALID_METADATA
    │   ├── InvalidTemplate         INVALID_TEMPLATE
    │   └── AlertTypeNotRegistered  ALERT_TYPE_NOT_REGISTERED
    ├── NotFound                  NOT_FOUND
    │   └── NavigationNotRegistered NAVIGATION_NOT_REGISTERED
    ├── AlreadyExists             ALREADY_EXISTS
    │   ├── IdReused                ID_REUSED
    │   ├── RequestIdReused         REQUEST_ID_REUSED
    │   ├── NameTaken               NAME_TAKEN
    │   └── NavigationRegistered    NAVIGATION_REGISTERED
    ├── FailedPrecondition        FAILED_PRECONDITION
    │   ├── LogChanged              LOG_CHANGED
    │   ├── AlertTypeDisabled       ALERT_TYPE_DISABLED
    │   ├── AlertDisabled           ALERT_DISABLED
    │   ├── AlertingOff             ALERTING_OFF
    │   ├── EndpointDisabled        ENDPOINT_DISABLED
    │   ├── KeyMissing              KEY_MISSING
    │   ├── DeliveryInState         DELIVERY_STATE
    │   ├── SilenceEnded            SILENCE_ENDED
    │   ├── ReadOnly                READ_ONLY
    │   └── RenderFailed            RENDER_FAILED
    ├── OutOfRange                OUT_OF_RANGE
    │   ├── PositionAhead           POSITION_AHEAD
    │   └── PositionExpired         POSITION_EXPIRED
    ├── Unauthenticated           UNAUTHENTICATED
    ├── PermissionDenied          PERMISSION_DENIED
    ├── ResourceExhausted         RESOURCE_EXHAUSTED
    │   ├── TooManyStreams          TOO_MANY_STREAMS
    │   ├── StorageFull             STORAGE_FULL
    │   ├── Overloaded              OVERLOADED
    │   ├── LimitReached            LIMIT_REACHED
    │   ├── TooManyTests            TOO_MANY_TESTS
    │   └── TooManyPreviews         TOO_MANY_PREVIEWS
    ├── Aborted                   ABORTED
    │   ├── SlowConsumer            SLOW_CONSUMER
    │   └── Conflict                CONFLICT
    ├── Unavailable               UNAVAILABLE
    │   ├── ServerDraining          SERVER_DRAINING
    │   ├── ServerStarting          SERVER_STARTING
    │   └── StorageFailed           STORAGE_FAILED
    ├── DataLoss                  DATA_LOSS
    │   └── EventCorrupt            EVENT_CORRUPT
    ├── DeadlineExceeded          DEADLINE_EXCEEDED
    ├── InternalError             INTERNAL
    ├── Cancelled                 CANCELLED
    └── Unimplemented             UNIMPLEMENTED
"""

from __future__ import annotations

import grpc

from tocsin.error import TocsinError, Violation

__all__ = ["BY_CODE", "BY_REASON", "TocsinError", "Violation"]


class InvalidRequest(TocsinError):
    """The request is wrong in itself; repeating it cannot help."""

    codes = (grpc.StatusCode.INVALID_ARGUMENT,)


class InvalidField(InvalidRequest):
    """Fields are outside their bounds; `violations` names each one."""

    reasons = ("INVALID_FIELD",)


class Undecodable(InvalidRequest):
    """The bytes were no message of the method's request type."""

    reasons = ("UNDECODABLE",)


class InvalidPageToken(InvalidRequest):
    """The page token is not one of this server, or damaged."""

    reasons = ("INVALID_PAGE_TOKEN",)


class PageTokenMismatch(InvalidRequest):
    """The page token belongs to another filter, order or account."""

    reasons = ("PAGE_TOKEN_MISMATCH",)


class InvalidMetadata(InvalidRequest):
    """A metadata header is malformed."""

    reasons = ("INVALID_METADATA",)


class InvalidTemplate(InvalidRequest):
    """A mustache template cannot be used; `violations` has field, line and column."""

    reasons = ("INVALID_TEMPLATE",)


class AlertTypeNotRegistered(InvalidRequest):
    """The server knows no alert type of this id."""

    reasons = ("ALERT_TYPE_NOT_REGISTERED",)


class NotFound(TocsinError):
    """There is no such object in the caller's account."""

    codes = (grpc.StatusCode.NOT_FOUND,)
    reasons = ("NOT_FOUND",)


class NavigationNotRegistered(NotFound):
    """No navigation is registered for the alert's consumer."""

    reasons = ("NAVIGATION_NOT_REGISTERED",)


class AlreadyExists(TocsinError):
    """Something else is stored under this name."""

    codes = (grpc.StatusCode.ALREADY_EXISTS,)


class IdReused(AlreadyExists):
    """An event with this id and other content is stored."""

    reasons = ("ID_REUSED",)


class RequestIdReused(AlreadyExists):
    """This request id was used with other content."""

    reasons = ("REQUEST_ID_REUSED",)


class NameTaken(AlreadyExists):
    """The account has another object with this name."""

    reasons = ("NAME_TAKEN",)


class NavigationRegistered(AlreadyExists):
    """A navigation is registered for this consumer and type."""

    reasons = ("NAVIGATION_REGISTERED",)


class FailedPrecondition(TocsinError):
    """The state of the server forbids the call; repeating it alone cannot help."""

    codes = (grpc.StatusCode.FAILED_PRECONDITION,)


class LogChanged(FailedPrecondition):
    """The position belongs to another log: the store was restored. Start over."""

    reasons = ("LOG_CHANGED",)


class AlertTypeDisabled(FailedPrecondition):
    """The alert type is switched off."""

    reasons = ("ALERT_TYPE_DISABLED",)


class AlertDisabled(FailedPrecondition):
    """The alert is disabled, or was while its run was waited for."""

    reasons = ("ALERT_DISABLED",)


class AlertingOff(FailedPrecondition):
    """No alert runs on this server: `alerting.enabled` is off."""

    reasons = ("ALERTING_OFF",)


class EndpointDisabled(FailedPrecondition):
    """The kind of endpoint is switched off for all accounts."""

    reasons = ("ENDPOINT_DISABLED",)


class KeyMissing(FailedPrecondition):
    """A secret cannot be decrypted with the server's key."""

    reasons = ("KEY_MISSING",)


class DeliveryInState(FailedPrecondition):
    """The delivery is in a state in which this cannot be done; `metadata` has the state."""

    reasons = ("DELIVERY_STATE",)


class SilenceEnded(FailedPrecondition):
    """The silence has ended and does not change any more."""

    reasons = ("SILENCE_ENDED",)


class ReadOnly(FailedPrecondition):
    """The object is defined by the server's settings and is changed there."""

    reasons = ("READ_ONLY",)


class RenderFailed(FailedPrecondition):
    """A message cannot be made with these templates of this event."""

    reasons = ("RENDER_FAILED",)


class OutOfRange(TocsinError):
    """A position is outside what the log has."""

    codes = (grpc.StatusCode.OUT_OF_RANGE,)


class PositionAhead(OutOfRange):
    """The position is ahead of the log's head: it is from another log."""

    reasons = ("POSITION_AHEAD",)


class PositionExpired(OutOfRange):
    """Retention has deleted events after the position; `metadata` has the `oldest` one that can be read."""

    reasons = ("POSITION_EXPIRED",)


class Unauthenticated(TocsinError):
    """No API key, or one that is not known."""

    codes = (grpc.StatusCode.UNAUTHENTICATED,)
    reasons = ("UNAUTHENTICATED",)


class PermissionDenied(TocsinError):
    """The caller may not do this."""

    codes = (grpc.StatusCode.PERMISSION_DENIED,)
    reasons = ("PERMISSION_DENIED",)


class ResourceExhausted(TocsinError):
    """A limit is reached; `retry_after_s` is set where waiting helps."""

    codes = (grpc.StatusCode.RESOURCE_EXHAUSTED,)


class TooManyStreams(ResourceExhausted):
    """Too many streams are open on the server."""

    reasons = ("TOO_MANY_STREAMS",)


class StorageFull(ResourceExhausted):
    """The store's disk is full; reads and deletes go on."""

    reasons = ("STORAGE_FULL",)


class Overloaded(ResourceExhausted):
    """More waits for the disk than the server holds in memory; nothing was stored, the call may be repeated."""

    reasons = ("OVERLOADED",)


class LimitReached(ResourceExhausted):
    """The account has as many of these objects as it may have."""

    reasons = ("LIMIT_REACHED",)


class TooManyTests(ResourceExhausted):
    """Too many tests of the account are under way."""

    reasons = ("TOO_MANY_TESTS",)


class TooManyPreviews(ResourceExhausted):
    """A preview of the account is under way."""

    reasons = ("TOO_MANY_PREVIEWS",)


class Aborted(TocsinError):
    """The call was given up halfway."""

    codes = (grpc.StatusCode.ABORTED,)


class SlowConsumer(Aborted):
    """The subscriber did not read for ten minutes; `metadata` has the position to resume at."""

    reasons = ("SLOW_CONSUMER",)


class Conflict(Aborted):
    """The object changed meanwhile: read it again and repeat."""

    reasons = ("CONFLICT",)


class Unavailable(TocsinError):
    """The server cannot be reached, or not now."""

    codes = (grpc.StatusCode.UNAVAILABLE,)


class ServerDraining(Unavailable):
    """The server is stopping."""

    reasons = ("SERVER_DRAINING",)


class ServerStarting(Unavailable):
    """The server has not opened its store yet; the call can be repeated."""

    reasons = ("SERVER_STARTING",)


class StorageFailed(Unavailable):
    """The store did not take the write; nothing was stored."""

    reasons = ("STORAGE_FAILED",)


class DataLoss(TocsinError):
    """Something stored is damaged."""

    codes = (grpc.StatusCode.DATA_LOSS,)


class EventCorrupt(DataLoss):
    """A stored event does not match its checksum; `metadata` has its position."""

    reasons = ("EVENT_CORRUPT",)


class DeadlineExceeded(TocsinError):
    """No answer came in time; whether the call took effect is not known."""

    codes = (grpc.StatusCode.DEADLINE_EXCEEDED,)
    reasons = ("DEADLINE_EXCEEDED",)


class InternalError(TocsinError):
    """A fault of the server; `metadata` has the incident id that is in its log."""

    codes = (grpc.StatusCode.INTERNAL,)
    reasons = ("INTERNAL",)


class Cancelled(TocsinError):
    """The call was cancelled."""

    codes = (grpc.StatusCode.CANCELLED,)


class Unimplemented(TocsinError):
    """The server does not have this method: it is older, or another product."""

    codes = (grpc.StatusCode.UNIMPLEMENTED,)


def _tree(root: type[TocsinError]) -> list[type[TocsinError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


BY_REASON = {reason: found for found in _tree(TocsinError) for reason in found.__dict__.get("reasons", ())}
"""The class of each reason."""

BY_CODE = {code: found for found in _tree(TocsinError) for code in found.__dict__.get("codes", ())}
"""The class for a code whose reason is missing or not known."""
