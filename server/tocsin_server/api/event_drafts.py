"""From an `Event` as a client sends it to a draft that can be stored.

Runs on the hot path of every append, on the event loop, so that the writer's thread has only rows to
insert. Each field is taken once: a function made from the protos gives what filters need if every
bound holds, and the encoded event says quickly that nothing else has to be looked at. What is suspect
goes through `bounds.py`, which names the field.

The digest is over the request as sent, before defaults and metadata, and keyed, because content may
hold secrets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api import bounds, quick_bounds
from tocsin_server.api.auth import ANYBODY, Caller
from tocsin_server.api.details_look import CLEAR, SUSPECT
from tocsin_server.api.event_redaction import EventRedaction
from tocsin_server.api.payload_checks import check_payloads
from tocsin_server.domain.encoding import wire_text, wire_timestamp
from tocsin_server.domain.errors import Violation, invalid_fields
from tocsin_server.domain.event_log import (
    EVENT_BYTES_MAX,
    NOTHING_REDACTED,
    NOTHING_TO_WARN_OF,
    OWN_SERVICE,
    TIMESTAMP_AHEAD_MAX_US,
    Append,
    Draft,
    EventHead,
    Identity,
)
from tocsin_server.domain.event_types import Catalogue
from tocsin_server.domain.ports import Runtime

Request = pb.AppendEventRequest | pb.AppendEventsRequest | pb.IngestRequest
METHODS = {
    pb.AppendEventRequest: "AppendEvent",
    pb.AppendEventsRequest: "AppendEvents",
    pb.IngestRequest: "Ingest",
}
DIGEST_BYTES = 16
# Fields of Event in their encoded form: (number << 3 | wire type).
ID_OF_32 = b"\x0a\x20"  # an id of 32 characters, as the server makes them
ACCOUNT_TAG = b"\x1a"
LEVEL_INFO_FIELD = b"\x30\x01"
LEVEL_INFO = int(pb.LEVEL_INFO)
NO_LABELS: Mapping[str, str] = {}
NO_CATALOGUE = Catalogue((), {})
TIMESTAMP_TAG = b"\x6a"
SECOND_US = 1_000_000
URL_USER = re.compile(rb"://[^\s/?#@]+@")

TAKEN = (
    "id",
    "type",
    "subtype",
    "level",
    "resource.type",
    "resource.id",
    "resource.user_id",
    "source.service",
    "source.host",
    "labels",
)
new_tuple: Any = tuple.__new__
_take = quick_bounds.reading(pb.Event.DESCRIPTOR, TAKEN)


class _SuspectError(Exception):
    """Something has to be looked at closely."""


class Drafts:
    """Makes drafts with the server's clock, ids and digest key."""

    def __init__(
        self, runtime: Runtime, digest_key: bytes, redaction: EventRedaction, catalogue: Catalogue = NO_CATALOGUE
    ) -> None:
        self._redaction = redaction
        self._look = redaction.look
        self._catalogue = catalogue
        self._now = runtime.now
        self._new_id: Callable[[], str] = runtime.new_id
        self._key = digest_key

    def append(self, caller: Caller, request: Request) -> Append:
        """Make an append of the events of a request; refuse it when one of them is outside its bounds."""
        events = [request.event] if isinstance(request, pb.AppendEventRequest) else request.events
        call = _Call(caller, self._now(), bool(request.request_id))
        try:
            drafts = [self._draft(event, call) for event in events]
        except _SuspectError:
            self._vet(caller, request, call.now)
            call = _Call(caller, call.now, bool(request.request_id), is_checked=True)
            drafts = [self._draft(event, call) for event in events]
        whole = self._digest(b"".join(call.digests)) if request.request_id else b""
        method = METHODS[type(request)]
        warned = NOTHING_TO_WARN_OF
        if self._catalogue.has_checks(caller.account):
            warned, refused = check_payloads(self._catalogue, caller.account, _placed(request))
            if refused:
                raise invalid_fields(refused)
        redacted = NOTHING_REDACTED
        if call.redacted:
            redacted = {i: paths for i, draft in enumerate(drafts) if (paths := call.redacted.get(draft.id))}
        return Append(caller.account, method, request.request_id, whole, tuple(drafts), redacted, warned)

    def identities(self, request: pb.AppendEventsRequest | pb.IngestRequest) -> list[Identity]:
        """Give what tells repeats from reuse: index, id and digest of the events of a batch that have an id."""
        return [
            Identity(index, event.id, self._digest(event.SerializeToString(deterministic=True)))
            for index, event in enumerate(request.events)
            if event.id
        ]

    def _vet(self, caller: Caller, request: Request, now: int) -> None:
        """Refuse a request with all that is wrong with each of its events, or drop what only the server sets."""
        violations = [*bounds.violations_of(request), *_judged(request, now)]
        if not violations:
            return
        if self._catalogue.has_checks(caller.account):
            bad = {violation.path.partition(".")[0] for violation in violations}
            others = [(index, path, event) for index, path, event in _placed(request) if path not in bad]
            violations += check_payloads(self._catalogue, caller.account, others)[1]
        raise invalid_fields(violations)

    def is_usual(self, event: pb.Event) -> bool:
        """Tell whether the quick look is enough for an event."""
        try:
            self._draft(event, _Call(ANYBODY, self._now(), is_digested=False))
        except _SuspectError:
            return False
        return True

    def _digest(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self._key, digest_size=DIGEST_BYTES).digest()

    def _draft(self, event: pb.Event, call: _Call) -> Draft:
        """Complete an event by appending fields to its encoded form: cheaper than setting and encoding them."""
        taken = _take(event)
        if taken is None:
            raise _SuspectError
        event_id, level, service = taken[0], taken[3], taken[7]
        digest = None
        if event_id or call.is_digested:
            body = event.SerializeToString(deterministic=True)
            digest = self._digest(body)
            call.digests.append(digest)
        else:
            body = event.SerializeToString()
        look = self._look(event.details.SerializeToString()) if event.HasField("details") else CLEAR
        if not call.is_checked and (look == SUSPECT or service == OWN_SERVICE or len(body) > EVENT_BYTES_MAX):
            raise _SuspectError
        given = digest if event_id else None
        event_id = event_id or self._new_id()
        has_time = event.HasField("timestamp")
        timestamp = _micros(event, call.now) if has_time else call.now
        may_hold_secret = look != CLEAR or (b"@" in body and URL_USER.search(body) is not None)
        if may_hold_secret or call.has_ids or (has_time and event.timestamp.nanos % 1000):
            body = self._completed(event, event_id, call, may_hold_secret)
        body += call.account if has_time else call.account_and_time
        if not taken[0]:
            body += ID_OF_32 + event_id.encode()
        if not level:
            body += LEVEL_INFO_FIELD
        _, event_type, subtype, _, *names, labels = taken
        account = call.caller.account
        # As EventHead(...) and Draft(...) would, but for their function in Python.
        head = new_tuple(
            EventHead, (account, event_type, subtype, level or LEVEL_INFO, *names, labels or NO_LABELS, timestamp)
        )
        draft: Draft = new_tuple(Draft, (event_id, head, given, body))
        return draft

    def _completed(self, event: pb.Event, event_id: str, call: _Call, may_hold_secret: bool) -> bytes:
        """Encode an event without secrets, with the ids of its call and a timestamp in whole microseconds.

        The event stays as it was sent: its digest may be taken once more. The fields are set anew rather
        than appended: a message that occurs twice is not merged by every client.
        """
        copy = pb.Event()
        copy.CopyFrom(event)
        if copy.HasField("timestamp"):
            copy.timestamp.nanos -= copy.timestamp.nanos % 1000
        if call.has_ids:
            _take_over_ids(copy, call.caller)
        if may_hold_secret and (paths := self._redaction.redact(copy)):
            call.redacted[event_id] = tuple(paths)
        return copy.SerializeToString()


