"""Requests of the catalogue of event types, made from plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tocsin import arguments
from tocsin.events import LevelLike, to_level
from tocsin.v1.event_log_pb2 import (
    EventType,
    EventTypeName,
    ListEventTypesRequest,
    ListEventTypesResponse,
    PayloadCheck,
    RegisterEventTypesRequest,
    UnregisterEventTypesRequest,
)


def event_type(
    type: str,
    subtype: str = "",
    *,
    description: str = "",
    resource_type: str = "",
    level: LevelLike | None = None,
    schema: Mapping[str, object] | None = None,
    check: str = "off",
    example: object = None,
) -> EventType:
    """Describe a type of events, to be registered.

    `schema` is a JSON Schema (draft 2020-12) of the details; `check` says what happens to events that
    do not meet it: "off", "warn" (stored, with warnings in the answer) or "enforce" (refused). Raises
    TypeError or ValueError for what cannot be sent.
    """
    made = EventType(
        type=arguments.text("type", type),
        subtype=arguments.text("subtype", subtype),
        description=arguments.text("description", description),
        resource_type=arguments.text("resource_type", resource_type),
        payload_check=arguments.member("check", PayloadCheck, check),
    )
    if level is not None:
        made.level = to_level(level)
    if schema is not None:
        made.payload_schema.CopyFrom(arguments.struct("schema", schema))
    if example is not None:
        made.example.CopyFrom(arguments.value("example", example))
    return made


def register_request(event_types: Iterable[EventType]) -> RegisterEventTypesRequest:
    """Ask to register entries."""
    if isinstance(event_types, EventType):
        raise TypeError("give a list of event types, also for a single one")
    return RegisterEventTypesRequest(event_types=event_types)


def unregister_request(names: Iterable[str | tuple[str, str]]) -> UnregisterEventTypesRequest:
    """Ask to remove entries, named by type or by (type, subtype)."""
    if isinstance(names, str):
        raise TypeError(f"give a list of types, not {names!r}")
    both = [(name, "") if isinstance(name, str) else name for name in names]
    return UnregisterEventTypesRequest(names=[EventTypeName(type=type, subtype=subtype) for type, subtype in both])


def list_request(type: str) -> ListEventTypesRequest:
    """Ask for the first page of the catalogue."""
    return ListEventTypesRequest(type=arguments.text("type", type))


def entries(page: ListEventTypesResponse) -> Iterator[EventType]:
    """Go through the entries of a page: each type, then its subtypes."""
    for branch in page.types:
        if branch.HasField("event_type"):
            yield branch.event_type
        yield from branch.subtypes
