"""`tocsin alert preview`: what an alert would have done over a range of the log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import typer

from tocsin.cli import criteria, preview_drawing, rendering, timeline
from tocsin.cli.alert_drafts import File, read
from tocsin.cli.alerts import group
from tocsin.cli.flags import CountOutput, flag
from tocsin.cli.misuse import EPILOG, Misuse
from tocsin.cli.screen import Screen
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.cli.timeline import Timeline
from tocsin.v1 import alerting_pb2 as pb

_FIRST = 100
_SINCE = "24h"


@group.command("preview", epilog=EPILOG)
@takes
def preview(
    session: Session,
    output: CountOutput,
    id: Annotated[
        str, typer.Argument(metavar="ALERT", help="ID of a stored alert; else it is in a file", show_default=False)
    ] = "",
    file: File = "",
    since: Annotated[
        str,
        flag("--since", "TOCSIN_ALERT_SINCE", "runs from an ISO8601 time on, or so long ago (24h before the end)"),
    ] = "",
    until: Annotated[
        str, flag("--until", "TOCSIN_ALERT_UNTIL", "runs before an ISO8601 time, or longer ago (now)")
    ] = "",
    every_run: Annotated[
        bool, flag("--every-run", "TOCSIN_ALERT_EVERY_RUN", "json: runs too in which nothing changed", None)
    ] = False,
    count: Annotated[
        int,
        flag(
            "-n",
            "TOCSIN_ALERT_COUNT",
            "tell the first so many runs with a change",
            "int32",
            also=("--count",),
            min=1,
        ),
    ] = _FIRST,
    every: Annotated[bool, flag("--all", "TOCSIN_ALERT_ALL", "tell all of them (else the first 100)", None)] = False,
) -> None:
    """Replay a range of the log and draw what an alert would have done: when each instance was active, in which group,
    and every message. Nothing is written or sent; mutes and silences are left out of account.

    The alert is a stored one by its ID, or one that a file describes as for `create -f`. The formats json and
    json-raw print each part of the preview as it comes, one a line.
    """
    format = output.one_of(session, "text", "json", "json-raw")
    subject = _subject(session, id, file)
    start, end = _range(session, since, until)
    runs: list[pb.PreviewAlertResponse.Run] = []
    done = pb.PreviewAlertResponse.Done()
    with (
        session.screen.progress("Previewing", "Previewed alert", prints=format != "text") as progressed,
        session.client.preview_alert(subject, start=start, end=end, every_run=every_run) as parts,
    ):
        due = 0
        for part in parts:
            due = part.started.runs or due
            progressed(part.progress.runs or part.run.execution.number or part.done.runs, due)
            done.MergeFrom(part.done)
            if format != "text":
                _print(session.screen, part, format)
            elif part.HasField("run"):
                runs.append(part.run)
    if format == "text":
        _draw(session.screen, Timeline(start, end), runs, None if every else count)
    _conclude(session.screen, done)


def _subject(session: Session, id: str, file: str) -> str | pb.Alert:
    if id and file and "file" in session.typed:
        raise Misuse("--file", "does not go with the ID of a stored alert")
    if not id and not file:
        raise Misuse("ALERT", "is missing: give the ID of a stored alert, or -f FILE")
    return id or read(file)


def _range(session: Session, since: str, until: str) -> tuple[datetime, datetime]:
    now = session.now()
    end = min(criteria.moment("--until", until, now), now) if until else now
    start = criteria.moment("--since", since, now) if since else end - criteria.span("--since", _SINCE)
    if start >= end:
        raise Misuse("--since", "is not before --until, or not in the past")
    return start, end


def _print(screen: Screen, part: pb.PreviewAlertResponse, format: str) -> None:
    text = rendering.raw_text(part, indent=None)
    screen.line(text if format == "json-raw" else rendering.json_text(rendering.plain(part), indent=None))
    screen.flush()


def _draw(screen: Screen, found: Timeline, runs: Iterable[pb.PreviewAlertResponse.Run], most: int | None) -> None:
    told = []
    for run in runs:
        found.take(run)
        if run.transitions or run.notifications or run.execution.HasField("error"):
            told.append(run)
    for line in preview_drawing.drawing(found, screen.width, timeline.DRAWN if screen.draws else timeline.PLAIN):
        screen.line(line.text, *line.spans)
    if len(found.tracks) > preview_drawing.INSTANCES_MAX:
        screen.note(f"Drawn are the first {preview_drawing.INSTANCES_MAX} of {len(found.tracks)} instances.")
    for run in told[:most]:
        screen.line("")
        for line in preview_drawing.entries(run, screen.width):
            screen.line(line.text, *line.spans)
    if most is not None and len(told) > most:
        screen.note(f"These are the first {most} of {len(told)} runs with something to tell: -n or --all shows more.")


def _conclude(screen: Screen, done: pb.PreviewAlertResponse.Done) -> None:
    parts = [_many(done.runs, "run"), f"{done.errors} failed", _many(done.notifications, "message")]
    screen.note(f"{', '.join(parts)}; {_many(done.events, 'event')} read")
    if done.incomplete:
        screen.note("Events of this time have been deleted since: runs at that time saw more.", "yellow")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
