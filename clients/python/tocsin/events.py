"""Requests of the event log, made from plain Python: drafts of events and filters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack
from uuid import uuid4

from tocsin import arguments
from tocsin.v1.event_log_pb2 import (
    ORDER_NEWEST_FIRST,
    ORDER_OLDEST_FIRST,
    SCOPE_ACCOUNT,
    SCOPE_GLOBAL,
    AppendEventRequest,
    AppendEventResponse,
    AppendEventsRequest,
    AppendEventsResponse,
    AppendResult,
    DeleteEventsRequest,
    Event,
    EventFilter,
    EventResource,
    EventSource,
    FieldWarning,
    GetLogStatusRequest,
    Level,
    ListEventsRequest,
    SummarizeEventsRequest,
)
from tocsin.violation import Violation

LevelLike = str | int
"""A level as a word ("info", "error", in any case) or as a number of `tocsin.v1.Level`."""


class EventFields(TypedDict, total=False):
    """What an event can have beside its type; see `tocsin.v1.Event` for the bounds."""

    id: str
    subtype: str
    level: LevelLike
    message: str
    category: str
    details: object
    resource: EventResource | Mapping[str, str]
    source: EventSource | Mapping[str, str] | str
    labels: Mapping[str, str]
    timestamp: datetime
    correlation_id: str
    traceparent: str


class Criteria(TypedDict, total=False):
    """What a filter can ask for; an event has to meet each one that is given."""

    types: Iterable[str]
    subtypes: Iterable[str]
    levels: Iterable[LevelLike]
    resource_types: Iterable[str]
    resource_ids: Iterable[str]
    user_ids: Iterable[str]
    services: Iterable[str]
    hosts: Iterable[str]
    labels: Mapping[str, str]
    since: datetime
    before: datetime
    all_accounts: bool
    where: str


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an event is stored. `deleted`: it was stored by an earlier try and deleted since.

    `event` is the whole stored event where the server sent it back (`append`, not `append_many`).
    `warnings` say where its details do not meet the schema that the catalogue has for its type,
    `redacted_paths` where secrets were replaced by `****` before it was stored ("details.password").
    """

    id: str
    position: int
    log_id: str
    deleted: bool = False
    event: Event | None = None
    warnings: tuple[Violation, ...] = ()
    redacted_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Events that were asked for by their ids, in that order, and the ids that the account does not have."""

    events: list[Event]
    missing: list[str]


_IDS_MAX = 1000  # of one call of BatchGetEvents
_PLAIN_FIELDS = ("id", "subtype", "message", "category", "correlation_id", "traceparent")
_LIST_CRITERIA = ("types", "subtypes", "resource_types", "resource_ids", "user_ids", "services", "hosts")


def to_level(level: LevelLike, argument: str = "level") -> Level.ValueType:
    """Read a level. Raises ValueError for what is none."""
    if isinstance(level, int):
        level = next((name.removeprefix("LEVEL_") for name, number in Level.items() if number == level), str(level))
    return arguments.member(argument, Level, level)


def draft(type: str, **fields: Unpack[EventFields]) -> Event:
    """Make an event to append. `source` may be just the name of the service.

    Raises TypeError or ValueError for what cannot be sent; bounds are checked by the server.
    """
    given: Mapping[str, Any] = fields
    _refuse_unknown("an event", given, EventFields)
    event = Event(type=arguments.text("type", type), labels=arguments.texts("labels", fields.get("labels") or {}))
    for name in _PLAIN_FIELDS:
        if given.get(name) is not None:
            setattr(event, name, arguments.text(name, given[name]))
    if (level := fields.get("level")) is not None:
        event.level = to_level(level)
    if "details" in fields:
        event.details.CopyFrom(arguments.value("details", fields["details"]))
    if (moment := fields.get("timestamp")) is not None:
        event.timestamp.CopyFrom(arguments.moment("timestamp", moment))
    if (resource := fields.get("resource")) is not None:
        event.resource.CopyFrom(arguments.part("resource", EventResource, resource))
    if (source := fields.get("source")) is not None:
        named = {"service": source} if isinstance(source, str) else source
        event.source.CopyFrom(arguments.part("source", EventSource, named))
    return event


def event_filter(**criteria: Unpack[Criteria]) -> EventFilter:
    """Make a filter. Types may be globs, `*` matches any run of characters, dots included.

    `since` and `before` bound the time of occurrence, half-open. `where` is a condition in CEL, such as
    "event.details.exitcode > 1.0". Raises TypeError for a string where
    a list of strings is meant, ValueError for a level that is none.
    """
    given: Mapping[str, Any] = criteria
    _refuse_unknown("a filter", given, Criteria)
    wanted = EventFilter(labels=arguments.texts("labels", criteria.get("labels") or {}))
    for name in _LIST_CRITERIA:
        getattr(wanted, name).extend(arguments.strings(name, given.get(name) or ()))
    wanted.levels.extend(_levels(criteria.get("levels") or ()))
    if (since := criteria.get("since")) is not None:
        wanted.since.CopyFrom(arguments.moment("since", since))
    if (before := criteria.get("before")) is not None:
        wanted.before.CopyFrom(arguments.moment("before", before))
    if criteria.get("all_accounts"):
        wanted.scope = SCOPE_GLOBAL
    wanted.where = arguments.text("where", criteria.get("where") or "")
    return wanted


def _levels(levels: Iterable[LevelLike]) -> list[Level.ValueType]:
    if isinstance(levels, str | int):
        raise TypeError(f"levels is a list of levels, not {levels!r}")
    return [to_level(level, "each of levels") for level in levels]


def _refuse_unknown(what: str, given: Mapping[str, object], known: Any) -> None:
    if unknown := given.keys() - known.__annotations__.keys():
        raise TypeError(f"{what} has no {', '.join(sorted(unknown))}")


def one_filter(given: EventFilter | None, criteria: Criteria) -> EventFilter | None:
    """Settle on the filter of a call: the ready one or the one made from criteria, not both."""
    if not criteria:
        return given
    if given is not None:
        raise TypeError("give a filter or its criteria, not both")
    return event_filter(**criteria)


def append_request(event: str | Event, request_id: str | None, fields: EventFields) -> AppendEventRequest:
    """Make an append that is safe to repeat: with the event's id, else under a fresh request id."""
    if isinstance(event, str):
        event = draft(event, **fields)
    elif fields:
        raise TypeError("give a ready event or its fields, not both")
    return AppendEventRequest(event=event, request_id=_request_id(request_id, bool(event.id)))


