"""`tocsin event`: list, get and delete."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated

import typer

from tocsin.cli import rendering
from tocsin.cli.flags import FORMATS, Criteria, Output, Window, flag, takes
from tocsin.cli.misuse import FAILED, Misuse
from tocsin.cli.session import Session
from tocsin.client import Client
from tocsin.v1.event_log_pb2 import (
    DeleteEventsRequest,
    EventFilter,
    GetEventRequest,
    ListEventsRequest,
    ListEventsResponse,
)

PAGE = 100
_PAGE_MAX = 1000
_DELETION_TIMEOUT_S = 600.0
EPILOG = "For help regarding global flags, run --help on the root command"

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
    format = output.one_of(*FORMATS)
    if every and page != 1:
        raise Misuse("--all", "does not go with --page")
    wanted = window.bound(criteria.filter(*([resource] if resource else [])), session.now())
    pages = _pages(session.client, ListEventsRequest(filter=wanted), page, every)
    with session.screen.step("Listing events", "List events"):
        first = next(pages)
    _PRINTERS[format](session, first, pages, compact)
    if format == "text" and not every and first.next_page_token:
        session.screen.note(f"These are {len(first.events)} of more events: --page {page + 1} or --all shows them.")


def _print_text(
    session: Session, first: ListEventsResponse, pages: Iterator[ListEventsResponse], compact: bool
) -> None:
    screen = session.screen
    table = rendering.EventTable(first.events, screen.width, compact, screen.draws)
    for line in table.table.head():
        screen.line(line)
    for event in first.events:
        screen.line(table.line(event), *table.spans(event))
    for page in pages:
        table.grow(page.events)
        for event in page.events:
            screen.line(table.line(event), *table.spans(event))
    for line in table.table.foot():
        screen.line(line)


def _print_json(session: Session, first: ListEventsResponse, pages: Iterator[ListEventsResponse], _: bool) -> None:
    separator = "["
    for page in chain([first], pages):
        for event in page.events:
            session.screen.line(separator + rendering.json_text(rendering.resource(event)))
            separator = ","
    session.screen.line("[]" if separator == "[" else "]")


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
    format = output.one_of(*FORMATS)
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
    once. It prints the IDs of what it deleted, and how many there were.
    """
    format = output.one_of("text", "json", "id")
    wanted = window.bound(criteria.filter(), session.now())
    filtered = wanted != EventFilter()
    if id is not None:
        if every or filtered:
            raise Misuse("ID", "does not go with --all or filters (variables TOCSIN_EVENT_... set them too)")
        _delete_one(session, id, format)
        return
    if every and filtered:
        raise Misuse(
            "--all",
            "is everything, and filters choose: give one (variables TOCSIN_EVENT_... set them too)",
        )
    if not filtered and not yes:
        _confirm(session)
    request = DeleteEventsRequest(filter=wanted) if filtered else DeleteEventsRequest(all=True)
    _delete_many(session, request, format)


def _delete_one(session: Session, id: str, format: str) -> None:
    with session.screen.step("Deleting event", "Deleted event"):
        session.client.delete_event(id)
    _print_deleted(session, [id], "id" if format == "text" else format)


def _delete_many(session: Session, request: DeleteEventsRequest, format: str) -> None:
    """Print the ids that were told, which are deleted, also when the call breaks off."""
    ids: list[str] = []
    try:
        with session.screen.step("Deleting events", "Deleted event"):
            for step in session.client.event_log.DeleteEvents(request, timeout=_DELETION_TIMEOUT_S):
                ids.extend(step.progress.ids)
    finally:
        _print_deleted(session, ids, format)


def _print_deleted(session: Session, ids: list[str], format: str) -> None:
    if format == "json":
        session.screen.line(rendering.json_text({"ids": ids, "deleted_count": len(ids)}))
        return
    for id in ids:
        session.screen.line(id)
    if format == "text":
        session.screen.line(f"Deleted {len(ids)} event{'' if len(ids) == 1 else 's'}")


def _confirm(session: Session) -> None:
    """Ask before everything is deleted. Leaves the command unless the answer is yes."""
    screen = session.screen
    if not screen.asks:
        raise Misuse("--all", "nothing was deleted: there is no terminal to confirm on, so give --yes")
    count = session.client.preview_deletion(all=True).matching_count
    if not screen.confirmed(f"Are you sure you want to delete all events ({count})?"):
        screen.note("Nothing was deleted.")
        raise typer.Exit(FAILED)
