"""The rows of durable consumers: what they are, how far they are, what is parked.

Each function is one step inside a transaction or a read; `consuming.py` decides when. Progress is
written by what is not acknowledged, which is bounded, see `domain.consumers.Progress`.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from typing import Any

from tocsin_server.domain.consumers import (
    CONSUMERS_MAX,
    LAG_MAX,
    LAG_SCAN_MAX,
    Change,
    Choice,
    Consumer,
    ConsumerSettings,
    Lag,
    ParkCause,
    Parked,
    Parking,
    Progress,
    Tries,
)
from tocsin_server.domain.errors import Reason, TocsinError, not_found
from tocsin_server.domain.event_log import PAGE_BYTES_MAX
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.where import WHERE_SCAN_S, compiled
from tocsin_server.store import request_keys, selection
from tocsin_server.store.listing import Clock
from tocsin_server.store.selection import filter_of, stored_filter
from tocsin_server.store.wire import checked
from tocsin_server.store.writer import Transaction

CREATE_METHOD = "CreateConsumer"
COLUMNS = (
    "account, name, criteria, lease_us, max_retries, max_in_flight, retry_delay_us, id, created_at, updated_at, cursor"
)
STANDS = "EXISTS (SELECT 1 FROM events AS e WHERE e.position = parked_events.position AND e.deleted_at = 0)"


def create(transaction: Transaction, draft: Consumer, position: int, request_id: str, digest: bytes) -> Consumer:
    """Store a consumer that begins after a position, or answer the one that this request id has made."""
    connection = transaction.connection
    known = request_keys.known_answer(transaction, draft.account, CREATE_METHOD, request_id, digest)
    if known:
        return _made_before(connection, draft.account, draft.name, known)
    if _row(connection, draft.account, draft.name) is not None:
        raise TocsinError(
            Reason.NAME_TAKEN, f"a consumer {draft.name!r} is there already", metadata={"name": draft.name}
        )
    (count,) = connection.execute("SELECT count(*) FROM consumers WHERE account = ?", (draft.account,)).fetchone()
    if count >= CONSUMERS_MAX:
        raise TocsinError(Reason.LIMIT_REACHED, f"an account has at most {CONSUMERS_MAX} consumers")
    now = transaction.log.created_at
    new = replace(draft, id=transaction.runtime.new_id(), created_at=now, updated_at=now)
    settings = new.settings
    connection.execute(
        f"INSERT INTO consumers ({COLUMNS}) VALUES ({','.join('?' * 11)})",
        (new.account, new.name, stored_filter(new.filter), settings.lease_us, settings.max_retries,
         settings.max_in_flight, settings.retry_delay_us, new.id, now, now, position),
    )  # fmt: skip
    request_keys.remember(transaction, new.account, CREATE_METHOD, request_id, digest, new.id)
    return new


def _made_before(connection: sqlite3.Connection, account: str, name: str, consumer_id: str) -> Consumer:
    row = connection.execute(
        f"SELECT {COLUMNS} FROM consumers WHERE account = ? AND id = ?", (account, consumer_id)
    ).fetchone()
    if row is None:
        raise not_found("consumer", name)
    return _consumer(row)


def _row(connection: sqlite3.Connection, account: str, name: str) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = connection.execute(
        f"SELECT {COLUMNS} FROM consumers WHERE account = ? AND name = ?", (account, name)
    ).fetchone()
    return row


def _consumer(row: tuple[Any, ...]) -> Consumer:
    account, name, criteria, *settings, consumer_id, created_at, updated_at, _ = row
    return Consumer(
        account, name, filter_of(criteria), ConsumerSettings(*settings), consumer_id, created_at, updated_at
    )


def get(connection: sqlite3.Connection, account: str, name: str) -> Consumer:
    """Read one consumer."""
    row = _row(connection, account, name)
    if row is None:
        raise not_found("consumer", name)
    return _consumer(row)


def page(connection: sqlite3.Connection, account: str, after: str, size: int) -> list[Consumer]:
    """Read consumers with a name after the given one."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM consumers WHERE account = ? AND name > ? ORDER BY name LIMIT ?", (account, after, size)
    )
    return [_consumer(row) for row in rows]