class _Call:
    """What the events of one call have in common: defaults, encoded once, and what is collected of them."""

    __slots__ = (
        "account",
        "account_and_time",
        "caller",
        "digests",
        "has_ids",
        "is_checked",
        "is_digested",
        "now",
        "redacted",
    )

    def __init__(self, caller: Caller, now: int, is_digested: bool, is_checked: bool = False) -> None:
        self.caller = caller
        self.now = now
        self.is_digested = is_digested
        self.is_checked = is_checked
        self.has_ids = bool(caller.request_id or caller.correlation_id or caller.traceparent)
        self.account = _account_field(caller.account)
        self.account_and_time = self.account + wire_timestamp(TIMESTAMP_TAG, now)
        self.digests: list[bytes] = []
        self.redacted: dict[str, tuple[str, ...]] = {}


@lru_cache(maxsize=1024)
def _account_field(account: str) -> bytes:
    return wire_text(ACCOUNT_TAG, account)


def _micros(event: pb.Event, now: int) -> int:
    """Give the event's timestamp in microseconds; finer digits are cut off."""
    seconds, nanos = event.timestamp.seconds, event.timestamp.nanos
    micros = seconds * SECOND_US + nanos // 1000
    if not (seconds >= 0 and 0 <= nanos < 1_000_000_000 and micros <= now + TIMESTAMP_AHEAD_MAX_US):
        raise _SuspectError
    return micros


def _placed(request: Request) -> list[tuple[int, str, pb.Event]]:
    """Give the events of a request, each with its index and its path."""
    if isinstance(request, pb.AppendEventRequest):
        return [(0, "event", request.event)]
    return [(index, f"events[{index}]", event) for index, event in enumerate(request.events)]


def _judged(request: Request, now: int) -> list[Violation]:
    """Say what is wrong that the bounds of single fields cannot say."""
    violations: list[Violation] = []
    for _, path, event in _placed(request):
        seconds, nanos = event.timestamp.seconds, event.timestamp.nanos
        if seconds * SECOND_US + nanos // 1000 > now + TIMESTAMP_AHEAD_MAX_US:
            violations.append(Violation(f"{path}.timestamp", "is more than 24 hours ahead of the server's clock"))
        if event.source.service == OWN_SERVICE:
            violations.append(Violation(f"{path}.source.service", f"{OWN_SERVICE!r} is kept for events of the server"))
    return violations


def _take_over_ids(event: pb.Event, caller: Caller) -> None:
    if caller.request_id and not event.source.request_id:
        event.source.request_id = caller.request_id
    if caller.correlation_id and not event.correlation_id:
        event.correlation_id = caller.correlation_id
    if caller.traceparent and not event.traceparent:
        event.traceparent = caller.traceparent
