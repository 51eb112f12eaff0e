"""`tocsin event append`: one event by flags, or any number as lines of JSON."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tocsin.cli import criteria, rendering
from tocsin.cli.drafting import Unreadable, event_of_fields, event_of_line
from tocsin.cli.events import group
from tocsin.cli.flags import FORMATS, Output, flag
from tocsin.cli.following import Connectivity
from tocsin.cli.misuse import EPILOG, FAILED, Misuse
from tocsin.cli.screen import Screen
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.events import append_request, appended
from tocsin.ingesting import Outcome
from tocsin.v1.event_log_pb2 import Event

if TYPE_CHECKING:
    from rich.progress import Progress

_READ_BYTES = 65_536
_LINE_FORMATS = ("text", "json", "id")


def _own(name: str, help: str, metavar: str = "string", **more: Any) -> Any:
    variable = "TOCSIN_APPEND_" + name.strip("-").upper().replace("-", "_")
    return flag(name, variable, help, metavar, **more)


@group.command("append", epilog=EPILOG)
@takes
def append(
    session: Session,
    output: Output,
    type: Annotated[
        str,
        typer.Argument(metavar="TYPE", help="the event's type; - reads standard input", show_default=False),
    ],
    id: Annotated[str, _own("--id", "the event's ID; the same again stores nothing new", "ID")] = "",
    level: Annotated[str, _own("--level", "INFO or ERROR", "LEVEL")] = "",
    message: Annotated[str, _own("--message", "one sentence for people", also=("-m",))] = "",
    details: Annotated[str, _own("--details", "JSON, or @FILE with JSON; other text is a sentence", "JSON")] = "",
    subtype: Annotated[str, _own("--subtype", "a finer kind under the type")] = "",
    category: Annotated[str, _own("--category", "free text")] = "",
    label: Annotated[list[str] | None, _own("--label", "a label; may be given several times", "KEY=VALUE")] = None,
    resource: Annotated[str, _own("--resource", "ID of what the event is about")] = "",
    resource_type: Annotated[str, _own("--resource-type", "kind of the resource")] = "",
    user: Annotated[str, _own("--user", "user of the resource")] = "",
    service: Annotated[str, _own("--service", "the originating service", also=("--source",))] = "",
    host: Annotated[str, _own("--host", "the originating host ID")] = "",
    base_url: Annotated[str, _own("--base-url", "address of the service")] = "",
    timestamp: Annotated[str, _own("--timestamp", "when it happened: ISO8601 in UTC, or so long ago (15m)")] = "",
    request_id: Annotated[str, _own("--request-id", "makes one append safe to repeat", "ID")] = "",
    id_prefix: Annotated[
        str,
        _own(
            "--id-prefix",
            "with -: lines without an ID get PREFIX-LINE, so that a repeat is safe",
            "PREFIX",
        ),
    ] = "",
) -> None:
    """Append an event, or with - one for each line of JSON on standard input.

    A line has the fields that `-o json` prints: type, and as it needs them id, subtype, level, message, category,
    details, resource {type, id, user_id}, source {service, host, base_url, request_id}, labels, timestamp,
    correlation_id. The output formats are then text, json (a line per event with its line, id and position) and id.
    A refused line is told with its number and field, and the others are stored; then the exit code is 1.
    """
    format = output.one_of(session, *(_LINE_FORMATS if type == "-" else FORMATS))
    named: dict[str, Any] = {"id": id, "level": level, "message": message, "subtype": subtype, "category": category}
    resource_type = criteria.resource_type(resource_type)
    named["resource"] = _given(id=resource, type=resource_type, user_id=user)
    named["source"] = _given(service=service, host=host, base_url=base_url)
    named["labels"] = criteria.pairs("--label", label or [])
    if details:
        named["details"] = details_of(details)
    if timestamp:
        named["timestamp"] = criteria.moment("--timestamp", timestamp, session.now())
    fields = {name: value for name, value in named.items() if value or name == "details"}
    if type == "-":
        if [name for name in fields if name != "details"] or details or request_id:
            raise Misuse("-", "does not go with the fields of one event: the lines have them")
        _append_lines(session, id_prefix, format)
        return
    _append_one(session, {"type": type, **fields}, request_id, format)


def _given(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def details_of(text: str) -> Any:
    """Read details: JSON, a file of it, or else a sentence. Raises Misuse."""
    source = text
    if text.startswith("@"):
        try:
            source = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Misuse("--details", f"{text[1:]} cannot be read: {error}") from None
    try:
        return json.loads(source)
    except RecursionError:
        raise Misuse("--details", "nested too deeply") from None
    except ValueError as error:
        if text.startswith(("@", "{", "[")):
            raise Misuse("--details", f"no JSON: {error}") from None
        return text


def _append_one(session: Session, fields: dict[str, Any], request_id: str, format: str) -> None:
    try:
        event = event_of_fields(fields)
    except Unreadable as error:
        raise Misuse("event", str(error)) from None
    with session.screen.step("Appending event", "Appended event"):
        response = session.client.event_log.AppendEvent(append_request(event, request_id or None, {}))
    stored = appended(response)
    if format == "json-raw":
        session.screen.line(rendering.raw_text(response))
    elif format == "json":
        session.screen.line(rendering.json_text(rendering.resource(response.event)))
    else:
        session.screen.line(stored.id)
    for path in stored.redacted_paths:
        session.screen.note(f"redacted: {path}")
    for warning in stored.warnings:
        session.screen.note(f"warning: {warning.field}: {warning.description}")


class _Lines:
    """Events of a file of lines; remembers which line each came from, and tells those that are none."""

    def __init__(self, tally: _Tally, id_prefix: str) -> None:
        self._tally = tally
        self._prefix = id_prefix
        self._numbers: deque[int] = deque()

    def number(self) -> int:
        """Answer the line of the next event; asked once for each, in their order."""
        return self._numbers.popleft()

    def events(self, lines: Iterator[bytes]) -> Iterator[Event]:
        """Give the events. It is run by the thread that feeds."""
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                event = event_of_line(line, f"{self._prefix}-{number}" if self._prefix else "")
            except Unreadable as error:
                self._tally.refuse(number, str(error))
                continue
            self._numbers.append(number)
            yield event


class _Tally:
    """Counts what became of the lines, and tells the refused ones. Threads may share it."""

    def __init__(self, screen: Screen) -> None:
        self.stored = 0
        self.refused = 0
        self._screen = screen
        self._lock = threading.Lock()

    def refuse(self, number: int, text: str) -> None:
        """Tell a refused line; these are said also when status lines are not wanted."""
        with self._lock:
            self.refused += 1
            self._screen.complain(f"line {number}: {text}")


def _read_lines() -> Iterator[bytes]:
    """Read standard input as it comes. Without Python's buffer, whose lock would be held while the process ends."""
    held = b""
    with io.FileIO(sys.stdin.fileno(), closefd=False) as source:
        while chunk := source.read(_READ_BYTES):
            *lines, held = (held + chunk).split(b"\n")
            yield from lines
    if held:
        yield held