def update(transaction: Transaction, old: Consumer, settings: ConsumerSettings) -> Consumer:
    """Store new settings."""
    now = transaction.log.created_at
    transaction.connection.execute(
        "UPDATE consumers SET lease_us = ?, max_retries = ?, max_in_flight = ?, retry_delay_us = ?, updated_at = ?"
        " WHERE id = ?",
        (settings.lease_us, settings.max_retries, settings.max_in_flight, settings.retry_delay_us, now, old.id),
    )
    return replace(old, settings=settings, updated_at=now)


def seek(transaction: Transaction, account: str, name: str, position: int) -> None:
    """Go on after a position; what is open is forgotten."""
    consumer = get(transaction.connection, account, name)
    transaction.connection.execute("DELETE FROM consumer_events WHERE consumer_id = ?", (consumer.id,))
    transaction.connection.execute("UPDATE consumers SET cursor = ? WHERE id = ?", (position, consumer.id))


def delete(transaction: Transaction, account: str, name: str) -> None:
    """Delete a consumer with all that it knows."""
    consumer = get(transaction.connection, account, name)
    for table, column in (("consumer_events", "consumer_id"), ("parked_events", "consumer_id"), ("consumers", "id")):
        transaction.connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (consumer.id,))


def load(transaction: Transaction, account: str, name: str) -> tuple[Consumer, Progress, int]:
    """Read a consumer, how far it is, and how many events are parked; forget parked ones that are deleted."""
    connection = transaction.connection
    consumer = get(connection, account, name)
    connection.execute(f"DELETE FROM parked_events WHERE consumer_id = ? AND NOT {STANDS}", (consumer.id,))
    return consumer, progress(connection, consumer), parked_count(connection, consumer.id)


def progress(connection: sqlite3.Connection, consumer: Consumer) -> Progress:
    """Read how far a consumer is."""
    (cursor,) = connection.execute("SELECT cursor FROM consumers WHERE id = ?", (consumer.id,)).fetchone()
    rows = connection.execute(
        "SELECT position, attempts, failures FROM consumer_events WHERE consumer_id = ?", (consumer.id,)
    )
    return Progress(cursor, {position: Tries(attempts, failures) for position, attempts, failures in rows})


def write(transaction: Transaction, consumer_id: str, change: Change) -> int:
    """Write what has changed of a consumer's way; give how many events are parked."""
    connection = transaction.connection
    moved = connection.execute(
        "UPDATE consumers SET cursor = ? WHERE id = ?", (change.progress.cursor, consumer_id)
    ).rowcount
    if not moved:
        return 0  # deleted meanwhile: nothing of it is to come back
    if change.anew:
        connection.execute("DELETE FROM consumer_events WHERE consumer_id = ?", (consumer_id,))
    connection.executemany(
        "DELETE FROM consumer_events WHERE consumer_id = ? AND position = ?",
        [(consumer_id, position) for position in change.gone],
    )
    _open(connection, consumer_id, change)
    now = transaction.log.created_at
    connection.executemany(
        "INSERT OR REPLACE INTO parked_events"
        " (consumer_id, position, attempts, cause, reason, parked_by, parked_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(consumer_id, p.position, p.attempts, p.cause, p.reason, p.parked_by, now) for p in change.parked],
    )
    return parked_count(connection, consumer_id)


def _open(connection: sqlite3.Connection, consumer_id: str, change: Change) -> None:
    rows = change.progress.open if change.anew else change.written
    connection.executemany(
        "INSERT OR REPLACE INTO consumer_events (consumer_id, position, attempts, failures) VALUES (?, ?, ?, ?)",
        [(consumer_id, position, tries.attempts, tries.failures) for position, tries in rows.items()],
    )


def parked_count(connection: sqlite3.Connection, consumer_id: str) -> int:
    """Count the parked events that still stand."""
    sql = f"SELECT count(*) FROM parked_events WHERE consumer_id = ? AND {STANDS}"
    return int(connection.execute(sql, (consumer_id,)).fetchone()[0])


