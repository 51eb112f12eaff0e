"""The outbox: deliveries and their attempts. Routing inserts, claims lease, settling carries the fence.

Every write about an attempt names the attempt's number; when the row has moved on, nothing is written.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tocsin_server.domain.errors import not_found
from tocsin_server.domain.notifications import (
    ATTEMPTS_SHOWN_MAX,
    FINAL,
    LEASE_S,
    OPEN_MAX_US,
    Attempt,
    Delivery,
    Outcome,
    RecipientVerdict,
    Room,
    Settlement,
    State,
    Verdict,
    resumed,
)
from tocsin_server.domain.ports import DeliveryQuery
from tocsin_server.store.writer import Transaction

COLUMNS = (
    "account, id, route_key, configuration_id, kind, event_position, event_id, alert_id, subject, content, state,"
    " reason, attempt, scheduled, due_at, recipients, correlation_id, request_id, traceparent, created_at, ended_at"
)
LEASE_US = int(LEASE_S * 1_000_000)
CLAIM_WINDOW = 256  # due deliveries that one claim looks at
INTERRUPTED = "interrupted: the outcome is not known"


def insert(transaction: Transaction, rows: Sequence[Delivery]) -> list[bool]:
    """Insert deliveries, each once by its route key; tell which are new. SENDING ones are started."""
    now = transaction.log.created_at
    new: list[bool] = []
    for row in rows:
        marks = ",".join("?" * 22)
        lease = now + LEASE_US if row.state is State.SENDING else 0
        cursor = transaction.connection.execute(
            f"INSERT INTO deliveries ({COLUMNS}, lease_until) VALUES ({marks}) ON CONFLICT (route_key) DO NOTHING",
            (row.account, row.id, row.route_key, row.configuration_id, row.kind, row.event_position, row.event_id,
             row.alert_id, json.dumps(row.subject), json.dumps(row.content) if row.content else "", row.state,
             row.reason, row.attempt, row.scheduled, row.due_at, _recipients_json(row.recipients),
             row.correlation_id, row.request_id, row.traceparent, now, row.ended_at, lease),
        )  # fmt: skip
        new.append(cursor.rowcount == 1)
        if new[-1] and row.state is State.SENDING:
            _start(transaction, row.account, row.id, row.attempt, now)
    return new


def _start(transaction: Transaction, account: str, delivery_id: str, number: int, now: int) -> None:
    transaction.connection.execute(
        "INSERT INTO attempts (account, delivery_id, number, started_at, verdict, status_code, response_excerpt, error,"
        " next_attempt_at) VALUES (?, ?, ?, ?, '', 0, '', '', 0)",
        (account, delivery_id, number, now),
    )


def claim(transaction: Transaction, room: Room) -> list[Delivery]:
    """Lease due deliveries that have a place and record their attempts as started, before anything is sent."""
    now = transaction.log.created_at
    _take_ended_leases(transaction, now)
    full = room.full()
    others = f" AND (account, configuration_id) NOT IN (VALUES {','.join(['(?,?)'] * len(full))})" if full else ""
    due = transaction.connection.execute(
        f"SELECT {COLUMNS} FROM deliveries WHERE state IN ('PENDING', 'RETRYING') AND due_at <= ?{others}"
        " ORDER BY due_at LIMIT ?",
        (now, *(part for key in full for part in key), CLAIM_WINDOW),
    ).fetchall()
    claimed: list[Delivery] = []
    for row in map(_delivery, due):
        if not room.take((row.account, row.configuration_id)):
            continue
        number = row.attempt + 1
        transaction.connection.execute(
            "UPDATE deliveries SET state = 'SENDING', attempt = ?, lease_until = ? WHERE account = ? AND id = ?",
            (number, now + LEASE_US, row.account, row.id),
        )
        _start(transaction, row.account, row.id, number, now)
        claimed.append(replace(row, state=State.SENDING, attempt=number))
    return claimed


def _take_ended_leases(transaction: Transaction, now: int) -> None:
    """Let deliveries go on whose sender has not settled them in time."""
    rows = transaction.connection.execute(
        f"SELECT {COLUMNS} FROM deliveries WHERE state = 'SENDING' AND lease_until < ? LIMIT ?", (now, CLAIM_WINDOW)
    ).fetchall()
    release(transaction, [_delivery(row) for row in rows])


def _note_interrupted(transaction: Transaction, row: Delivery) -> None:
    transaction.connection.execute(
        "UPDATE attempts SET error = ? WHERE account = ? AND delivery_id = ? AND number = ? AND duration_us IS NULL",
        (INTERRUPTED, row.account, row.id, row.attempt),
    )


def release_all(transaction: Transaction) -> None:
    """Take back every lease: the process that held them is gone. Its attempts are in doubt."""
    now = transaction.log.created_at
    transaction.connection.execute(
        "UPDATE attempts SET error = ? WHERE duration_us IS NULL AND error = ''"
        " AND EXISTS (SELECT 1 FROM deliveries AS d WHERE d.account = attempts.account"
        " AND d.id = attempts.delivery_id AND d.state = 'SENDING')",
        (INTERRUPTED,),
    )
    # A test is tried once, and whoever asked for it is gone.
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'EXHAUSTED', reason = 'ATTEMPTS', lease_until = 0, ended_at = ?"
        " WHERE state = 'SENDING' AND route_key GLOB 'test/*'",
        (now,),
    )
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'RETRYING', due_at = ?, lease_until = 0 WHERE state = 'SENDING'", (now,)
    )
    _hold(transaction, "state = 'RETRYING' AND due_at = ?", now)


def release(transaction: Transaction, rows: Sequence[Delivery]) -> None:
    """Take back the leases of attempts that were broken off; they use up nothing."""
    now = transaction.log.created_at
    for row in rows:
        _note_interrupted(transaction, row)
        transaction.connection.execute(
            "UPDATE deliveries SET state = 'RETRYING', due_at = ?, lease_until = 0"
            " WHERE account = ? AND id = ? AND attempt = ? AND state = 'SENDING'",
            (now, row.account, row.id, row.attempt),
        )
    if rows:
        _hold(transaction, "state = 'RETRYING' AND due_at = ?", now)


def _hold(transaction: Transaction, which: str, *values: object) -> None:
    """End what waits for a deleted configuration, pause what waits for one that is off."""
    owner = (
        "SELECT {what} FROM endpoint_configurations AS c LEFT JOIN endpoints AS e ON e.kind = c.kind"
        " WHERE c.account = deliveries.account AND c.id = deliveries.configuration_id"
    )
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'CANCELLED', reason = 'DELETED', ended_at = ?"
        f" WHERE {which} AND NOT EXISTS ({owner.format(what='1')})",
        (transaction.log.created_at, *values),
    )
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'PAUSED', reason = 'DISABLED'"
        f" WHERE {which} AND NOT ({owner.format(what='c.enabled AND coalesce(e.enabled, 1)')})",
        values,
    )


def settle(
    transaction: Transaction, row: Delivery, outcome: Outcome, settlement: Settlement, duration_us: int
) -> State | None:
    """Record how an attempt ended; None when another attempt has taken over meanwhile."""
    now = transaction.log.created_at
    state, reason = settlement.state, settlement.reason
    if state is State.RETRYING:
        state, reason = _held(transaction.connection, row)
    ended = now if state in FINAL else 0
    cursor = transaction.connection.execute(
        "UPDATE deliveries SET state = ?, reason = ?, due_at = ?, scheduled = ?, lease_until = 0, ended_at = ?,"
        " recipients = ? WHERE account = ? AND id = ? AND attempt = ? AND state = 'SENDING'",
        (state, reason, settlement.due_at, settlement.scheduled, ended, _recipients_json(outcome.recipients),
         row.account, row.id, row.attempt),
    )  # fmt: skip
    next_at = settlement.due_at if state is State.RETRYING else 0
    transaction.connection.execute(
        "UPDATE attempts SET duration_us = ?, verdict = ?, status_code = ?, response_excerpt = ?, error = ?,"
        " next_attempt_at = ? WHERE account = ? AND delivery_id = ? AND number = ?",
        (duration_us, outcome.verdict, outcome.status_code, outcome.response_excerpt, outcome.error, next_at,
         row.account, row.id, row.attempt),
    )  # fmt: skip
    return state if cursor.rowcount == 1 else None


def _held(connection: sqlite3.Connection, row: Delivery) -> tuple[State, str]:
    """Say how a delivery waits for its next attempt: not at all when its configuration is deleted or off."""
    found = connection.execute(
        "SELECT c.enabled AND coalesce(e.enabled, 1) FROM endpoint_configurations AS c"
        " LEFT JOIN endpoints AS e ON e.kind = c.kind WHERE c.account = ? AND c.id = ?",
        (row.account, row.configuration_id),
    ).fetchone()
    if found is None:
        return State.CANCELLED, "DELETED"
    return (State.RETRYING, "") if found[0] else (State.PAUSED, "DISABLED")


def next_due(connection: sqlite3.Connection) -> int | None:
    """Read when the next delivery is due, or the next lease ends."""
    row = connection.execute(
        "SELECT min(t) FROM (SELECT min(due_at) AS t FROM deliveries WHERE state IN ('PENDING', 'RETRYING')"
        " UNION ALL SELECT min(lease_until) FROM deliveries WHERE state = 'SENDING')"
    ).fetchone()
    return int(row[0]) if row[0] is not None else None


def pause(transaction: Transaction, kind: str = "", configuration: tuple[str, str] | None = None) -> None:
    """Hold what waits for a kind of endpoint or for one configuration."""
    where, values = _whose(kind, configuration)
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'PAUSED', reason = 'DISABLED'"
        f" WHERE state IN ('PENDING', 'RETRYING') AND {where}",
        values,
    )


def resume(
    transaction: Transaction,
    paused_max_age_us: int,
    kind: str = "",
    configuration: tuple[str, str] | None = None,
) -> None:
    """Let what was held go on, or end it when it is too old; what another switch holds stays held."""
    where, values = _whose(kind, configuration)
    now = transaction.log.created_at
    rows = transaction.connection.execute(
        "SELECT account, id, created_at FROM deliveries WHERE state = 'PAUSED' AND (account, configuration_id) IN"
        f" (SELECT account, id FROM endpoint_configurations WHERE enabled) AND {where}",
        values,
    ).fetchall()
    for account, delivery_id, created_at in rows:
        state, reason = resumed(created_at, now, paused_max_age_us)
        ended = now if state in FINAL else 0
        transaction.connection.execute(
            "UPDATE deliveries SET state = ?, reason = ?, due_at = ?, ended_at = ? WHERE account = ? AND id = ?",
            (state, reason, now, ended, account, delivery_id),
        )


def cancel(transaction: Transaction, account: str, configuration_id: str, reason: str) -> None:
    """End what waits for a configuration; an attempt under way may still deliver."""
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'CANCELLED', reason = ?, ended_at = ?"
        " WHERE account = ? AND configuration_id = ? AND state IN ('PENDING', 'RETRYING', 'PAUSED')",
        (reason, transaction.log.created_at, account, configuration_id),
    )


def expire(transaction: Transaction) -> None:
    """End what is still open long after it was routed."""
    now = transaction.log.created_at
    transaction.connection.execute(
        "UPDATE deliveries SET state = 'EXHAUSTED', reason = 'EXPIRED', ended_at = ?"
        " WHERE ended_at = 0 AND state <> 'SENDING' AND created_at < ?",
        (now, now - OPEN_MAX_US),
    )


def _whose(kind: str, configuration: tuple[str, str] | None) -> tuple[str, tuple[str, ...]]:
    if configuration is not None:
        return "account = ? AND configuration_id = ?", configuration
    return "kind = ?", (kind,)


def page(
    connection: sqlite3.Connection, query: DeliveryQuery, after: tuple[int, str] | None, size: int
) -> list[Delivery]:
    """Read deliveries, newest first."""
    conditions, values = ["account = ?"], [query.account]
    for column, value in (("configuration_id", query.configuration_id), ("alert_id", query.alert_id)):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if query.event_id:
        conditions.append("event_position > 0 AND event_id = ?")
        values.append(query.event_id)
    if query.states:
        conditions.append(f"state IN ({','.join('?' * len(query.states))})")
        values.extend(query.states)
    bound: list[Any] = list(values)
    if after is not None:
        conditions.append("(created_at, id) < (?, ?)")
        bound.extend(after)
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM deliveries WHERE {' AND '.join(conditions)} ORDER BY created_at DESC, id DESC LIMIT ?",
        [*bound, size],
    )
    return [_delivery(row) for row in rows]


def get(connection: sqlite3.Connection, account: str, delivery_id: str) -> tuple[Delivery, list[Attempt]]:
    """Read one delivery with its newest attempts, oldest of them first."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM deliveries WHERE account = ? AND id = ?", (account, delivery_id)
    ).fetchone()
    if row is None:
        raise not_found("delivery", delivery_id)
    attempts = connection.execute(
        "SELECT number, started_at, duration_us, verdict, status_code, response_excerpt, error, next_attempt_at"
        " FROM attempts WHERE account = ? AND delivery_id = ? ORDER BY number DESC LIMIT ?",
        (account, delivery_id, ATTEMPTS_SHOWN_MAX),
    ).fetchall()
    return _delivery(row), [Attempt(*attempt) for attempt in reversed(attempts)]


def _delivery(row: tuple[Any, ...]) -> Delivery:
    names = COLUMNS.replace(" ", "").split(",")
    values = dict(zip(names, row, strict=True))
    values["subject"] = json.loads(values["subject"])
    values["content"] = json.loads(values["content"]) if values["content"] else {}
    values["state"] = State(values["state"])
    values["recipients"] = tuple(
        RecipientVerdict(recipient, Verdict(verdict), code, text)
        for recipient, verdict, code, text in json.loads(values["recipients"])
    )
    return Delivery(**values)


def _recipients_json(recipients: Iterable[RecipientVerdict]) -> str:
    return json.dumps([[r.recipient, r.verdict, r.status_code, r.response_excerpt] for r in recipients])
