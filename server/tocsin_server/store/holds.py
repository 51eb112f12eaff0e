"""Holds: what waits is paused, resumed, cancelled or given up, by a switch, by health or by its age.

What may be many rows is done in steps, each a short transaction; `lanes.py` sees to it that nothing is
sent meanwhile, so a step that a crash has cut off costs nothing but another one.
"""

from __future__ import annotations

import sqlite3

from tocsin_server.domain import notices
from tocsin_server.domain.health import Health
from tocsin_server.domain.lane import Key
from tocsin_server.domain.notifications import State
from tocsin_server.domain.settlement import OPEN_MAX_US
from tocsin_server.store.delivery_rows import PAUSED, WAITING
from tocsin_server.store.writer import Transaction

STEP = 1000  # rows of one transaction: some 20 ms
LINE = "account = ? AND configuration_id = ?"
EXPIRED = "ended_at = 0 AND state NOT IN ('SENDING', 'GROUPED') AND created_at < ?"


def waiting_state(connection: sqlite3.Connection, account: str, configuration_id: str) -> tuple[State, str]:
    """Say how a delivery waits for its next attempt: not at all when its configuration is deleted or off."""
    found = connection.execute(
        "SELECT c.enabled AND coalesce(e.enabled, 1) FROM endpoint_configurations AS c"
        " LEFT JOIN endpoints AS e ON e.kind = c.kind WHERE c.account = ? AND c.id = ?",
        (account, configuration_id),
    ).fetchone()
    if found is None:
        return State.CANCELLED, "DELETED"
    return (State.RETRYING, "") if found[0] else (State.PAUSED, "DISABLED")


def hold(transaction: Transaction, key: Key, health: Health) -> bool:
    """Pause some of what the health of its receiver holds, or cancel it when that is gone; tell if that was all."""
    if health.reason == "GONE":
        end = "state = 'CANCELLED', reason = 'GONE', ended_at = ?"
        now = transaction.log.created_at
        for line in (WAITING, PAUSED):
            if _step(transaction, end, f"{line} AND {LINE} AND created_at <= ?", (now,), (*key, health.since)) == STEP:
                return False
    paused = "state = 'PAUSED', reason = ?"
    return _step(transaction, paused, f"{WAITING} AND {LINE}", (health.pauses,), key) < STEP


def _step(
    transaction: Transaction, change: str, where: str, changed: tuple[object, ...], which: tuple[object, ...]
) -> int:
    """Change some rows; give how many."""
    rows = f"SELECT rowid FROM deliveries WHERE {where} LIMIT {STEP}"
    cursor = transaction.connection.execute(
        f"UPDATE deliveries SET {change} WHERE rowid IN ({rows})", (*changed, *which)
    )
    return int(cursor.rowcount)


def pause(transaction: Transaction, kind: str = "", configuration: Key | None = None) -> bool:
    """Hold some of what waits for a kind of endpoint or for one configuration that is switched off; tell if all."""
    where, values = _whose(kind, configuration)
    return _step(transaction, "state = 'PAUSED', reason = 'DISABLED'", f"{WAITING} AND {where}", (), values) < STEP


def resume(transaction: Transaction, paused_max_age_us: int, kind: str = "", configuration: Key | None = None) -> bool:
    """Let some of what a switch has held go on, or end it when it is too old; what another switch holds stays held.

    Tells if that was all.
    """
    where, values = _whose(kind, configuration)
    held = "reason = 'DISABLED' AND (account, configuration_id) IN"
    held += f" (SELECT account, id FROM endpoint_configurations WHERE enabled) AND {where}"
    return let_go(transaction, paused_max_age_us, held, values)


def resume_disabled(transaction: Transaction, paused_max_age_us: int, key: Key) -> bool:
    """Let some of what was held while its receiver was given up go on, or end it when too old; tell if that was all."""
    return let_go(transaction, paused_max_age_us, f"reason IN ('GONE', 'FAILURES') AND {LINE}", key)


def let_go(transaction: Transaction, paused_max_age_us: int, held: str, values: tuple[str, ...]) -> bool:
    """Let some paused deliveries go on that are young enough, and cancel the others; tell if that was all."""
    now = transaction.log.created_at
    ended = _step(
        transaction,
        "state = 'CANCELLED', reason = 'EXPIRED', due_at = ?, ended_at = ?",
        f"{PAUSED} AND created_at < ? AND {held}",
        (now, now),
        (now - paused_max_age_us, *values),
    )
    if ended == STEP:
        return False
    go_on = "state = 'PENDING', reason = '', due_at = ?"
    return _step(transaction, go_on, f"{PAUSED} AND {held}", (now,), values) < STEP


def cancel(transaction: Transaction, account: str, configuration_id: str, reason: str) -> bool:
    """End some of what waits for a configuration, not what is under way; tell if that was all."""
    end, now = "state = 'CANCELLED', reason = ?, ended_at = ?", transaction.log.created_at
    whose = (account, configuration_id)
    return all(_step(transaction, end, f"{line} AND {LINE}", (reason, now), whose) < STEP for line in (WAITING, PAUSED))


def expire(transaction: Transaction) -> None:
    """End some of what is still open long after it was routed, and tell the log of it for each configuration."""
    now = transaction.log.created_at
    rows = transaction.connection.execute(
        "UPDATE deliveries SET state = 'EXHAUSTED', reason = 'EXPIRED', ended_at = ? WHERE rowid IN"
        f" (SELECT rowid FROM deliveries WHERE {EXPIRED} LIMIT {STEP}) RETURNING account, configuration_id, id",
        (now, now - OPEN_MAX_US),
    ).fetchall()
    by_lane: dict[Key, list[str]] = {}
    for account, configuration_id, delivery_id in rows:
        by_lane.setdefault((account, configuration_id), []).append(delivery_id)
    transaction.append([notices.of_expiry(key, ids) for key, ids in by_lane.items()])


def _whose(kind: str, configuration: Key | None) -> tuple[str, tuple[str, ...]]:
    return (LINE, configuration) if configuration is not None else ("kind = ?", (kind,))
