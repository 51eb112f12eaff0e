"""Counting for summaries: slice by slice from the newest event back, each slice one short query."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, Protocol

from tocsin_server.domain.event_log import Key
from tocsin_server.domain.summary import (
    SUMMARY_EVENTS_MAX,
    SUMMARY_S,
    SUMMARY_SLICE_EVENTS,
    Range,
    Summary,
    SummaryQuery,
    Tally,
    summary,
    width_of,
)
from tocsin_server.domain.where import WHERE_SCAN_S
from tocsin_server.store.listing import Clock, Listing
from tocsin_server.store.selection import HEAD_COLUMNS, LABELS, Where, joined
from tocsin_server.store.wire import checked

LABEL = "labels."


class Read(Protocol):
    """Runs a read on a reader thread."""

    def __call__(self, read: Callable[[sqlite3.Connection], Any], /) -> Awaitable[Any]:
        """Run `read` with the thread's connection."""
        ...


async def summarize(read: Read, query: SummaryQuery, clock: Clock) -> Summary:
    """Count events from the newest back, until all are counted or a bound is reached."""
    until = clock() + SUMMARY_S
    seen: Range | None = await read(lambda c: _range(Listing(c, query.event_filter), query))
    width = width_of(query, seen)
    counts: Counter[tuple[int, str]] = Counter()
    looked = 0
    place: Key | None = None
    while seen is not None:
        tally = await _slice(read, query, width, place, clock)
        counts.update(tally.counts)
        looked += tally.looked
        place = tally.through
        if place is None or looked >= SUMMARY_EVENTS_MAX or clock() > until:
            break
    return summary(query, seen, width, counts, place.timestamp if place is not None else None)


async def _slice(read: Read, query: SummaryQuery, width: int | None, after: Key | None, clock: Clock) -> Tally:
    tally: Tally = await read(lambda c: _Slice(c, query, width).tally(after, clock))
    return tally


def _range(listing: Listing, query: SummaryQuery) -> Range | None:
    """Find the times to count between: those that are asked for, or those of what there is."""
    wanted = query.event_filter
    first, last = wanted.since, wanted.before - 1 if wanted.before is not None else None
    if first is None:
        first = listing.edge(newest=False)
    if last is None:
        last = listing.edge(newest=True)
    return Range(first, last) if first is not None and last is not None and first <= last else None


class _Slice(Listing):
    """One slice of a summary."""

    def __init__(self, connection: sqlite3.Connection, query: SummaryQuery, width: int | None) -> None:
        super().__init__(connection, query.event_filter)
        self._group = _group(query.group_by)
        self._bucket = f"timestamp / {width}" if width is not None else "0"

    def tally(self, after: Key | None, clock: Clock) -> Tally:
        """Count the events of the slice that begins after a place."""
        boundary = self.nth(after, SUMMARY_SLICE_EVENTS)
        conditions = self.conditions(after, boundary)
        if self._condition is not None:
            return self._asked(conditions, boundary, clock)
        counts: Counter[tuple[int, str]] = Counter()
        for stream in self._streams.each:
            where = joined([stream, *conditions])
            rows = self._connection.execute(
                f"SELECT {self._bucket} AS bucket, {self._group.sql} AS value, count(*) FROM {self._table}"
                f" WHERE {where.sql} GROUP BY bucket, value",
                [*self._group.values, *where.values],
            )
            for bucket, value, count in rows:
                counts[bucket, str(value)] += count
        return Tally(counts, SUMMARY_SLICE_EVENTS, boundary)

    def _asked(self, conditions: list[Where], boundary: Key | None, clock: Clock) -> Tally:
        """Count where each event has to be asked; the slice ends early when its time is over."""
        assert self._condition is not None
        columns = f"timestamp, position, level, crc, body, {self._bucket}, {self._group.sql}"
        runs = [self._run(columns, [stream, *conditions], -1, self._group) for stream in self._streams.each]
        counts: Counter[tuple[int, str]] = Counter()
        until = clock() + WHERE_SCAN_S
        rows: Any = self._direction.merged(runs) if runs else iter(())
        looked = 0
        for looked, row in enumerate(islice(rows, SUMMARY_SLICE_EVENTS), 1):
            timestamp, position, level, crc, body, bucket, value = row
            if self._condition(checked(position, crc, body), level):
                counts[bucket, str(value)] += 1
            if clock() > until:
                return Tally(counts, looked, Key(timestamp, position))
        return Tally(counts, looked, boundary)


def _group(name: str) -> Where:
    """Say the value of the field to group by."""
    if name.startswith(LABEL):
        value = f"(SELECT value FROM json_each({LABELS}) WHERE key = ?)"
        return Where(f"CASE WHEN labels <> '' THEN coalesce({value}, '') ELSE '' END", (name[len(LABEL) :],))
    return Where(name if name in HEAD_COLUMNS else "''")
