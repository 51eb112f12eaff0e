"""What a replay reads: `domain.aggregation.EventReads` in one pass over the log.

A question that comes again and again, each time for a window that has moved on, is answered by a slide: it
takes each event in when the window comes to it and lets it go when the window has passed. Of
each window it gives the answer that `EventAggregates` gives, to the last digit. A question that does not
move on as a window does is asked of the store, as a run asks it. Slides of one question share what they read.

Counts, distinct values and newest times are kept up to date as events come and go; what stands in `details`
is aggregated anew for each run, of as many events as a run may decode.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tocsin_server.domain.aggregation import (
    EVENTS_DECODED_MAX,
    EventQuestion,
    EventSample,
    Group,
    aggregate,
)
from tocsin_server.domain.replay import EVENTS_MAX
from tocsin_server.store.event_aggregates import EventAggregates, Read, too_many
from tocsin_server.store.replay_feed import EVER, Feed

SLIDES_MAX = 64  # windows of one alert that are followed, such as one and its 28 references; others are asked anew
AHEAD = 64  # steps of the window that one read looks ahead: no read transaction is held for longer


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store to read, beside the server that has it."""
    # A plug-in reads on a thread of its own, while the one that opened it waits.
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA query_only = 1")
        yield connection
    finally:
        connection.close()


