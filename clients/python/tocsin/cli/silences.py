"""`tocsin silence`: keeping events from being told for a while."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from tocsin import silences as requests
from tocsin.cli import choices, criteria, documents, printing, rendering
from tocsin.cli.escaping import escaped
from tocsin.cli.flags import FORMATS, Criteria, Output, flag
from tocsin.cli.misuse import EPILOG, Misuse
from tocsin.cli.printing import Columns
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.events import fresh_request_id
from tocsin.paging import pages
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2 import EventFilter
from tocsin.values import to_datetime

_TITLES = ("ID", "STATE", "START", "END", "AUTHOR", "COMMENT", "FILTER")
_ID, _STATE, _START, _END, _AUTHOR, _COMMENT, _FILTER = range(len(_TITLES))
SILENCES = Columns(
    _TITLES,
    (
        ((_ID, _STATE, _START, _END, _AUTHOR, _COMMENT, _FILTER),),
        ((_ID, _STATE, _START, _END), (_AUTHOR, _COMMENT, _FILTER)),
        ((_ID, _STATE, _AUTHOR), (_START, _END, _COMMENT), (_FILTER,)),
        ((_ID, _STATE), (_START, _END), (_AUTHOR, _COMMENT), (_FILTER,)),
    ),
    {_AUTHOR: 8, _COMMENT: 16, _FILTER: 20},
    _STATE,
    {"ACTIVE": "yellow"},
)

group = typer.Typer(
    help="Silences: what matches is not told for a while; it is logged all the same",
    epilog=EPILOG,
    rich_markup_mode=None,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="the silence's ID", show_default=False)]
Resource = Annotated[
    list[str] | None, flag("--resource", "TOCSIN_SILENCE_RESOURCE", "events about this resource", "ID")
]
File = Annotated[
    str,
    flag(
        "-f",
        "TOCSIN_SILENCE_FILE",
        "the silence in YAML or JSON, as -o json prints it; - reads standard input",
        "FILE",
        also=("--file",),
    ),
]
Comment = Annotated[str, flag("--comment", "TOCSIN_SILENCE_COMMENT", "why, for people", also=("-m",))]
Author = Annotated[str, flag("--author", "TOCSIN_SILENCE_AUTHOR", "who wants it (new: who calls)")]
Length = Annotated[str, flag("--for", "TOCSIN_SILENCE_FOR", "how long it holds: 30m, 2h, 7d", "STRETCH")]
Start = Annotated[
    str, flag("--start", "TOCSIN_SILENCE_START", "when it begins: an ISO8601 time, or in so long (15m) (new: now)")
]
End = Annotated[str, flag("--end", "TOCSIN_SILENCE_END", "when it ends: an ISO8601 time, or in so long (2h)")]


@group.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@group.command("list", epilog=EPILOG)
@takes
def list_silences(
    session: Session,
    output: Output,
    state: Annotated[
        list[str] | None,
        flag(
            "--state",
            "TOCSIN_SILENCE_STATE",
            "in this state: pending, active, ended",
            "STATE",
            autocompletion=choices.completing(pb.SilenceState),
        ),
    ] = None,
) -> None:
    """List silences, the latest start first. Ended ones are kept for 30 days."""
    format = output.one_of(session, *FORMATS)
    request = requests.list_request(choices.chosen("--state", pb.SilenceState, state))
    everything = pb.ListSilencesResponse()
    with session.screen.step("Listing silences", "List silences"):
        for page in pages(session.client.notifications.ListSilences, request):
            everything.silences.extend(page.silences)
    found = everything.silences
    if not printing.listed(session.screen, format, everything, found, lambda one: one.id):
        printing.rows(session.screen, "silences", SILENCES, [_cells(one) for one in found])


def _cells(one: pb.Silence) -> list[str]:
    wanted = rendering.json_text(rendering.plain(one.filter), indent=None)
    start, end = rendering.short_time_text(one.start_time), rendering.short_time_text(one.end_time)
    return [one.id, choices.word(pb.SilenceState, one.state), start, end, one.author, one.comment, wanted]


@group.command("get", epilog=EPILOG)
@takes
def get(session: Session, id: Id, output: Output) -> None:
    """Show a silence."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Fetching silence", "Fetched silence"):
        response = session.client.notifications.GetSilence(pb.GetSilenceRequest(id=id))
    _show(session, format, response, response.silence)


