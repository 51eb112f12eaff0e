"""From an `EventFilter` as a client sends it to the domain's."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.domain.errors import invalid_field
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.where import WhereError, compiled


def micros(timestamp: Timestamp) -> int:
    """Give a Timestamp in microseconds; finer digits are cut off."""
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1000


def refuse_times(sent: pb.EventFilter, path: str = "filter") -> None:
    """Refuse the times of a filter for what is to come."""
    for name in ("since", "before"):
        if sent.HasField(name):
            raise invalid_field(f"{path}.{name}", "makes no sense for what is to come: use start_time")


def event_filter(sent: pb.EventFilter, caller: Caller, path: str = "filter") -> EventFilter:
    """Read a filter; scope GLOBAL is for the account `admin` acting for itself."""
    everybody = sent.scope == pb.SCOPE_GLOBAL
    if everybody:
        caller.require_admin(f"{path}.scope SCOPE_GLOBAL")
    since = micros(sent.since) if sent.HasField("since") else None
    before = micros(sent.before) if sent.HasField("before") else None
    if since is not None and before is not None and since > before:
        raise invalid_field(f"{path}.since", "is later than before")
    if sent.where:
        check_where(sent.where, f"{path}.where")
    return EventFilter(
        account=None if everybody else caller.account,
        types=tuple(sent.types),
        subtypes=tuple(sent.subtypes),
        levels=tuple(sent.levels),
        resource_types=tuple(sent.resource_types),
        resource_ids=tuple(sent.resource_ids),
        user_ids=tuple(sent.user_ids),
        services=tuple(sent.services),
        hosts=tuple(sent.hosts),
        labels=tuple(sorted(sent.labels.items())),
        since=since,
        before=before,
        where=sent.where,
    )


def check_where(text: str, path: str) -> None:
    """Refuse a condition that cannot be used."""
    try:
        compiled(text)
    except WhereError as error:
        raise invalid_field(path, str(error)) from None


def filter_message(found: EventFilter) -> pb.EventFilter:
    """Give a filter without times as a client reads it."""
    return pb.EventFilter(
        types=found.types,
        subtypes=found.subtypes,
        levels=[pb.Level.ValueType(level) for level in found.levels],
        resource_types=found.resource_types,
        resource_ids=found.resource_ids,
        user_ids=found.user_ids,
        services=found.services,
        hosts=found.hosts,
        labels=dict(found.labels),
        where=found.where,
        scope=pb.SCOPE_GLOBAL if found.account is None else pb.SCOPE_UNSPECIFIED,
    )