class ReplayReads:
    """What a replay of one alert reads; `events` counts what was read, at most EVENTS_MAX and one more.

    Answers after that one more are of no use.
    """

    def __init__(self, connection: sqlite3.Connection, account: str, alert_id: str) -> None:
        self._connection = connection
        self._account = account
        self._store = EventAggregates(connection, account, alert_id)
        self._slides: dict[object, Slide] = {}
        self._feeds: dict[EventQuestion, Feed] = {}
        self.events = 0
        self._earliest = EVER  # begin of all windows

    def aggregate(self, question: EventQuestion) -> list[Group]:
        """Answer a question, from the slide that follows it if there is one."""
        since, before = question.events.since, question.events.before
        if since is None or before is None or since >= before:
            return self._store.aggregate(question)
        self._earliest = min(self._earliest, since)
        timeless = replace(question, events=replace(question.events, since=None, before=None), created_before=0)
        place = (timeless, question.created_before - since, before - since)
        slide = self._slides.get(place)
        if slide is None and len(self._slides) < SLIDES_MAX:
            feed = self._feeds.setdefault(timeless, Feed(self._rows, self._count))
            slide = self._slides[place] = Slide(question, feed)
        if slide is None or not slide.follows(since):
            return self._store.aggregate(question)
        return slide.answer(question, since, before)

    def _rows(self, question: EventQuestion) -> Iterator[Read]:
        """Read no more than one event beyond what a preview may: it is refused then, whatever is made of them."""
        return self._store.rows(question, EVENTS_MAX + 1 - self.events)

    def _count(self, events: int) -> None:
        self.events += events

    def samples(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> Mapping[tuple[str, ...], Sequence[EventSample]]:
        """Give the newest events of groups, from the store: only instances have samples."""
        return self._store.samples(question, groups, each)

    def recorded_since(self) -> int | None:
        """Say since when what was appended is in the log as it stands."""
        return self._store.recorded_since()

    def is_incomplete(self, start: int) -> bool:
        """Tell whether runs from a time on saw events that have been deleted, as far as the store still knows."""
        (horizon,) = self._connection.execute(
            "SELECT coalesce(max(position), 0) FROM horizons WHERE account IN (?, '')", (self._account,)
        ).fetchone()
        recorded = self.recorded_since()
        if horizon and (recorded is None or recorded > min(start, self._earliest)):
            return True
        deleted = self._connection.execute(
            "SELECT 1 FROM event_keys WHERE account = ? AND deleted_at <> 0 AND deleted_at >= ? LIMIT 1",
            (self._account, start),
        )
        return deleted.fetchone() is not None


def _is_counted(question: EventQuestion, read: Read) -> bool:
    """Tell whether an event that the columns describe is one of a group's."""
    return not (question.drop_missing and "" in read.values) and (not question.field or read.value != "")


@dataclass(slots=True)
class Part:
    """The events of one group that are in the window, as far as the question needs to know them."""

    count: int = 0
    values: Counter[object] = field(default_factory=Counter)
    times: deque[int] = field(default_factory=deque)

    def take(self, read: Read, aggregation: str) -> None:
        """Take an event in."""
        self.count += 1
        if aggregation == "distinct":
            self.values[read.value] += 1
        elif aggregation == "latest":
            place = len(self.times)
            while place and self.times[place - 1] > read.timestamp:
                place -= 1
            self.times.insert(place, read.timestamp)

    def lose(self, read: Read, aggregation: str) -> None:
        """Let the oldest event go."""
        self.count -= 1
        if aggregation == "distinct":
            self.values[read.value] -= 1
            if not self.values[read.value]:
                del self.values[read.value]
        elif aggregation == "latest":
            self.times.popleft()

    def value(self, aggregation: str) -> int | None:
        """Give the aggregate."""
        match aggregation:
            case "distinct":
                return len(self.values)
            case "latest":
                return self.times[-1] if self.times else None
        return self.count


class Slide:
    """One question and the events of its window, while the window moves on."""

    def __init__(self, question: EventQuestion, feed: Feed) -> None:
        self._feed = feed
        self._since = self._read_to = question.events.since or 0
        self._step = 1  # microseconds that the window moved on last
        self._ahead: deque[Read] = deque()
        self._late: list[tuple[int, int, Read]] = []  # stored after the run that would have seen it
        self._window: list[Read] = []  # a heap, by time
        self._parts: dict[tuple[str, ...], Part] = {}
        self._whole = question.needs_bodies

    def follows(self, since: int) -> bool:
        """Tell whether the window goes on to a time: it never goes back."""
        return since >= self._since

    def answer(self, question: EventQuestion, since: int, before: int) -> list[Group]:
        """Answer for a window that begins where the last one did, or later."""
        self._step, self._since = max(since - self._since, self._step if since == self._since else 1), since
        self._read(question, before)
        while self._late and self._late[0][0] < question.created_before:
            read = heapq.heappop(self._late)[2]
            if read.timestamp >= since:
                self._take(question, read)
        while self._ahead and self._ahead[0].timestamp < before:
            read = self._ahead.popleft()
            if read.created_at >= question.created_before:
                heapq.heappush(self._late, (read.created_at, read.position, read))
            elif read.timestamp >= since:
                self._take(question, read)
        while self._window and self._window[0].timestamp < since:
            self._lose(question, heapq.heappop(self._window))
        return self._aggregated(question) if self._whole else self._counted(question)

    def _read(self, question: EventQuestion, before: int) -> None:
        """Read what happened before a time, and somewhat ahead."""
        if before <= self._read_to:
            return
        to = before + self._step * AHEAD
        while self._read_to < before:
            found, self._read_to = self._feed.read(question, self._read_to, to)
            self._ahead.extend(found)

    def _take(self, question: EventQuestion, read: Read) -> None:
        heapq.heappush(self._window, read)
        if not self._whole and _is_counted(question, read):
            self._parts.setdefault(read.values, Part()).take(read, question.aggregation)

    def _lose(self, question: EventQuestion, read: Read) -> None:
        if not self._whole and _is_counted(question, read):
            part = self._parts[read.values]
            part.lose(read, question.aggregation)
            if not part.count:
                del self._parts[read.values]

    def _aggregated(self, question: EventQuestion) -> list[Group]:
        if len(self._window) > EVENTS_DECODED_MAX:
            raise too_many()
        return aggregate(question, ((read.values, read.value) for read in self._window if read.matches))

    def _counted(self, question: EventQuestion) -> list[Group]:
        kind = question.aggregation
        if not question.group_by:
            part = self._parts.get((), Part())
            return [Group((), part.count, part.value(kind))]
        low, high = question.at_least, question.at_most
        fitting = [
            (-part.count, values)
            for values, part in self._parts.items()
            if part.count >= low and (high is None or part.count <= high)
        ]
        fitting.sort()
        return [Group(values, -count, self._parts[values].value(kind)) for count, values in fitting[: question.limit]]