@group.command("create", epilog=EPILOG)
@takes
def create(
    session: Session,
    chosen: Criteria,
    output: Output,
    resource: Resource = None,
    length: Length = "",
    start: Start = "",
    end: End = "",
    comment: Comment = "",
    author: Author = "",
    file: File = "",
    request_id: Annotated[str, flag("--request-id", "TOCSIN_REQUEST_ID", "makes the call safe to repeat", "ID")] = "",
) -> None:
    """Keep events from being told: those that meet every criterion that is given, for a stretch or until an end.

    They are logged all the same, and their deliveries end as SILENCED: `delivery recover` sends them by hand.
    """
    format = output.one_of(session, *FORMATS)
    made = _read(file)
    made.ClearField("id")
    _put(session, made, chosen.filter(*(resource or [])), comment, author)
    length_of, begins, ends = _times(session, length, start, end)
    _bound(made, begins, ends)
    if length_of is not None:
        made.ClearField("end_time")
    _judge_new(made, length_of)
    request = pb.CreateSilenceRequest(silence=made, request_id=request_id or fresh_request_id())
    if length_of is not None:
        request.duration.FromTimedelta(length_of)
    with session.screen.step("Creating silence", "Created silence"):
        response = session.client.notifications.CreateSilence(request)
    _show(session, format, response, response.silence)


def _judge_new(made: pb.Silence, length: timedelta | None) -> None:
    if made.filter == EventFilter():
        raise Misuse("filter", "give at least one criterion, such as --event-type: what is not to be told")
    if not made.comment:
        raise Misuse("--comment", "is missing: say why")
    if length is None and not made.HasField("end_time"):
        raise Misuse("--for", "is missing: give how long (2h), or --end")


@group.command("update", epilog=EPILOG)
@takes
def update(
    session: Session,
    id: Id,
    chosen: Criteria,
    output: Output,
    resource: Resource = None,
    length: Length = "",
    start: Start = "",
    end: End = "",
    comment: Comment = "",
    author: Author = "",
    file: File = "",
) -> None:
    """Change a silence that has not ended: what is given. Criteria replace the whole filter.

    --for is counted from the silence's start, as it is or becomes; --end 2h is two hours from now.
    """
    format = output.one_of(session, *FORMATS)
    made = _read(file)
    if made.id not in ("", id):
        raise Misuse("--file", f"it is about {made.id!r}, not about {id!r}")
    _put(session, made, chosen.filter(*(resource or [])), comment, author)
    length_of, begins, ends = _times(session, length, start, end)
    if length_of is not None:
        ends = (begins or to_datetime(session.client.get_silence(id).start_time)) + length_of
    _bound(made, begins, ends)
    made.id = id
    changed = [field.name for field, _ in made.ListFields() if field.name != "id"]
    if not changed:
        raise Misuse("update", "give what is to change: criteria, --for, --start, --end, --comment, --author or -f")
    request = pb.UpdateSilenceRequest(silence=made)
    request.update_mask.paths.extend(changed)
    with session.screen.step("Updating silence", "Updated silence"):
        response = session.client.notifications.UpdateSilence(request)
    _show(session, format, response, response.silence)


@group.command("end", epilog=EPILOG)
@takes
def end_silence(session: Session, id: Id, output: Output) -> None:
    """End a silence at once, if it holds, and delete it. What it has silenced is not told by that."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Ending silence", "Ended silence"):
        response = session.client.notifications.DeleteSilence(pb.DeleteSilenceRequest(id=id))
    if not printing.shown(session.screen, format, response, response, id):
        session.screen.line(escaped(id))


def _read(file: str) -> pb.Silence:
    return documents.message("--file", pb.Silence, documents.read("--file", file)) if file else pb.Silence()


def _put(session: Session, made: pb.Silence, wanted: EventFilter, comment: str, author: str) -> None:
    if wanted != EventFilter():
        made.filter.CopyFrom(wanted)
    made.comment = comment or made.comment
    made.author = author or made.author


def _times(
    session: Session, length: str, start: str, end: str
) -> tuple[timedelta | None, datetime | None, datetime | None]:
    if length and end:
        raise Misuse("--for", "does not go with --end")
    now = session.now()
    begins = criteria.coming("--start", start, now) if start else None
    ends = criteria.coming("--end", end, now) if end else None
    return criteria.span("--for", length) if length else None, begins, ends


def _bound(made: pb.Silence, begins: datetime | None, ends: datetime | None) -> None:
    if begins is not None:
        made.start_time.FromDatetime(begins)
    if ends is not None:
        made.end_time.FromDatetime(ends)


def _show(session: Session, format: str, response: Any, found: pb.Silence) -> None:
    if not printing.shown(session.screen, format, response, found, found.id):
        session.screen.line(rendering.yaml_text(rendering.plain(found)).rstrip())