def _append_lines(session: Session, id_prefix: str, format: str) -> None:
    session.reach()
    screen = session.screen
    tally, known = _Tally(screen), Connectivity(screen)
    lines = _Lines(tally, id_prefix)
    with (
        _progress(screen, format) as progress,
        session.client.ingest(lines.events(_read_lines()), on_disconnect=known.lost) as ingestion,
    ):
        for outcome in ingestion:
            known.saw(ingestion.connections)
            _tell(screen, tally, outcome, lines.number(), format)
            progress.update(tally)
    if format == "text":
        screen.line(f"Appended {tally.stored} event{'' if tally.stored == 1 else 's'}, {tally.refused} refused")
    if tally.refused:
        raise typer.Exit(FAILED)


def _tell(screen: Screen, tally: _Tally, outcome: Outcome, number: int, format: str) -> None:
    if outcome.refused is not None:
        tally.refuse(number, f"{outcome.refused.reason}: {outcome.refused.message}")
        return
    assert outcome.stored is not None
    tally.stored += 1
    stored = outcome.stored
    if format == "id":
        screen.line(stored.id)
    elif format == "json":
        found: dict[str, Any] = {"line": number, "id": stored.id, "position": stored.position}
        found |= {"redacted_paths": list(stored.redacted_paths)} if stored.redacted_paths else {}
        screen.line(rendering.json_text(found, indent=None))


class _Bar:
    """The progress on a terminal: events, rate, refused; nothing elsewhere."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task = progress.add_task("Appending events", total=None, refused=0, rate=0.0) if progress else None

    def update(self, tally: _Tally) -> None:
        """Show how far it is."""
        if self._progress is not None and self._task is not None:
            speed = self._progress.tasks[0].speed or 0
            self._progress.update(self._task, completed=tally.stored, refused=tally.refused, rate=speed)


@contextmanager
def _progress(screen: Screen, format: str) -> Iterator[_Bar]:
    if not screen.err.is_terminal or screen.quiet or (format != "text" and screen.out.is_terminal):
        yield _Bar(None)
        return
    from rich.progress import (  # noqa: PLC0415 - who has no terminal does without
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f} events"),
        TextColumn("{task.fields[rate]:.0f}/s"),
        TextColumn("{task.fields[refused]} refused"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen.err, redirect_stdout=False, redirect_stderr=False) as progress:
        yield _Bar(progress)
