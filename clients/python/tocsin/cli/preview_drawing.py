"""A preview as lines for people: the timeline, then what changed and what would have been said. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Any

from rich.cells import cell_len

from tocsin.cli import timeline
from tocsin.cli.escaping import escaped
from tocsin.cli.histogram import WIDTH
from tocsin.cli.rendering import short_time_text
from tocsin.cli.tables import Line
from tocsin.cli.timeline import Marks, Scale, Timeline
from tocsin.v1 import alerting_pb2 as pb
from tocsin.values import to_python

INSTANCES_MAX = 40
"""How many instances are drawn."""

_BESIDE_MAX = 24  # an id that is longer stands above its line
_PREFIX = "system.alerting."
_FAILED = "failed runs"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_INDENT = " " * 22  # as long as a time and two blanks
_COLOURS = {"new_instance": "red", "action_group_changed": "yellow", "recovered_instance": "green"}


def drawing(found: Timeline, width: int | None, marks: Marks) -> Iterator[Line]:
    """Draw a line per instance over time, the messages below each, the axis, and what the blocks mean."""
    tracks = sorted(found.tracks.items(), key=lambda item: (item[1].begin, item[0]))[:INSTANCES_MAX]
    margin = _margin([name for name, _ in tracks], found, width or WIDTH)
    yield Line(f"{found.start:{_TIME}} to {found.end:{_TIME}}")
    scale = Scale(found.start, found.end, max((width or WIDTH) - margin, 10))
    for name, track in tracks:
        yield from _beside(escaped(name), margin, timeline.bar(track, scale, found.groups, marks))
        if track.messages:
            yield Line(" " * margin + timeline.counted(track.messages, scale, marks.message, marks.many))
    if found.failures:
        text = timeline.counted(found.failures, scale, marks.failed, marks.many)
        yield from _beside(_FAILED, margin, Line(text, ((0, len(text), "red"),)))
    rule, labels = timeline.axis(scale, marks)
    yield Line(" " * margin + rule)
    yield Line(" " * margin + labels)
    yield from _legend(found, width, marks)


def _margin(names: Sequence[str], found: Timeline, width: int) -> int:
    """Answer how many cells are before each line: as many as the longest id takes that may stand there."""
    lengths = [cell_len(escaped(name)) for name in names]
    if found.failures:
        lengths.append(len(_FAILED))
    return max((length for length in lengths if length <= min(_BESIDE_MAX, width // 3)), default=0) + 2


def _beside(name: str, margin: int, drawn: Line) -> Iterator[Line]:
    """Put a name before its line, or above it where it does not fit before it."""
    if cell_len(name) + 2 <= margin:
        before = name + " " * (margin - cell_len(name))
    else:
        yield Line(name)
        before = " " * margin
    spans = tuple((begin + len(before), end + len(before), style) for begin, end, style in drawn.spans)
    yield Line(before + drawn.text, spans)


def _legend(found: Timeline, width: int | None, marks: Marks) -> Iterator[Line]:
    for name, number in found.groups.items():
        yield Line(f"{timeline.block(number, marks)} {escaped(name)}", ((0, 1, timeline.colour(number)),))
    if any(track.messages for track in found.tracks.values()):
        text = f"{marks.message} a message; a digit: so many, {marks.many} more than nine"
        yield from (Line(line) for line in wrap(text, width or WIDTH))


def entries(run: pb.PreviewAlertResponse.Run, width: int | None) -> Iterator[Line]:
    """Tell what changed in a run, and what would have been sent."""
    at = short_time_text(run.execution.scheduled_time)
    if run.execution.HasField("error"):
        error = run.execution.error
        yield from _folded(f"{at}  failed", f"{error.reason}: {error.message}", width, "red")
    for change in run.transitions:
        kind = change.type.removeprefix(_PREFIX)
        yield from _folded(f"{at}  {kind}", change.message, width, _COLOURS.get(kind, ""))
    for message in run.notifications:
        yield from _message(at, message, width)


def _message(at: str, message: pb.PreviewAlertResponse.Notification, width: int | None) -> Iterator[Line]:
    head = f"{at}  message"
    text = f"about {message.instance_id} ({message.action_group}) to {message.configuration_id}"
    yield from _folded(head, text, width, "cyan")
    said = [f"cannot be made: {message.error}"] if message.error else _said(to_python(message.params))
    for part in said:
        yield from (Line(line) for line in _wrapped(part, width, _INDENT))


def _said(params: dict[str, Any]) -> Iterable[str]:
    """Answer what would have been sent, a text for each line; what is no text as JSON."""
    for name in sorted(params, key=lambda key: (key != "subject", key)):
        value = params[name]
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        first, *others = text.splitlines() or [""]
        yield f"{name}: {first}"
        yield from (f"  {line}" for line in others)


def _folded(head: str, text: str, width: int | None, style: str) -> Iterator[Line]:
    """Fold an entry: its time, what it is in colour, and what there is to say."""
    for number, line in enumerate(_wrapped(f"{head}  {text}", width)):
        spans = ((len(_INDENT), min(len(head), len(line)), style),) if style and not number else ()
        yield Line(line, spans)


def _wrapped(text: str, width: int | None, indent: str = "") -> Sequence[str]:
    """Fold a text to the terminal; where there is none it stays one line."""
    if width is None:
        return [indent + escaped(text)]
    room = max(width, len(_INDENT) + 20)
    below = _INDENT + "  "
    return wrap(escaped(text), room, initial_indent=indent, subsequent_indent=below, break_on_hyphens=False)
