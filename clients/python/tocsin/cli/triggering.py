"""`tocsin trigger`: sample events, to see who is told about them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tocsin import catalogue
from tocsin.cli import printing, rendering
from tocsin.cli.flags import FORMATS, Output, flag
from tocsin.cli.misuse import Misuse
from tocsin.cli.printing import Columns
from tocsin.cli.rendering import level_text
from tocsin.cli.sampling import SERVICE, sample
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.events import append_many_request, to_level
from tocsin.paging import pages
from tocsin.v1 import event_log_pb2 as pb

_BATCH = 1000
_TITLES = ("TYPE", "SUBTYPE", "LEVEL", "RESOURCE TYPE", "DESCRIPTION")
_TYPE, _SUBTYPE, _LEVEL, _RESOURCE, _DESCRIPTION = range(len(_TITLES))
TYPES = Columns(
    _TITLES,
    (
        ((_TYPE, _SUBTYPE, _LEVEL, _RESOURCE, _DESCRIPTION),),
        ((_TYPE, _LEVEL, _RESOURCE), (_SUBTYPE, _DESCRIPTION)),
        ((_TYPE, _LEVEL), (_SUBTYPE,), (_RESOURCE, _DESCRIPTION)),
    ),
    {_DESCRIPTION: 24},
    _LEVEL,
    {"ERROR": "red"},
)


@takes
def trigger(
    session: Session,
    output: Output,
    type: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="a type of the catalogue, or a glob (user.*); else they are listed",
            show_default=False,
        ),
    ] = "",
    subtype: Annotated[str, flag("--subtype", "TOCSIN_TRIGGER_SUBTYPE", "only this subtype of the type")] = "",
    level: Annotated[
        str, flag("--level", "TOCSIN_TRIGGER_LEVEL", "INFO or ERROR, instead of the usual level", "LEVEL")
    ] = "",
    service: Annotated[str, flag("--service", "TOCSIN_TRIGGER_SERVICE", "the originating service")] = SERVICE,
    resource: Annotated[str, flag("--resource", "TOCSIN_TRIGGER_RESOURCE", "what they are about", "ID")] = "",
    count: Annotated[
        int, flag("-n", "TOCSIN_TRIGGER_COUNT", "so many of each", "int32", also=("--count",), min=1, max=_BATCH)
    ] = 1,
) -> None:
    """Append sample events as the catalogue describes them: the usual level and resource, example details.

    Each has the label sample=true: `tocsin event delete --label sample=true` removes them. Without a type it lists the
    types; those that begin with system. are the system's own and are left out.
    """
    format = output.one_of(session, *FORMATS)
    if type.startswith("system."):
        raise Misuse("TYPE", f"{type!r} is the system's own: only what services write is made up")
    response = _types(session, type)
    entries = [entry for entry in catalogue.entries(response) if not subtype or entry.subtype == subtype]
    if not type:
        _list(session, response, entries, format)
        return
    if not entries:
        what = f"subtype {subtype!r} of {type!r}" if subtype else f"type {type!r}"
        raise Misuse("TYPE", f"the catalogue has no {what}: without one, the command lists them")
    events = [_made(entry, level, service, resource) for entry in entries for _ in range(count)]
    _append(session, events, format)


def _types(session: Session, type: str) -> pb.ListEventTypesResponse:
    found = pb.ListEventTypesResponse()
    for page in pages(session.client.event_log.ListEventTypes, catalogue.list_request(type)):
        found.types.extend(branch for branch in page.types if not branch.type.startswith("system."))
    return found


def _made(entry: pb.EventType, level: str, service: str, resource: str) -> pb.Event:
    event = sample(entry, service)
    if level:
        try:
            event.level = to_level(level)
        except ValueError:
            raise Misuse("--level", f"{level!r} is no level: give INFO or ERROR") from None
    if resource:
        event.resource.id = resource
    return event


def _list(session: Session, response: pb.ListEventTypesResponse, entries: list[pb.EventType], format: str) -> None:
    if format == "json-raw":
        session.screen.line(rendering.raw_text(response))
    elif format == "json":
        session.screen.line(rendering.json_text([_plain(entry) for entry in entries]))
    elif format == "id":
        for type in dict.fromkeys(entry.type for entry in entries):
            session.screen.line(type)
    else:
        printing.rows(session.screen, "types", TYPES, [_cells(entry) for entry in entries])


def _plain(entry: pb.EventType) -> dict[str, Any]:
    return {"type": entry.type, "level": level_text(sample(entry)), "sample": rendering.resource(sample(entry))}


def _cells(entry: pb.EventType) -> list[str]:
    level = pb.Level.Name(entry.level).removeprefix("LEVEL_") if entry.level else ""
    return [entry.type, entry.subtype, level, entry.resource_type, entry.description]


def _append(session: Session, events: list[pb.Event], format: str) -> None:
    """Append events, all of a batch or none of it, and print them as they are stored."""
    screen = session.screen
    many = "" if len(events) == 1 else "s"
    response = pb.AppendEventsResponse()
    with screen.step(f"Appending sample event{many}", f"Appended {len(events)} sample event{many}"):
        for start in range(0, len(events), _BATCH):
            request = append_many_request(events[start : start + _BATCH], None)
            response.MergeFrom(session.client.event_log.AppendEvents(request))
    ids = [result.id for result in response.results]
    if format == "json-raw":
        screen.line(rendering.raw_text(response))
    elif format == "json":
        screen.line(rendering.json_text([rendering.resource(one) for one in session.client.get_many(ids).events]))
    else:
        for id, event in zip(ids, events, strict=True):
            kind = f"  {event.type}" + (f"  {event.subtype}" if event.subtype else "")
            screen.line(id if format == "id" else id + kind)
