"""Every way in which tocsin refuses or fails, as one exception with a reason.

The reason decides the gRPC status (one total table in `api/errors.py`) and is what clients compare;
the message is for people. Nothing here knows about gRPC.

    TocsinError
        reason      one of Reason, the names of `tocsin.v1.ErrorReason` without their prefix
        message     one sentence
        metadata    the dynamic values of the message, as strings
        violations  for INVALID_FIELD and INVALID_TEMPLATE: which fields, by path
        retry_s     seconds after which a repeat makes sense, or None
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why something was refused or failed; documented in `protos/tocsin/v1/annotations.proto`."""

    INVALID_FIELD = "INVALID_FIELD"
    UNDECODABLE = "UNDECODABLE"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"
    PAGE_TOKEN_MISMATCH = "PAGE_TOKEN_MISMATCH"
    NOT_FOUND = "NOT_FOUND"
    ID_REUSED = "ID_REUSED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    LOG_CHANGED = "LOG_CHANGED"
    POSITION_AHEAD = "POSITION_AHEAD"
    POSITION_EXPIRED = "POSITION_EXPIRED"
    SERVER_DRAINING = "SERVER_DRAINING"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    INVALID_METADATA = "INVALID_METADATA"
    STORAGE_FULL = "STORAGE_FULL"
    STORAGE_FAILED = "STORAGE_FAILED"
    EVENT_CORRUPT = "EVENT_CORRUPT"
    INTERNAL = "INTERNAL"
    ALERT_TYPE_NOT_REGISTERED = "ALERT_TYPE_NOT_REGISTERED"
    ALERT_TYPE_DISABLED = "ALERT_TYPE_DISABLED"
    INVALID_TEMPLATE = "INVALID_TEMPLATE"
    CONFLICT = "CONFLICT"
    KEY_MISSING = "KEY_MISSING"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    LIMIT_REACHED = "LIMIT_REACHED"
    ENDPOINT_DISABLED = "ENDPOINT_DISABLED"
    SERVER_STARTING = "SERVER_STARTING"
    NAME_TAKEN = "NAME_TAKEN"
    DELIVERY_STATE = "DELIVERY_STATE"
    TOO_MANY_TESTS = "TOO_MANY_TESTS"
    SILENCE_ENDED = "SILENCE_ENDED"
    READ_ONLY = "READ_ONLY"
    RENDER_FAILED = "RENDER_FAILED"
    OVERLOADED = "OVERLOADED"
    ALERT_DISABLED = "ALERT_DISABLED"
    NAVIGATION_NOT_REGISTERED = "NAVIGATION_NOT_REGISTERED"
    NAVIGATION_REGISTERED = "NAVIGATION_REGISTERED"
    ALERTING_OFF = "ALERTING_OFF"
    TOO_MANY_PREVIEWS = "TOO_MANY_PREVIEWS"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that cannot be used: its path in the request and why."""

    path: str
    description: str


class TocsinError(Exception):
    """A refusal or failure that the caller is told about; see the module's docstring."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_s = retry_s


def invalid_fields(violations: Sequence[Violation]) -> TocsinError:
    """Refuse a request because of one or more of its fields."""
    shown = "; ".join(f"{v.path}: {v.description}" for v in violations[:3])
    more = f" (and {len(violations) - 3} more)" if len(violations) > 3 else ""
    return TocsinError(Reason.INVALID_FIELD, shown + more, violations=violations)


def invalid_field(path: str, description: str) -> TocsinError:
    """Refuse a request because of one of its fields."""
    return invalid_fields([Violation(path, description)])


def not_found(kind: str, name: str) -> TocsinError:
    """Say that the caller's account has no such object, whether or not another account has."""
    return TocsinError(
        Reason.NOT_FOUND,
        f"{kind} {name!r} does not exist",
        metadata={"resource_type": kind, "resource_name": name},
    )


def permission_denied(message: str) -> TocsinError:
    """Say that the caller may not do this."""
    return TocsinError(Reason.PERMISSION_DENIED, message)


def request_id_reused(request_id: str, known: bytes, given: bytes) -> TocsinError:
    """Say that a request id came back with other content."""
    return TocsinError(
        Reason.REQUEST_ID_REUSED,
        f"request_id {request_id!r} was used with other content",
        metadata={"request_id": request_id, "known_digest": known.hex(), "given_digest": given.hex()},
    )
