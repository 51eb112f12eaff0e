"""What a preview tells, as stretches of time per instance, and as rows of a drawing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tocsin.cli.histogram import GLYPHS, STYLES
from tocsin.cli.histogram import PLAIN as PLAIN_GLYPHS
from tocsin.cli.tables import Line, Span
from tocsin.v1 import alerting_pb2 as pb
from tocsin.values import to_datetime

_STEPS = (
    *(timedelta(seconds=n) for n in (1, 2, 5, 10, 15, 30)),
    *(timedelta(minutes=n) for n in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=n) for n in (1, 2, 3, 6, 12)),
    *(timedelta(days=n) for n in (1, 2, 7, 14, 28, 91, 182, 364, 728, 1820, 3640)),
)
_EPOCH = datetime.fromisoformat("1970-01-05T00:00:00+00:00")  # a Monday: weeks begin with it
_NEVER = datetime.max.replace(tzinfo=UTC)
_MANY = 9


@dataclass(frozen=True)
class Marks:
    """The characters of a drawing: blocks of groups, nothing, one message, more than a digit says, a failed run."""

    blocks: str
    idle: str
    message: str
    many: str
    failed: str
    rule: str
    tick: str


DRAWN = Marks(GLYPHS, "·", "▴", "+", "✘", "─", "┬")
PLAIN = Marks(PLAIN_GLYPHS[:-1], ".", "^", "+", "x", "-", "+")


@dataclass
class Stretch:
    """Time in which an instance is in a group; without an end it goes on."""

    group: str
    begin: datetime
    end: datetime | None = None


@dataclass
class Track:
    """One instance: when it is active, and when messages about it would have been sent."""

    stretches: list[Stretch] = field(default_factory=list)
    messages: list[datetime] = field(default_factory=list)

    def is_in(self, group: str, at: datetime) -> None:
        """Have the instance be in a group from a time on."""
        if self.stretches and self.stretches[-1].end is None:
            if self.stretches[-1].group == group:
                return
            self.stretches[-1].end = at
        self.stretches.append(Stretch(group, at))

    @property
    def begin(self) -> datetime:
        """When there is something of it first."""
        first = [*(stretch.begin for stretch in self.stretches[:1]), *self.messages[:1]]
        return min(first, default=_NEVER)

    def recovers(self, at: datetime) -> None:
        """Have the instance be active no more."""
        if self.stretches and self.stretches[-1].end is None:
            self.stretches[-1].end = at


@dataclass
class Timeline:
    """What would have been in a range of time, gathered part by part."""

    start: datetime
    end: datetime
    tracks: dict[str, Track] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    """The groups that instances are in, numbered as they come up."""
    failures: list[datetime] = field(default_factory=list)

    def take(self, run: pb.PreviewAlertResponse.Run) -> None:
        """Take note of a run. Runs that are left out have changed nothing."""
        at = to_datetime(run.execution.scheduled_time)
        if run.execution.status == pb.ALERT_STATUS_ERROR:
            self.failures.append(at)
        for one in run.execution.instances:
            track = self.tracks.setdefault(one.id, Track())
            if one.recovered:
                track.recovers(at)
            else:
                self.groups.setdefault(one.action_group, len(self.groups))
                track.is_in(one.action_group, at)
        for message in run.notifications:
            self.tracks.setdefault(message.instance_id, Track()).messages.append(at)


@dataclass(frozen=True)
class Scale:
    """Which column stands for which time."""

    start: datetime
    end: datetime
    columns: int

    @property
    def _span(self) -> timedelta:
        return max(self.end - self.start, timedelta(microseconds=1))

    def column(self, at: datetime) -> int:
        """Answer the column of a time; what is outside goes to the first or the last."""
        return min(max((at - self.start) * self.columns // self._span, 0), self.columns - 1)

    def ticks(self) -> list[tuple[int, str]]:
        """Answer columns with their times, round ones, so far apart that there is room for each."""
        for step in _STEPS:
            room = len(_label(self.start, step)) + 2
            if self._span // step * room <= self.columns:
                break
        first = self.start + (_EPOCH - self.start) % step
        count = (self.end - first) // step + 1
        found = [first + step * number for number in range(count)]
        return [(self.column(at), _label(at, step)) for at in found if at < self.end]


def _label(at: datetime, step: timedelta) -> str:
    if step >= timedelta(days=1):
        return at.strftime("%Y-%m-%d")
    if step < timedelta(minutes=1):
        return at.strftime("%H:%M:%S")
    return at.strftime("%m-%d" if (at.hour, at.minute) == (0, 0) else "%H:%M")


def bar(track: Track, scale: Scale, groups: Mapping[str, int], marks: Marks) -> Line:
    """Draw when an instance was active, each group in a block and a colour of its own."""
    cells: list[int | None] = [None] * scale.columns
    for stretch in track.stretches:
        first = scale.column(stretch.begin)
        last = scale.columns if stretch.end is None else max(scale.column(stretch.end), first + 1)
        cells[first:last] = [groups[stretch.group]] * (last - first)
    text = "".join(marks.idle if cell is None else block(cell, marks) for cell in cells)
    return Line(text, tuple(_spans(cells)))


def block(group: int, marks: Marks) -> str:
    """Answer the block of the n-th group; the last one stands for all that follow."""
    return marks.blocks[min(group, len(marks.blocks) - 1)]


def colour(group: int) -> str:
    """Answer the colour of the n-th group."""
    return STYLES[min(group, len(STYLES) - 1)]


def _spans(cells: Sequence[int | None]) -> Iterable[Span]:
    begin = 0
    for place in range(1, len(cells) + 1):
        if place == len(cells) or cells[place] != cells[begin]:
            group = cells[begin]
            if group is not None:
                yield begin, place, colour(group)
            begin = place


def counted(times: Iterable[datetime], scale: Scale, one: str, many: str) -> str:
    """Mark times: one by its mark, several in a column by a digit."""
    counts = [0] * scale.columns
    for at in times:
        counts[scale.column(at)] += 1
    shown = (" " if not n else one if n == 1 else str(n) if n <= _MANY else many for n in counts)
    return "".join(shown).rstrip()


def axis(scale: Scale, marks: Marks) -> tuple[str, str]:
    """Draw the axis of time: a rule with ticks, and the times below them."""
    rule = [marks.rule] * scale.columns
    labels = ""
    for column, label in scale.ticks():
        rule[column] = marks.tick
        if column + len(label) <= scale.columns and column >= len(labels):
            labels = labels.ljust(column) + label + " "
    return "".join(rule), labels.rstrip()