def append_many_request(events: Iterable[Event], request_id: str | None) -> AppendEventsRequest:
    """Make a batch append that is safe to repeat."""
    batch = list(events)
    return AppendEventsRequest(events=batch, request_id=_request_id(request_id, all(event.id for event in batch)))


def _request_id(given: str | None, has_ids: bool) -> str:
    if given is not None:
        return given
    return "" if has_ids else fresh_request_id()


def fresh_request_id() -> str:
    """Make a request id that nobody has used."""
    return uuid4().hex


def appended(response: AppendEventResponse) -> Appended:
    """Read the answer of AppendEvent."""
    event = response.event
    warnings = _warnings(response.warnings)
    redacted = tuple(response.redacted_paths)
    return Appended(event.id, event.position, response.log_id, response.deleted, event, warnings, redacted)


def appended_many(response: AppendEventsResponse) -> list[Appended]:
    """Read the answer of AppendEvents, in the order of the request."""
    return [appended_result(result, response.log_id) for result in response.results]


def appended_result(result: AppendResult, log_id: str) -> Appended:
    """Read what is told of one event of a batch."""
    warnings, redacted = _warnings(result.warnings), tuple(result.redacted_paths)
    return Appended(result.id, result.position, log_id, result.deleted, None, warnings, redacted)


def _warnings(warnings: Iterable[FieldWarning]) -> tuple[Violation, ...]:
    return tuple(Violation(warning.field, warning.description) for warning in warnings)


def batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """Split ids into lists that one call may ask for."""
    wanted = arguments.strings("ids", ids)
    return (wanted[start : start + _IDS_MAX] for start in range(0, len(wanted), _IDS_MAX))


def status_request(all_accounts: bool) -> GetLogStatusRequest:
    """Ask for the status of the log."""
    return GetLogStatusRequest(scope=SCOPE_GLOBAL if all_accounts else SCOPE_ACCOUNT)


def summary_request(
    wanted: EventFilter | None,
    bucket_width: timedelta | None,
    bucket_count: int | None,
    group_by: str,
    top: int,
) -> SummarizeEventsRequest:
    """Ask for counts. Raises TypeError for both a width and a number of buckets."""
    if bucket_width is not None and bucket_count is not None:
        raise TypeError("give a bucket_width or a bucket_count, not both")
    request = SummarizeEventsRequest(filter=wanted, group_by=arguments.text("group_by", group_by), top=top)
    if bucket_width is not None:
        request.bucket_width.FromTimedelta(bucket_width)
    if bucket_count is not None:
        request.bucket_count = bucket_count
    return request


def list_request(wanted: EventFilter | None, oldest_first: bool, page_size: int) -> ListEventsRequest:
    """Ask for the first page of a list."""
    order = ORDER_OLDEST_FIRST if oldest_first else ORDER_NEWEST_FIRST
    return ListEventsRequest(filter=wanted, page_size=page_size, order=order)


def delete_request(wanted: EventFilter | None, all: bool, validate_only: bool) -> DeleteEventsRequest:
    """Ask to delete what matches, or (`all`) everything. Raises TypeError unless it is one of both."""
    if (wanted is None) is not all:
        raise TypeError("give a filter (or criteria), or all=True")
    return DeleteEventsRequest(filter=wanted, all=all, validate_only=validate_only)
