"""From an `Event` as a client sends it to a draft that can be stored.

Runs on the hot path of every append, on the event loop, so that the writer's thread has only rows to
insert. The digest is over the request as sent, before defaults and metadata, and keyed, because
content may hold secrets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.encoding import wire_text, wire_timestamp
from tocsin_server.domain.errors import Violation, invalid_fields
from tocsin_server.domain.event_log import OWN_SERVICE, TIMESTAMP_AHEAD_MAX_US, Append, Draft, EventHead
from tocsin_server.domain.ports import Runtime

DIGEST_BYTES = 16
# Fields of Event in their encoded form: (number << 3 | wire type).
ID_TAG = b"\x0a"
ACCOUNT_TAG = b"\x1a"
LEVEL_INFO_FIELD = b"\x30\x01"
TIMESTAMP_TAG = b"\x6a"
SECOND_US = 1_000_000


class Drafts:
    """Makes drafts with the server's clock, ids and digest key."""

    def __init__(self, runtime: Runtime, digest_key: bytes) -> None:
        self._now = runtime.now
        self._new_id: Callable[[], str] = runtime.new_id
        self._key = digest_key

    def append(
        self, method: str, caller: Caller, request_id: str, events: Sequence[pb.Event], paths: Sequence[str]
    ) -> Append:
        """Make an append of several events; `paths` are their paths in the request."""
        now = self._now()
        violations: list[Violation] = []
        for event, path in zip(events, paths, strict=True):
            _judge(event, path, now, violations)
        if violations:
            raise invalid_fields(violations)
        digests = [self._digest(event) for event in events] if request_id else []
        whole = hashlib.blake2b(b"".join(digests), key=self._key, digest_size=DIGEST_BYTES).digest()
        drafts = tuple(self._draft(event, caller, now) for event in events)
        return Append(caller.account, method, request_id, whole, drafts)

    def _digest(self, event: pb.Event) -> bytes:
        sent = event.SerializeToString(deterministic=True)
        return hashlib.blake2b(sent, key=self._key, digest_size=DIGEST_BYTES).digest()

    def _draft(self, event: pb.Event, caller: Caller, now: int) -> Draft:
        """Complete an event by appending fields to its encoded form: cheaper than setting and encoding them."""
        digest = self._digest(event) if event.id else None
        event_id, level = event.id, event.level
        added: list[bytes] = []
        if caller.request_id or caller.correlation_id or caller.traceparent:
            _take_over_ids(event, caller)
        timestamp = _timestamp(event, now)
        body = event.SerializeToString()
        if not event_id:
            event_id = self._new_id()
            added.append(wire_text(ID_TAG, event_id))
        if not level:
            level = pb.LEVEL_INFO
            added.append(LEVEL_INFO_FIELD)
        if not event.HasField("timestamp"):
            added.append(wire_timestamp(TIMESTAMP_TAG, now))
        added.append(wire_text(ACCOUNT_TAG, caller.account))
        resource, source, labels = event.resource, event.source, event.labels
        head = EventHead(
            caller.account,
            event.type,
            event.subtype,
            level,
            resource.type,
            resource.id,
            resource.user_id,
            source.service,
            source.host,
            {key: labels[key] for key in labels} if labels else {},
            timestamp,
        )
        return Draft(event_id, head, digest, b"".join((body, *added)))


def _judge(event: pb.Event, path: str, now: int, violations: list[Violation]) -> None:
    """Refuse what the bounds of single fields cannot say."""
    if event.HasField("timestamp") and event.timestamp.seconds * SECOND_US > now + TIMESTAMP_AHEAD_MAX_US:
        violations.append(Violation(f"{path}.timestamp", "is more than 24 hours ahead of the server's clock"))
    if event.source.service == OWN_SERVICE:
        violations.append(Violation(f"{path}.source.service", f"{OWN_SERVICE!r} is kept for events of the server"))


def _timestamp(event: pb.Event, now: int) -> int:
    """Give the event's timestamp in microseconds, cutting finer digits off; a missing one is now."""
    if not event.HasField("timestamp"):
        return now
    fine = event.timestamp.nanos % 1000
    if fine:
        event.timestamp.nanos -= fine
    return event.timestamp.seconds * SECOND_US + event.timestamp.nanos // 1000


def _take_over_ids(event: pb.Event, caller: Caller) -> None:
    if caller.request_id and not event.source.request_id:
        event.source.request_id = caller.request_id
    if caller.correlation_id and not event.correlation_id:
        event.correlation_id = caller.correlation_id
    if caller.traceparent and not event.traceparent:
        event.traceparent = caller.traceparent
