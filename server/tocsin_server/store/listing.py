"""Pages of events by (timestamp, position).

A page is merged from streams: runs of one index that are in order already, one for each value of the
criterion that the index answers, and for each account where all are meant. So every page is found by
a few seeks, whatever the log holds, and neither globs over types nor lists of every account need an
index or a table of their own, which each append would pay for. What no index answers is looked at row by row, at most
SCAN_EVENTS_MAX rows a page; a `where` is asked last, of what is left, for at most WHERE_SCAN_S.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

from tocsin_server.domain.event_log import PAGE_BYTES_MAX, SCAN_EVENTS_MAX, TOTAL_SIZE_MAX, Key, ListPage, TotalSize
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.where import WHERE_SCAN_S, compiled
from tocsin_server.store.selection import HEAD_COLUMNS, Where, joined, streams
from tocsin_server.store.wire import checked

Row = tuple[int, int, int, int, bytes]  # timestamp, position, level, crc, body
Clock = Callable[[], float]
NOTHING = Where("")
_key = itemgetter(0, 1)


@dataclass(frozen=True, slots=True)
class Direction:
    """The order of a list in SQL."""

    newest_first: bool

    @property
    def ordered(self) -> str:
        """Say the order."""
        word = "DESC" if self.newest_first else "ASC"
        return f"ORDER BY timestamp {word}, position {word}"

    def beyond(self, key: Key) -> Where:
        """Say: later in this order than a place."""
        sign = "<" if self.newest_first else ">"
        # The first term is a range of the index; the second decides between equal timestamps.
        sql = f"timestamp {sign}= ? AND (timestamp, position) {sign} (?, ?)"
        return Where(sql, (key.timestamp, key.timestamp, key.position))

    def upto(self, key: Key) -> Where:
        """Say: not later in this order than a place."""
        sign = ">" if self.newest_first else "<"
        sql = f"timestamp {sign}= ? AND (timestamp, position) {sign}= (?, ?)"
        return Where(sql, (key.timestamp, key.timestamp, key.position))

    def merged(self, runs: list[sqlite3.Cursor]) -> Iterator[tuple[int, ...]]:
        """Join runs that are in this order."""
        return iter(runs[0]) if len(runs) == 1 else heapq.merge(*runs, key=_key, reverse=self.newest_first)


class Listing:
    """What one filter means, in one order, over one connection."""

    def __init__(self, connection: sqlite3.Connection, event_filter: EventFilter, newest_first: bool = True) -> None:
        self._connection = connection
        self._streams = streams(connection, event_filter)
        self._direction = Direction(newest_first)
        self._condition = compiled(event_filter.where).matches if event_filter.where else None

    def page(self, after: Key | None, size: int, clock: Clock) -> ListPage:
        """Take rows until the page is full; bodies beyond it are not read."""
        frames: list[bytes] = []
        taken = 0
        boundary = self.boundary(after)
        last = after
        for row, matches in self._rows(after, boundary, size, clock):
            if row is None:
                return ListPage(frames, last)
            timestamp, position, _, crc, body = row
            if matches:
                if len(frames) == size or (frames and taken + len(body) > PAGE_BYTES_MAX):
                    return ListPage(frames, last)
                frames.append(checked(position, crc, body))
                taken += len(body)
            last = Key(timestamp, position)
        return ListPage(frames, boundary)

    def total(self, clock: Clock) -> TotalSize:
        """Count what matches, to a bound and with bounded work."""
        if self._condition is not None:
            return self._asked_total(clock)
        found = looked = 0
        for stream in self._streams.each:
            room = min(TOTAL_SIZE_MAX + 1 - found, SCAN_EVENTS_MAX + 1 - looked)
            counted, rows = self._count(stream, SCAN_EVENTS_MAX + 1 - looked if self._streams.residual else room)
            found, looked = found + counted, looked + rows
            if found > TOTAL_SIZE_MAX or looked > SCAN_EVENTS_MAX:
                return TotalSize(min(found, TOTAL_SIZE_MAX), True)
        return TotalSize(found, False)

    def _count(self, stream: Where, limit: int) -> tuple[int, int]:
        """Count the matching among the first rows of a stream, and the rows."""
        residual = self._streams.residual or Where("1")
        columns = ", ".join(HEAD_COLUMNS)
        source = f"SELECT {columns}, deleted_at FROM {self._table} WHERE {stream.sql} {self._direction.ordered} LIMIT ?"
        row = self._connection.execute(
            f"SELECT coalesce(sum(deleted_at = 0 AND ({residual.sql})), 0), count(*) FROM ({source}) AS events",
            [*residual.values, *stream.values, limit],
        ).fetchone()
        return int(row[0]), int(row[1])

    def _asked_total(self, clock: Clock) -> TotalSize:
        found, boundary = 0, self.boundary(None)
        for row, matches in self._rows(None, boundary, SCAN_EVENTS_MAX, clock):
            if row is None or found == TOTAL_SIZE_MAX:
                return TotalSize(found, True)
            found += matches
        return TotalSize(found, boundary is not None)

    @property
    def _table(self) -> str:
        return f"events INDEXED BY {self._streams.index}"

    def _rows(
        self, after: Key | None, boundary: Key | None, size: int, clock: Clock
    ) -> Iterator[tuple[Row | None, bool]]:
        """Give rows and whether the condition is met; None where the time to ask is over."""
        conditions = self.conditions(after, boundary)
        limit = size + 1 if self._condition is None else SCAN_EVENTS_MAX + 1
        runs = [
            self._run("timestamp, position, level, crc, body", [stream, *conditions], limit)
            for stream in self._leading(conditions, limit)
        ]
        rows: Iterator[Row] = self._direction.merged(runs) if runs else iter(())  # type: ignore[assignment]
        until = clock() + WHERE_SCAN_S
        for number, row in enumerate(rows):
            if self._condition is None:
                yield row, True
            elif number == SCAN_EVENTS_MAX or (number and clock() > until):
                yield None, False
                return
            else:
                yield row, self._condition(checked(row[1], row[3], row[4]), row[2])

    def conditions(self, after: Key | None, boundary: Key | None) -> list[Where]:
        """Say, beside a stream, what stands between two places and matches but for the `where`."""
        found = [Where("deleted_at = 0")]
        if after is not None:
            found.append(self._direction.beyond(after))
        if boundary is not None:
            found.append(self._direction.upto(boundary))
        if self._streams.residual is not None:
            found.append(self._streams.residual)
        return found

    def edge(self, *, newest: bool) -> int | None:
        """Find the first or the last timestamp that a matching event can have."""
        found = [
            self._connection.execute(
                f"SELECT {'max' if newest else 'min'}(timestamp) FROM {self._table} WHERE {stream.sql}", stream.values
            ).fetchone()[0]
            for stream in self._streams.each
        ]
        times = [timestamp for timestamp in found if timestamp is not None]
        return (max if newest else min)(times) if times else None

    def _run(self, columns: str, conditions: list[Where], limit: int, first: Where = NOTHING) -> sqlite3.Cursor:
        """Read a stream in order; `first` has the values of the marks in `columns`."""
        where = joined(conditions)
        return self._connection.execute(
            f"SELECT {columns} FROM {self._table} WHERE {where.sql} {self._direction.ordered} LIMIT ?",
            [*first.values, *where.values, limit],
        )

    def _leading(self, conditions: list[Where], limit: int) -> tuple[Where, ...]:
        """Leave out the streams that cannot reach the page: so many others begin before them."""
        each = self._streams.each
        if len(each) <= limit:
            return each
        begins: list[tuple[tuple[int, int], Where]] = []
        for stream in each:
            row = self._run("timestamp, position", [stream, *conditions], 1).fetchone()
            if row is not None:
                begins.append((row, stream))
        begins.sort(key=itemgetter(0), reverse=self._direction.newest_first)
        return tuple(stream for _, stream in begins[:limit])

    def boundary(self, after: Key | None) -> Key | None:
        """Find the last place that a page may look at, where it has to look at rows that it may not take."""
        if self._streams.residual is None and not self._many_hidden():
            return None
        return self.nth(after, SCAN_EVENTS_MAX)

    def nth(self, after: Key | None, number: int) -> Key | None:
        """Find the place of the so many-th row after a place, matching or not; None when there are fewer."""
        range_ = [self._direction.beyond(after)] if after is not None else []
        each = self._streams.each
        if len(each) == 1:
            where = joined([each[0], *range_])
            row = self._connection.execute(
                f"SELECT timestamp, position FROM {self._table} WHERE {where.sql} {self._direction.ordered}"
                f" LIMIT 1 OFFSET {number - 1}",
                where.values,
            ).fetchone()
        else:
            runs = [self._run("timestamp, position", [stream, *range_], number) for stream in each]
            keys = self._direction.merged(runs) if runs else iter(())
            row = next(islice(keys, number - 1, None), None)
        return Key(*row) if row is not None else None

    def _many_hidden(self) -> bool:
        """Tell whether so many deleted events keep their bodies that they could hold a page up."""
        sql = f"SELECT 1 FROM events INDEXED BY events_hidden WHERE deleted_at <> 0 LIMIT 1 OFFSET {SCAN_EVENTS_MAX}"
        return self._connection.execute(sql).fetchone() is not None
