"""Digests: the deliveries of grouped events, gathered inside the transaction that routes them.

A digest takes events in until its first attempt is claimed, or until it is full; its group then begins
another one. All of it happens on the writer's thread, so an event is in exactly one.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass, replace

from tocsin_server.domain.grouping import Group
from tocsin_server.domain.lane import Key
from tocsin_server.domain.notifications import Delivery, State
from tocsin_server.store.delivery_rows import insert
from tocsin_server.store.holds import waiting_state
from tocsin_server.store.writer import Transaction

GROUP_KEPT_US = 2 * 24 * 3600 * 1_000_000  # after its newest digest: longer than any interval
SWEPT_MAX = 1000
WHOSE = "account = ? AND configuration_id = ? AND group_key = ?"


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest digest of a group: `digest_id` is empty when it takes in no more."""

    number: int
    digest_id: str
    items: int
    due_at: int


def gather(transaction: Transaction, row: Delivery, group: Group) -> tuple[Key, int]:
    """Put a new delivery into the digest of its group; give the lane of the digest and when that is due."""
    connection, now = transaction.connection, transaction.log.created_at
    place = (row.account, row.configuration_id, group.key)
    newest = _newest(connection, place)
    if newest is None or not _takes_in(connection, row.account, newest):
        newest = _begin(transaction, row, group, newest)
    newest = replace(newest, items=newest.items + 1)
    connection.execute(
        "UPDATE deliveries SET digest_id = ? WHERE account = ? AND id = ?", (newest.digest_id, row.account, row.id)
    )
    digest_id = newest.digest_id
    if newest.items >= group.rules.max_items:
        newest = replace(newest, digest_id="", due_at=now)
        connection.execute(
            "UPDATE deliveries SET due_at = ? WHERE account = ? AND id = ?", (now, row.account, digest_id)
        )
    connection.execute(
        "INSERT INTO digest_groups (account, configuration_id, group_key, number, digest_id, items, due_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET number = excluded.number,"
        " digest_id = excluded.digest_id, items = excluded.items, due_at = excluded.due_at",
        (*place, newest.number, newest.digest_id, newest.items, newest.due_at),
    )
    return (row.account, row.configuration_id), newest.due_at


def _newest(connection: sqlite3.Connection, place: tuple[str, str, str]) -> _Newest | None:
    row = connection.execute(
        f"SELECT number, digest_id, items, due_at FROM digest_groups WHERE {WHOSE}", place
    ).fetchone()
    return _Newest(*row) if row is not None else None


def _takes_in(connection: sqlite3.Connection, account: str, newest: _Newest) -> bool:
    """Tell whether a digest has never been on its way."""
    if not newest.digest_id:
        return False
    found = connection.execute(
        "SELECT 1 FROM deliveries WHERE account = ? AND id = ? AND state IN ('PENDING', 'PAUSED') AND attempt = 0",
        (account, newest.digest_id),
    ).fetchone()
    return found is not None


def _begin(transaction: Transaction, row: Delivery, group: Group, last: _Newest | None) -> _Newest:
    now = transaction.log.created_at
    name = hashlib.blake2b(f"{row.configuration_id}/{group.key}".encode(), digest_size=16).hexdigest()
    number = (last.number if last is not None else _last_number(transaction.connection, name)) + 1
    due_at = group.rules.due_at(now, last.due_at if last is not None else None)
    state, reason = waiting_state(transaction.connection, row.account, row.configuration_id)
    digest = Delivery(
        account=row.account,
        id=transaction.runtime.new_id(),
        route_key=f"digest/{name}/{number}",
        configuration_id=row.configuration_id,
        kind=row.kind,
        state=State.PENDING if state is State.RETRYING else state,
        reason=reason,
        created_at=now,
        due_at=due_at,
        ended_at=now if state is State.CANCELLED else 0,
        subject={"digest": {"group": dict(group.values), "number": number}},
    )
    insert(transaction, [digest])
    return _Newest(number, digest.id, 0, due_at)


def _last_number(connection: sqlite3.Connection, name: str) -> int:
    """Read the number of the newest digest that is still known of a group that was forgotten."""
    prefix = f"digest/{name}/"
    (number,) = connection.execute(
        "SELECT max(CAST(substr(route_key, ?) AS INTEGER)) FROM deliveries WHERE route_key >= ? AND route_key < ?",
        (len(prefix) + 1, prefix, f"digest/{name}0"),
    ).fetchone()
    return int(number or 0)


def positions(connection: sqlite3.Connection, account: str, digest_id: str) -> list[int]:
    """Read the positions of the events that a digest tells, in their order."""
    rows = connection.execute(
        "SELECT event_position FROM deliveries WHERE account = ? AND digest_id = ? AND digest_id <> ''"
        " ORDER BY event_position",
        (account, digest_id),
    )
    return [int(position) for (position,) in rows]


def sweep(transaction: Transaction) -> None:
    """Forget groups whose newest digest was long ago."""
    before = transaction.log.created_at - GROUP_KEPT_US
    transaction.connection.execute(
        "DELETE FROM digest_groups WHERE (account, configuration_id, group_key) IN"
        f" (SELECT account, configuration_id, group_key FROM digest_groups WHERE due_at < ? LIMIT {SWEPT_MAX})",
        (before,),
    )
