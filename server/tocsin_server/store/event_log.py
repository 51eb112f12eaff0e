"""Reading and deleting events. Appending is in `appending.py`, following in `following.py`.

Reads are bounded: a page looks at no more than SCAN_EVENTS_MAX events, whatever the filter.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from tocsin_server.domain.errors import Reason, TocsinError, Violation, not_found
from tocsin_server.domain.event_log import (
    SCAN_EVENTS_MAX,
    EventHead,
    Found,
    Identity,
    Key,
    ListPage,
    LogStatus,
    Named,
    ScanPage,
    Stored,
    TotalSize,
)
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.summary import Summary, SummaryQuery
from tocsin_server.domain.where import WHERE_SCAN_S, compiled
from tocsin_server.store import lookups, selection
from tocsin_server.store.appending import reused
from tocsin_server.store.database import Readers, log_status
from tocsin_server.store.listing import Clock, Listing
from tocsin_server.store.summary import summarize
from tocsin_server.store.wire import checked
from tocsin_server.store.writer import Transaction

T = TypeVar("T")
ROUTER = "router"  # name of the cursor of notification routing
# A configuration of the account `admin` with scope `global` is told about events of other accounts.
ANY_OPEN_DELIVERY = "position IN (SELECT event_position FROM deliveries WHERE ended_at = 0 AND event_position > 0)"


log = structlog.get_logger("tocsin.store")
SWEEP_KEYS_MAX = 1000  # request ids that one sweep looks at: a few milliseconds
ROUTED_MAX_S = 30.0  # the router is stuck: the caller is told rather than left to wait
ROUTED_POLL_S = 0.01  # the router is a few milliseconds behind; nobody else waits on this


class EventReads:
    """Reads of the log, each one short query on a reader thread.

    `monotonic` ends reads with a `where` in time; the router, which has none, gives no clock.
    """

    def __init__(self, readers: Readers, monotonic: Clock = lambda: 0.0) -> None:
        self._readers = readers
        self._monotonic = monotonic

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def status(self, account: str | None) -> LogStatus:
        """Read identity, head and oldest readable position."""
        return await self._read(lambda c: log_status(c, account))

    async def reused(self, account: str, identities: Sequence[Identity]) -> list[Violation]:
        """Name the events of a batch whose id is stored with other content, or occurs twice."""
        return await self._read(lambda c: reused(c, account, identities))

    async def get(self, account: str, event_id: str) -> bytes:
        """Read one event's frame by its id."""
        return await self._read(lambda c: _get(c, account, event_id))

    async def get_at(self, position: int) -> bytes:
        """Read one event's frame by its position, hidden ones too."""
        return await self._read(lambda c: _get_at(c, position))

    async def batch(self, account: str, ids: Sequence[str]) -> Found:
        """Read several events by their ids, as many as fit into one answer."""
        return await self._read(lambda c: lookups.batch(c, account, ids))

    async def standing(self, account: str | None) -> TotalSize:
        """Count the events that can be read."""
        return await self._read(lambda c: lookups.standing(c, account))

    async def page(self, event_filter: EventFilter, newest_first: bool, after: Key | None, size: int) -> ListPage:
        """Read one page by (timestamp, position)."""
        return await self._read(lambda c: Listing(c, event_filter, newest_first).page(after, size, self._monotonic))

    async def total(self, event_filter: EventFilter) -> TotalSize:
        """Count what a list has on all its pages, to a bound."""
        return await self._read(lambda c: Listing(c, event_filter).total(self._monotonic))

    async def summarize(self, query: SummaryQuery) -> Summary:
        """Count events per bucket of time and value of a field."""
        return await summarize(self._read, query, self._monotonic)

    async def scan(self, event_filter: EventFilter, after: int, upto: int, size: int, size_bytes: int) -> ScanPage:
        """Read matching events with `after` < position <= `upto`, in position order."""
        return await self._read(lambda c: _scan(c, event_filter, after, upto, size, size_bytes, self._monotonic))

    async def matching(self, event_filter: EventFilter, after: int, upto: int, limit: int) -> tuple[list[Named], int]:
        """Find events that a `where` means with `after` < position <= `upto`; say how far it looked."""
        return await self._read(lambda c: _matching(c, event_filter, after, upto, limit, self._monotonic))

    async def stored(self, after: int, limit: int) -> list[Stored]:
        """Read whole rows of all accounts in position order, for the router; a damaged one has no frame."""
        return await self._read(lambda c: _stored(c, after, limit))

    async def position_before(self, created_at: int) -> int:
        """Find the position before the first event stored at `created_at` or later."""
        return await self._read(lambda c: position_before(c, created_at))

    async def routed(self, position: int) -> None:
        """Wait until the router has passed a position."""
        try:
            async with asyncio.timeout(ROUTED_MAX_S):
                while await self._read(lambda c: cursor_position(c, ROUTER)) < position:
                    await asyncio.sleep(ROUTED_POLL_S)
        except TimeoutError:
            text = f"events up to position {position} are not routed yet; nothing was deleted"
            raise TocsinError(Reason.DEADLINE_EXCEEDED, text, retry_s=5.0) from None

    async def count(self, event_filter: EventFilter) -> int:
        """Count the events that match."""
        if event_filter.where:
            return await self._count_asked(event_filter)
        where = selection.where(event_filter)
        sql = f"SELECT count(*) FROM events WHERE deleted_at = 0 AND {where.sql}"
        return await self._read(lambda c: int(c.execute(sql, where.values).fetchone()[0]))

    async def _count_asked(self, event_filter: EventFilter) -> int:
        """Count in steps, so that nobody waits behind the whole of it."""
        head = (await self.status(None)).head
        found, reached = 0, 0
        while reached < head:
            named, reached = await self.matching(event_filter, reached, head, SCAN_EVENTS_MAX)
            found += len(named)
        return found


