"""`tocsin event`: list, get and delete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from tocsin.cli import rendering
from tocsin.cli.event_table import EventTable
from tocsin.cli.flags import FORMATS, Criteria, Output, Window, flag
from tocsin.cli.misuse import EPILOG, FAILED, Misuse
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.v1.event_log_pb2 import (
    DeleteEventRequest,
    DeleteEventsRequest,
    DeleteEventsResponse,
    EventFilter,
    GetEventRequest,
    ListEventsRequest,
    ListEventsResponse,
)

if TYPE_CHECKING:  # gRPC is loaded by the first call, not by --help
    from tocsin.client import Client

PAGE = 100
_PAGE_MAX = 1000
_DELETION_TIMEOUT_S = 600.0

_BY_VARIABLES = " (variables TOCSIN_EVENT_... are set)"
_CHOOSING = {field.name for kind in (Criteria, Window) for field in fields(kind)} - {"all_accounts"}

group = typer.Typer(help="Event related operations", epilog=EPILOG, rich_markup_mode=None)


@group.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def gather(client: Client, request: ListEventsRequest, wanted: int) -> ListEventsResponse:
    """Read so many events, with as many calls as that takes; the token of the answer goes on after them."""
    found = ListEventsResponse()
    while len(found.events) < wanted:
        request.page_size = min(wanted - len(found.events), _PAGE_MAX)
        page = client.event_log.ListEvents(request)
        found.events.extend(page.events)
        found.next_page_token = request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found


def _pages(client: Client, request: ListEventsRequest, page: int, every: bool) -> Iterator[ListEventsResponse]:
    """Read the n-th page of a hundred, or (`every`) all in larger ones."""
    for _ in range(page - 1):
        if not gather(client, request, PAGE).next_page_token:
            yield ListEventsResponse()
            return
    size = _PAGE_MAX if every else PAGE
    found = gather(client, request, size)
    yield found
    while every and found.next_page_token:
        found = gather(client, request, size)
        yield found


@group.command("list", epilog=EPILOG)
@takes
def list_events(
    session: Session,
    criteria: Criteria,
    window: Window,
    output: Output,
    resource: Annotated[
        str | None,
        typer.Argument(metavar="RESOURCE", help="a tag, image digest or repository name: only what is about it"),
    ] = None,
    every: Annotated[bool, flag("--all", "TOCSIN_EVENT_ALL", "return all events (else the first 100)", None)] = False,
    page: Annotated[
        int,
        flag(
            "--page",
            "TOCSIN_PAGE",
            "return the nth page of results starting from 1. Defaults to first page if left empty",
            "int32",
            min=1,
            show_default=False,
        ),
    ] = 1,
    compact: Annotated[bool, flag("--compact", "TOCSIN_COMPACT", "the short columns, ID last", None)] = False,
) -> None:
    """Returns a paginated list of events in the descending order of their occurrence.

    Optional query parameters may be used for filtering results. A window of --since and --before is
    half-open: since <= timestamp < before.
    """
    format = output.one_of(session, *FORMATS)
    every, page = _extent(session, every, page)
    wanted = window.bound(criteria.filter(*([resource] if resource else [])), session.now())
    pages = _pages(session.client, ListEventsRequest(filter=wanted), page, every)
    with session.screen.step("Listing events", "List events"):
        first = next(pages)
    _PRINTERS[format](session, first, pages, compact)
    if format == "text" and not first.events:
        session.screen.note("No events." if page == 1 else f"No events on page {page}.")
    if format == "text" and not every and first.next_page_token:
        session.screen.note(f"These are {len(first.events)} of more events: --page {page + 1} or --all shows them.")


def _extent(session: Session, every: bool, page: int) -> tuple[bool, int]:
    """Settle --all against --page: a flag beats the variable of the other. Raises Misuse."""
    typed = {"every", "page"} & session.typed
    if not every or page == 1 or typed == {"page"}:
        return every and typed != {"page"}, page
    if typed == {"every"}:
        return True, 1
    raise Misuse("--all", "does not go with --page" + ("" if typed else " (TOCSIN_EVENT_ALL and TOCSIN_PAGE are set)"))


def _print_text(
    session: Session, first: ListEventsResponse, pages: Iterator[ListEventsResponse], compact: bool
) -> None:
    if not first.events:
        return
    screen = session.screen
    table = EventTable(first.events, screen.width, compact, screen.draws)
    for title in table.head():
        screen.line(title)
    for page in chain([first], pages):
        table.grow(page.events)
        for line in chain.from_iterable(map(table.lines, page.events)):
            screen.line(line.text, *line.spans)
    for rule in table.foot():
        screen.line(rule)


def _print_json(session: Session, first: ListEventsResponse, pages: Iterator[ListEventsResponse], _: bool) -> None:
    """Print one array, an object at a time: a list of any length takes no more memory than a page."""
    held = ""
    for page in chain([first], pages):
        for event in page.events:
            session.screen.line(f"{held}," if held else "[")
            held = indent(rendering.json_text(rendering.resource(event)), "  ")
    session.screen.line(f"{held}\n]" if held else "[]")


def _print_raw(session: Session, first: ListEventsResponse, pages: Iterator[ListEventsResponse], _: bool) -> None:
    for page in pages:
        first.events.extend(page.events)
        first.next_page_token = page.next_page_token
    session.screen.line(rendering.raw_text(first))


def _print_ids(session: Session, first: ListEventsResponse, pages: Iterator[ListEventsResponse], _: bool) -> None:
    for page in chain([first], pages):
        for event in page.events:
            session.screen.line(event.id)


_PRINTERS = {"text": _print_text, "json": _print_json, "json-raw": _print_raw, "id": _print_ids}


@group.command("get", epilog=EPILOG)
@takes
def get_event(
    session: Session,
    output: Output,
    id: Annotated[str, typer.Argument(metavar="ID", help="the event's ID", show_default=False)],
) -> None:
    """Lookup an event by its event ID."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Fetching event", "Fetched event"):
        response = session.client.event_log.GetEvent(GetEventRequest(id=id))
    event = response.event
    if format == "text":
        session.screen.line(rendering.record(event))
    elif format == "json":
        session.screen.line(rendering.json_text(rendering.resource(event)))
    elif format == "json-raw":
        session.screen.line(rendering.raw_text(response))
    else:
        session.screen.line(event.id)


