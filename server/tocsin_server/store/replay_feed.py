"""What a replay has read of one question, so that windows which follow each other read each event once.

A window and its references, or the windows just before it, ask the same question about other times. What one of
them has read, another comes to later: it stays here in chunks, the newest up to a bound, and is read again beyond.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tocsin_server.domain.aggregation import EventQuestion
from tocsin_server.store.event_aggregates import Read

KEPT_MAX = 250_000  # events of one question: about 60 MB; what is older is read again by whoever comes to it
EVER = 2**62  # microseconds: later than any event

Rows = Callable[[EventQuestion], Iterator[Read]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The events of a stretch of time, by time and position."""

    since: int
    before: int
    reads: Sequence[Read]


class Feed:
    """The events of one question, whatever the window; `count` is told how many were read from the store."""

    def __init__(self, rows: Rows, count: Callable[[int], None]) -> None:
        self._rows = rows
        self._count = count
        self._chunks: dict[int, Chunk] = {}  # by their begin; none lie over each other
        self._begins: list[int] = []
        self._order: deque[int] = deque()  # as they were read
        self._kept = 0

    def read(self, question: EventQuestion, since: int, before: int) -> tuple[Sequence[Read], int]:
        """Give the events from a time on, and the time up to which these are all: `before`, or another."""
        place = bisect_right(self._begins, since)
        if place:
            chunk = self._chunks[self._begins[place - 1]]
            if since < chunk.before:
                return chunk.reads[bisect_left(chunk.reads, (since,)) :], chunk.before
        before = min(before, self._begins[place]) if place < len(self._begins) else before
        events = replace(question.events, since=since, before=before)
        found = sorted(self._rows(replace(question, events=events, created_before=EVER)))
        self._count(len(found))
        self._keep(Chunk(since, before, found))
        return found, before

    def _keep(self, chunk: Chunk) -> None:
        self._chunks[chunk.since] = chunk
        insort(self._begins, chunk.since)
        self._order.append(chunk.since)
        self._kept += len(chunk.reads)
        while self._kept > KEPT_MAX and len(self._order) > 1:
            oldest = self._chunks.pop(self._order.popleft())
            del self._begins[bisect_left(self._begins, oldest.since)]
            self._kept -= len(oldest.reads)