def parked(connection: sqlite3.Connection, account: str, name: str, after: int, size: int) -> list[Parked]:
    """Read parked events with a position after the given one, at most as many as fit into an answer and one more."""
    consumer = get(connection, account, name)
    rows = connection.execute(
        "SELECT p.position, p.attempts, p.cause, p.reason, p.parked_by, p.parked_at, e.id, e.crc, e.body"
        " FROM parked_events AS p JOIN events AS e ON e.position = p.position"
        " WHERE p.consumer_id = ? AND p.position > ? AND e.deleted_at = 0 ORDER BY p.position LIMIT ?",
        (consumer.id, after, size),
    )
    found: list[Parked] = []
    taken = 0
    for position, attempts, cause, reason, parked_by, parked_at, event_id, crc, body in rows:
        parking = Parking(position, attempts, ParkCause(cause), reason, parked_by)
        found.append(Parked(parking, parked_at, event_id, checked(position, crc, body)))
        taken += len(body)
        if taken > PAGE_BYTES_MAX:
            break
    return found


def replay(transaction: Transaction, account: str, name: str, choice: Choice) -> list[int]:
    """Open parked events anew; give their positions."""
    consumer = get(transaction.connection, account, name)
    positions = _take(transaction.connection, consumer.id, choice, STANDS)
    transaction.connection.executemany(
        "INSERT OR REPLACE INTO consumer_events (consumer_id, position, attempts, failures) VALUES (?, ?, 0, 0)",
        [(consumer.id, position) for position in positions],
    )
    return positions


def purge(transaction: Transaction, account: str, name: str, choice: Choice) -> int:
    """Forget parked events; give how many."""
    consumer = get(transaction.connection, account, name)
    return len(_take(transaction.connection, consumer.id, choice, "1"))


def _take(connection: sqlite3.Connection, consumer_id: str, choice: Choice, condition: str) -> list[int]:
    """Remove the parked events that are meant, and give their positions."""
    sql = f"SELECT position FROM parked_events WHERE consumer_id = ? AND {condition}"
    if not choice.all:
        sql += (
            " AND (position IN (SELECT value FROM json_each(?)) OR EXISTS (SELECT 1 FROM events AS e"
            " WHERE e.position = parked_events.position AND e.id IN (SELECT value FROM json_each(?))))"
        )
    names = () if choice.all else (json.dumps(list(choice.positions)), json.dumps(list(choice.event_ids)))
    positions = [position for (position,) in connection.execute(sql, (consumer_id, *names))]
    connection.executemany(
        "DELETE FROM parked_events WHERE consumer_id = ? AND position = ?", [(consumer_id, p) for p in positions]
    )
    return positions


def lag(connection: sqlite3.Connection, event_filter: EventFilter, after: int, head: int, clock: Clock) -> Lag:
    """Count the matching events after a position, within bounds."""
    where = selection.where(event_filter)
    upto = min(head, after + LAG_SCAN_MAX)
    if event_filter.where:
        return _lag_asked(connection, event_filter, after, upto, head, clock)
    count, oldest_at = connection.execute(
        "SELECT count(*), min(created_at) FROM (SELECT created_at FROM events NOT INDEXED WHERE position > ?"
        f" AND position <= ? AND deleted_at = 0 AND {where.sql} ORDER BY position LIMIT {LAG_MAX})",
        (after, upto, *where.values),
    ).fetchone()
    return Lag(count, count >= LAG_MAX or upto < head, oldest_at or 0)


def _lag_asked(
    connection: sqlite3.Connection, event_filter: EventFilter, after: int, upto: int, head: int, clock: Clock
) -> Lag:
    """Count what a `where` means, for as long as one read may take."""
    where, condition = selection.where(event_filter), compiled(event_filter.where).matches
    rows = connection.execute(
        "SELECT position, level, created_at, crc, body FROM events NOT INDEXED"
        f" WHERE position > ? AND position <= ? AND deleted_at = 0 AND {where.sql} ORDER BY position",
        (after, upto, *where.values),
    )
    count, oldest_at, until = 0, 0, clock() + WHERE_SCAN_S
    for position, level, created_at, crc, body in rows:
        if condition(checked(position, crc, body), level):
            oldest_at = oldest_at or created_at
            count += 1
        if count >= LAG_MAX or clock() > until:
            return Lag(count, position < head, oldest_at)
    return Lag(count, upto < head, oldest_at)


def frames(connection: sqlite3.Connection, positions: list[int]) -> dict[int, bytes]:
    """Read stored events that still stand, by their positions."""
    rows = connection.execute(
        "SELECT position, crc, body FROM events WHERE position IN (SELECT value FROM json_each(?)) AND deleted_at = 0",
        (json.dumps(positions),),
    )
    return {position: checked(position, crc, body) for position, crc, body in rows}