@group.command("delete", epilog=EPILOG)
@takes
def delete_events(
    session: Session,
    criteria: Criteria,
    window: Window,
    output: Output,
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="the event's ID; without it and without filters: all events")
    ] = None,
    every: Annotated[bool, flag("--all", "TOCSIN_EVENT_ALL", "delete all events", None)] = False,
    yes: Annotated[
        bool,
        flag("--yes", "TOCSIN_EVENT_DELETE_YES", "delete all events without asking", None, also=("-y",)),
    ] = False,
) -> None:
    """Delete an event by its ID or set of filters.

    Without ID and filters, or with --all, it deletes every event of the account and asks before; filters act at
    once, but those that only variables set are asked about too. It prints the IDs of what it deleted, and how many
    there were.
    """
    format = output.one_of(session, *FORMATS)
    if id is not None:
        if session.typed & {"every", *_CHOOSING}:
            raise Misuse("ID", "does not go with --all or filters")
        _delete_one(session, id, format)
        return
    wanted = window.bound(criteria.filter(), session.now())
    chooses = wanted != EventFilter(scope=wanted.scope)
    chosen_here = chooses and bool(session.typed & _CHOOSING)
    if every and chooses and not (chosen_here and "every" not in session.typed):
        raise Misuse("--all", f"is everything, and filters choose: give one{_BY_VARIABLES}")
    # Variables may be set for another command, and a scope chooses nothing: what they would delete is asked about.
    if not chosen_here and not yes:
        _confirm(session, wanted)
    everything = wanted == EventFilter()
    request = DeleteEventsRequest(all=True) if everything else DeleteEventsRequest(filter=wanted)
    _delete_many(session, request, format)


def _delete_one(session: Session, id: str, format: str) -> None:
    with session.screen.step("Deleting event", "Deleted event"):
        response = session.client.event_log.DeleteEvent(DeleteEventRequest(id=id))
    if format == "json-raw":
        session.screen.line(rendering.raw_text(response, indent=None))
    else:
        _print_deleted(session, [id], format)


def _delete_many(session: Session, request: DeleteEventsRequest, format: str) -> None:
    """Print the ids that were told, which are deleted, also when the call breaks off."""
    steps: list[DeleteEventsResponse] = []
    try:
        with session.screen.step("Deleting events", "Deleted events"):
            for step in session.client.event_log.DeleteEvents(request, timeout=_DELETION_TIMEOUT_S):
                steps.append(step)  # one by one: what came before a break has to be there
    except BaseException:
        if steps:
            _print_steps(session, steps, format)
        raise
    _print_steps(session, steps, format)


def _print_steps(session: Session, steps: list[DeleteEventsResponse], format: str) -> None:
    if format == "json-raw":
        for step in steps:
            session.screen.line(rendering.raw_text(step, indent=None))
    else:
        _print_deleted(session, [id for step in steps for id in step.progress.ids], format)


def _print_deleted(session: Session, ids: list[str], format: str) -> None:
    if format == "json":
        session.screen.line(rendering.json_text({"ids": ids, "deleted_count": len(ids)}))
        return
    for id in ids:
        session.screen.line(id)
    if format == "text":
        session.screen.line(f"Deleted {len(ids)} event{'' if len(ids) == 1 else 's'}")


def _confirm(session: Session, wanted: EventFilter) -> None:
    """Ask before everything is deleted, or what only variables choose. Leaves the command unless it is a yes."""
    screen = session.screen
    everything = wanted == EventFilter()
    what = "all events" if everything else f"the events of {_filter_text(wanted)}{_BY_VARIABLES}"
    if not screen.asks:
        raise Misuse("--yes", f"nothing was deleted: give it to delete {what}, for there is no terminal to confirm on")
    count = session.client.preview_deletion(None if everything else wanted, all=everything).matching_count
    if not screen.confirmed(f"Are you sure you want to delete {what} ({count})?"):
        screen.note("Nothing was deleted.")
        raise typer.Exit(FAILED)


def _filter_text(wanted: EventFilter) -> str:
    return rendering.json_text(rendering.plain(wanted), indent=None)