def _get(connection: sqlite3.Connection, account: str, event_id: str) -> bytes:
    row = connection.execute(
        "SELECT e.position, e.crc, e.body FROM event_keys AS k JOIN events AS e ON e.position = k.position"
        " WHERE k.account = ? AND k.id = ? AND k.deleted_at = 0 AND e.deleted_at = 0",
        (account, event_id),
    ).fetchone()
    if row is None:
        raise not_found("event", event_id)
    return checked(*row)


def _get_at(connection: sqlite3.Connection, position: int) -> bytes:
    row = connection.execute("SELECT position, crc, body FROM events WHERE position = ?", (position,)).fetchone()
    if row is None:
        raise TocsinError(Reason.NOT_FOUND, f"there is no event at position {position}")
    return checked(*row)


def _scan(
    connection: sqlite3.Connection,
    event_filter: EventFilter,
    after: int,
    upto: int,
    size: int,
    size_bytes: int,
    clock: Clock,
) -> ScanPage:
    where = selection.where(event_filter)
    condition = compiled(event_filter.where).matches if event_filter.where else None
    rows = connection.execute(
        "SELECT position, level, crc, body FROM events NOT INDEXED"
        f" WHERE position > ? AND position <= ? AND deleted_at = 0 AND {where.sql} ORDER BY position LIMIT ?",
        (after, upto, *where.values, -1 if condition else size),
    )
    events: list[tuple[int, bytes]] = []
    taken = 0
    until = clock() + WHERE_SCAN_S
    for position, level, crc, body in rows:
        frame = checked(position, crc, body)
        if condition is None or condition(frame, level):
            events.append((position, frame))
            taken += len(body)
        if len(events) == size or taken >= size_bytes or (condition and clock() > until):
            return ScanPage(events, position)
    return ScanPage(events, upto)


def _matching(
    connection: sqlite3.Connection, event_filter: EventFilter, after: int, upto: int, limit: int, clock: Clock
) -> tuple[list[Named], int]:
    where, condition = selection.where(event_filter), compiled(event_filter.where).matches
    bound = min(upto, after + SCAN_EVENTS_MAX)
    rows = connection.execute(
        "SELECT position, account, id, level, crc, body FROM events NOT INDEXED"
        f" WHERE position > ? AND position <= ? AND deleted_at = 0 AND {where.sql} ORDER BY position",
        (after, bound, *where.values),
    )
    found: list[Named] = []
    until = clock() + WHERE_SCAN_S
    for position, account, event_id, level, crc, body in rows:
        if condition(checked(position, crc, body), level):
            found.append(Named(position, account, event_id))
        if len(found) == limit or clock() > until:
            return found, position
    return found, bound


def _stored(connection: sqlite3.Connection, after: int, limit: int) -> list[Stored]:
    rows = connection.execute(
        "SELECT position, created_at, id, crc, body, account, type, subtype, level,"
        " resource_type, resource_id, user_id, service, host, labels, timestamp FROM events"
        " WHERE position > ? AND deleted_at = 0 ORDER BY position LIMIT ?",
        (after, limit),
    )
    return [_as_stored(row) for row in rows]


def _as_stored(row: tuple[Any, ...]) -> Stored:
    position, created_at, event_id, crc, body, account, event_type, subtype, level, *rest = row
    resource_type, resource_id, user_id, service, host, labels, timestamp = rest
    head = EventHead(
        account=account,
        type=event_type,
        subtype=subtype,
        level=level,
        resource_type=resource_type,
        resource_id=resource_id,
        user_id=user_id,
        service=service,
        host=host,
        labels=json.loads(labels) if labels else {},
        timestamp=timestamp,
    )
    if zlib.crc32(body) != crc:
        # One damaged event must not hold up what comes after it: its readers are told DATA_LOSS.
        log.error("a stored event does not match its checksum; it is not routed", position=position)
        body = b""
    return Stored(position, created_at, event_id, head, body)


