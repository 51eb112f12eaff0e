"""Claims: which deliveries are sent next, leased with the number of their attempt before anything is sent.

A lane (`domain/lanes.py`) is one configuration's line in an index: what one claim costs does not grow
with what waits elsewhere, nor with what waits behind the rows that it takes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from tocsin_server.domain.delivery_ports import Claimed
from tocsin_server.domain.lane import Key
from tocsin_server.domain.lanes import AHEAD_BYTES_MAX, Want
from tocsin_server.domain.notifications import FINAL, Delivery, State
from tocsin_server.domain.verdicts import ErrorClass, Verdict
from tocsin_server.store.delivery_rows import COLUMNS, LEASE_US, PAUSED, WAITING, delivery, leased, read_all, start
from tocsin_server.store.holds import waiting_state
from tocsin_server.store.writer import Transaction

LEASES_STEP = 256  # ended leases that one look takes up
ANY_BYTES = 2**31
INTERRUPTED = "interrupted: the outcome is not known"
LINE = "account = ? AND configuration_id = ?"
# What the health of its receiver pauses goes on, or probes, as if it waited; what a switch holds does not.
HELD_BY_HEALTH = f"{PAUSED} AND reason <> 'DISABLED'"
NEXT_DUE = "SELECT min(due_at) FROM ({} UNION ALL {})".format(
    *(
        f"SELECT * FROM (SELECT due_at FROM deliveries WHERE {line} AND {LINE} ORDER BY due_at LIMIT 1)"
        for line in (WAITING, HELD_BY_HEALTH)
    )
)


def claim(
    transaction: Transaction, wants: Sequence[Want], recent: Callable[[int], bytes | None] = lambda position: None
) -> list[Claimed]:
    """Lease due deliveries and record their attempts as started; say of each lane when its next one is due.

    `recent` gives the stored events that are in memory.
    """
    found = [(want, [leased(row) for row in _due_of(transaction, want)]) for want in wants]
    claimed = [row for _, rows in found for row in rows]
    _lease(transaction, claimed)
    frames = _frames(transaction.connection, found, recent)
    return [
        Claimed(
            want,
            rows,
            _next_due(transaction.connection, want.key),
            [frames.get(row.event_position) for row in rows],
        )
        for want, rows in found
    ]


def _due_of(transaction: Transaction, want: Want) -> list[list[Any]]:
    rows = _due(transaction, WAITING, want.key, want.count - want.newest, want.newest)
    if len(rows) < want.count:
        rows += _due(transaction, HELD_BY_HEALTH, want.key, want.count - len(rows), 0)
    return rows


def _frames(
    connection: sqlite3.Connection,
    found: Sequence[tuple[Want, Sequence[Delivery]]],
    recent: Callable[[int], bytes | None],
) -> dict[int, bytes]:
    """Give the events of claimed deliveries, but for large ones of those that have no place yet.

    One that is damaged or gone is left out, and told of when it is sent.
    """
    placed = {row.event_position for want, rows in found for row in rows[: want.count - want.ahead]}
    ahead = {row.event_position for want, rows in found for row in rows[want.count - want.ahead :]}
    frames = {position: frame for position in placed | ahead if (frame := recent(position))}
    for positions, most in ((placed, ANY_BYTES), (ahead - placed, AHEAD_BYTES_MAX)):
        if left := [position for position in positions - frames.keys() if position]:
            rows = connection.execute(
                "SELECT position, crc, body FROM events WHERE position IN (SELECT value FROM json_each(?))"
                " AND length(body) <= ?",
                (json.dumps(left), most),
            )
            frames |= {position: body for position, crc, body in rows if crc32(body) == crc}
    return frames


def _due(transaction: Transaction, line: str, key: Key, oldest: int, newest: int) -> list[list[Any]]:
    """Take from the beginning of a line and, where there is more, from the end of what is due."""
    due = f"SELECT {COLUMNS} FROM deliveries WHERE {line} AND {LINE} AND due_at <= ? ORDER BY due_at"
    now, connection = transaction.log.created_at, transaction.connection
    rows = read_all(connection, f"{due} LIMIT ?", (*key, now, oldest + newest))
    if not newest or len(rows) < oldest + newest:
        return rows
    taken = rows[:oldest]
    known = {row[1] for row in taken}
    last = read_all(connection, f"{due} DESC LIMIT ?", (*key, now, newest))
    return taken + [row for row in last if row[1] not in known]


def _lease(transaction: Transaction, rows: Sequence[Delivery]) -> None:
    if not rows:
        return
    names = json.dumps([[row.account, row.id] for row in rows])
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'SENDING', reason = '', attempt = attempt + 1, lease_until = ?"
        " WHERE (account, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
        (transaction.log.created_at + LEASE_US, names),
    )
    start(transaction, rows)


def _next_due(connection: sqlite3.Connection, key: Key) -> int | None:
    found: int | None
    (found,) = connection.execute(NEXT_DUE, (*key, *key)).fetchone()
    return found


def waiting(connection: sqlite3.Connection) -> list[tuple[Key, int]]:
    """Read which lanes have something that waits, each with its earliest: one step in the index for each."""
    found: dict[Key, int] = {}
    for line in (WAITING, PAUSED):
        place: Key = ("", "")
        while True:
            row = connection.execute(
                f"SELECT account, configuration_id, due_at FROM deliveries WHERE {line}"
                " AND (account, configuration_id) > (?, ?) ORDER BY account, configuration_id, due_at LIMIT 1",
                place,
            ).fetchone()
            if row is None:
                break
            place = (row[0], row[1])
            found[place] = min(row[2], found.get(place, row[2]))
    return list(found.items())


def take_ended_leases(transaction: Transaction) -> None:
    """Let deliveries go on whose sender has not settled them in time."""
    rows = transaction.connection.execute(
        f"SELECT {COLUMNS} FROM deliveries WHERE state = 'SENDING' AND lease_until < ? LIMIT ?",
        (transaction.log.created_at, LEASES_STEP),
    ).fetchall()
    release(transaction, [delivery(row) for row in rows])


def release_all(transaction: Transaction) -> None:
    """Take back every lease: the process that held them is gone. Its attempts are in doubt."""
    rows = transaction.connection.execute(f"SELECT {COLUMNS} FROM deliveries WHERE state = 'SENDING'").fetchall()
    sending = [delivery(row) for row in rows]
    # A test is tried once, and whoever asked for it is gone.
    tests = [row for row in sending if row.route_key.startswith("test/")]
    release(transaction, sending)
    transaction.connection.executemany(
        "UPDATE deliveries SET state = 'EXHAUSTED', reason = 'ATTEMPTS', ended_at = ? WHERE account = ? AND id = ?",
        [(transaction.log.created_at, row.account, row.id) for row in tests],
    )


def release(transaction: Transaction, rows: Sequence[Delivery]) -> None:
    """Take back the leases of attempts that were broken off; they use up nothing."""
    connection, now = transaction.connection, transaction.log.created_at
    for row in rows:
        connection.execute(
            "UPDATE attempts SET error = ?, error_class = ?"
            " WHERE account = ? AND delivery_id = ? AND number = ? AND duration_us IS NULL",
            (INTERRUPTED, ErrorClass.INTERRUPTED, row.account, row.id, row.attempt),
        )
        state, reason = waiting_state(connection, row.account, row.configuration_id)
        connection.execute(
            "UPDATE deliveries SET state = ?, reason = ?, due_at = ?, lease_until = 0, ended_at = ?, error_class = ?"
            " WHERE account = ? AND id = ? AND attempt = ? AND state = 'SENDING'",
            (state, reason, now, now if state in FINAL else 0, ErrorClass.INTERRUPTED,
             row.account, row.id, row.attempt),
        )  # fmt: skip


def put_back(transaction: Transaction, rows: Sequence[Delivery], due_at: int, why: str) -> list[State | None]:
    """Put deliveries back whose attempts were not made: each waits where it was, not before `due_at`, unless it is held
    or not wanted. None for one that another attempt has taken over.
    """
    return [_put_back(transaction, row, due_at, why) for row in rows]


def _put_back(transaction: Transaction, row: Delivery, due_at: int, why: str) -> State | None:
    connection, due_at = transaction.connection, max(row.due_at, due_at)
    state, reason = waiting_state(connection, row.account, row.configuration_id)
    connection.execute(
        "UPDATE attempts SET duration_us = 0, verdict = ?, error = ?, error_class = ?, next_attempt_at = ?"
        " WHERE account = ? AND delivery_id = ? AND number = ?",
        (Verdict.OUTAGE, why, ErrorClass.INTERNAL, due_at, row.account, row.id, row.attempt),
    )
    cursor = connection.execute(
        "UPDATE deliveries SET state = ?, reason = ?, due_at = ?, lease_until = 0, ended_at = ?"
        " WHERE account = ? AND id = ? AND attempt = ? AND state = 'SENDING'",
        (state, reason, due_at, transaction.log.created_at if state in FINAL else 0, row.account, row.id, row.attempt),
    )
    return state if cursor.rowcount == 1 else None
