"""From an `Event` as a client sends it to a draft that can be stored.

Runs on the hot path of every append, on the event loop, so that the writer's thread has only rows to
insert. The digest is over the request as sent, before defaults and metadata, and keyed, because
content may hold secrets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.domain.encoding import wire_text, wire_timestamp
from tocsin_server.domain.errors import Violation, invalid_fields
from tocsin_server.domain.event_log import OWN_SERVICE, TIMESTAMP_AHEAD_MAX_US, Append, Draft, EventHead
from tocsin_server.domain.ports import Runtime

DIGEST_BYTES = 16
# Fields of Event in their encoded form: (number << 3 | wire type).
ID_OF_32 = b"\x0a\x20"  # an id of 32 characters, as the server makes them
ACCOUNT_TAG = b"\x1a"
LEVEL_INFO_FIELD = b"\x30\x01"
NO_LABELS: Mapping[str, str] = {}
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
        whole = b""
        if request_id:
            digests = b"".join(self._digest(event) for event in events)
            whole = hashlib.blake2b(digests, key=self._key, digest_size=DIGEST_BYTES).digest()
        defaults = _Defaults(caller, now)
        drafts = tuple([self._draft(event, defaults) for event in events])
        return Append(caller.account, method, request_id, whole, drafts)

    def _digest(self, event: pb.Event) -> bytes:
        sent = event.SerializeToString(deterministic=True)
        return hashlib.blake2b(sent, key=self._key, digest_size=DIGEST_BYTES).digest()

    def _draft(self, event: pb.Event, defaults: _Defaults) -> Draft:
        """Complete an event by appending fields to its encoded form: cheaper than setting and encoding them."""
        event_id, level = event.id, event.level
        digest = self._digest(event) if event_id else None
        if defaults.has_ids:
            _take_over_ids(event, defaults.caller)
        timestamp = defaults.now
        if event.HasField("timestamp"):
            timestamp = _whole_micros(event)
            body = event.SerializeToString() + defaults.account
        else:
            body = event.SerializeToString() + defaults.account_and_time
        if not event_id:
            event_id = self._new_id()
            body += ID_OF_32 + event_id.encode()
        if not level:
            level = pb.LEVEL_INFO
            body += LEVEL_INFO_FIELD
        resource, source, labels = event.resource, event.source, event.labels
        head = EventHead(
            defaults.caller.account,
            event.type,
            event.subtype,
            level,
            resource.type,
            resource.id,
            resource.user_id,
            source.service,
            source.host,
            {key: labels[key] for key in labels} if labels else NO_LABELS,
            timestamp,
        )
        return Draft(event_id, head, digest, body)


class _Defaults:
    """What every event of one call gets where it has nothing of its own, encoded once."""

    __slots__ = ("account", "account_and_time", "caller", "has_ids", "now")

    def __init__(self, caller: Caller, now: int) -> None:
        self.caller = caller
        self.now = now
        self.has_ids = bool(caller.request_id or caller.correlation_id or caller.traceparent)
        self.account = wire_text(ACCOUNT_TAG, caller.account)
        self.account_and_time = self.account + wire_timestamp(TIMESTAMP_TAG, now)


def _judge(event: pb.Event, path: str, now: int, violations: list[Violation]) -> None:
    """Refuse what the bounds of single fields cannot say."""
    if event.HasField("timestamp") and event.timestamp.seconds * SECOND_US > now + TIMESTAMP_AHEAD_MAX_US:
        violations.append(Violation(f"{path}.timestamp", "is more than 24 hours ahead of the server's clock"))
    if event.source.service == OWN_SERVICE:
        violations.append(Violation(f"{path}.source.service", f"{OWN_SERVICE!r} is kept for events of the server"))


def _whole_micros(event: pb.Event) -> int:
    """Give the event's timestamp in microseconds, cutting finer digits off."""
    timestamp = event.timestamp
    fine = timestamp.nanos % 1000
    if fine:
        timestamp.nanos -= fine
    return timestamp.seconds * SECOND_US + timestamp.nanos // 1000


def _take_over_ids(event: pb.Event, caller: Caller) -> None:
    if caller.request_id and not event.source.request_id:
        event.source.request_id = caller.request_id
    if caller.correlation_id and not event.correlation_id:
        event.correlation_id = caller.correlation_id
    if caller.traceparent and not event.traceparent:
        event.traceparent = caller.traceparent