def cursor_position(connection: sqlite3.Connection, name: str) -> int:
    """Read how far an internal reader of the log has come."""
    row = connection.execute("SELECT position FROM cursors WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row is not None else 0


def position_before(connection: sqlite3.Connection, created_at: int) -> int:
    """Find the position before the first event stored at `created_at` or later.

    By halves: `created_at` never falls from one position to the next.
    """
    (head,) = connection.execute("SELECT head FROM log_head").fetchone()
    low, high = 0, int(head)
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(
            "SELECT created_at FROM events WHERE position >= ? ORDER BY position LIMIT 1", (middle,)
        ).fetchone()
        if row is not None and row[0] < created_at:
            low = middle
        else:
            high = middle - 1
    return low


def delete_one(transaction: Transaction, account: str, event_id: str, upto: int) -> str:
    """Delete one event; one that came after `upto` was not there when the call began."""
    row = transaction.connection.execute(
        "SELECT position FROM event_keys WHERE account = ? AND id = ? AND deleted_at = 0 AND position <= ?",
        (account, event_id, upto),
    ).fetchone()
    if row is None:
        raise not_found("event", event_id)
    delete_rows(transaction, [(row[0], account, event_id)])
    return event_id


def delete_step(
    transaction: Transaction, event_filter: EventFilter, after: int, upto: int, limit: int
) -> tuple[list[str], int]:
    """Delete some of the matching events with `after` < position <= `upto`; give ids and how far it went."""
    where = selection.where(event_filter)
    # Looking is bounded too: a step is one short transaction however few events match.
    bound = min(upto, after + SCAN_EVENTS_MAX)
    rows = transaction.connection.execute(
        "SELECT position, account, id FROM events NOT INDEXED"
        f" WHERE position > ? AND position <= ? AND deleted_at = 0 AND {where.sql} ORDER BY position LIMIT ?",
        (after, bound, *where.values, limit),
    ).fetchall()
    delete_rows(transaction, rows)
    return [row[2] for row in rows], rows[-1][0] if len(rows) == limit else bound


def delete_named(transaction: Transaction, named: Sequence[Named]) -> list[str]:
    """Delete events that were found before this transaction, those that still stand; give their ids."""
    standing = [
        row
        for row in named
        if transaction.connection.execute(
            "SELECT 1 FROM events WHERE position = ? AND deleted_at = 0", (row.position,)
        ).fetchone()
    ]
    delete_rows(transaction, standing)
    return [row.id for row in standing]


def delete_rows(transaction: Transaction, rows: Sequence[tuple[int, str, str]]) -> None:
    """Hide the events, forget the bodies that no open delivery needs, remember the ids."""
    if not rows:
        return
    connection, now = transaction.connection, transaction.log.created_at
    positions = [(now, position) for position, _, _ in rows]
    connection.executemany("UPDATE events SET deleted_at = ? WHERE position = ?", positions)
    connection.executemany(
        "UPDATE event_keys SET deleted_at = ? WHERE account = ? AND id = ?",
        [(now, account, event_id) for _, account, event_id in rows],
    )
    transaction.runtime.moment("rows hidden")
    connection.executemany(
        f"DELETE FROM events WHERE position = ? AND NOT {ANY_OPEN_DELIVERY}",
        [(position,) for _, position in positions],
    )
    transaction.log.deleted.extend(position for _, position in positions)


def sweep(transaction: Transaction, keys_before: int, place: int = 0) -> int:
    """Forget hidden bodies whose deliveries have ended, and keys that have been kept long enough.

    Request ids of events that stand are kept and looked at in turn, some at each sweep: `place` is where
    this one begins, and the next one's place is the answer. A sweep is one short transaction.
    """
    connection = transaction.connection
    connection.execute(f"DELETE FROM events WHERE deleted_at <> 0 AND NOT {ANY_OPEN_DELIVERY}")
    connection.execute("DELETE FROM event_keys WHERE deleted_at <> 0 AND deleted_at < ?", (keys_before,))
    last = connection.execute(
        "SELECT created_at FROM request_keys WHERE created_at > ? AND created_at < ? ORDER BY created_at"
        f" LIMIT 1 OFFSET {SWEEP_KEYS_MAX - 1}",
        (place, keys_before),
    ).fetchone()
    upto = last[0] if last is not None else keys_before - 1
    # An append was answered with JSON of its positions, a create with a bare id.
    positions = "json_each(CASE WHEN json_valid(answer) THEN answer ELSE '[]' END)"
    connection.execute(
        f"DELETE FROM request_keys WHERE created_at > ? AND created_at <= ? AND NOT EXISTS (SELECT 1 FROM {positions}"
        " AS a JOIN events AS e ON e.position = json_extract(a.value, '$[1]'))",
        (place, upto),
    )
    return int(upto) if last is not None else 0
