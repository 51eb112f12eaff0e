"""Rows of deliveries to the domain and back, and what every writer of them shares."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from tocsin_server.domain.notifications import LEASE_S, Delivery, RecipientVerdict, State
from tocsin_server.domain.verdicts import ErrorClass, Verdict
from tocsin_server.store.writer import Transaction

NAMES = (
    "account", "id", "route_key", "configuration_id", "kind", "event_position", "event_id", "alert_id", "subject",
    "content", "state", "reason", "attempt", "scheduled", "due_at", "recipients", "correlation_id", "request_id",
    "traceparent", "created_at", "ended_at", "status_code", "error_class",
    "digest_id",
)  # fmt: skip
COLUMNS = ", ".join(NAMES)
LEASE_US = int(LEASE_S * 1_000_000)
# Many rows in one statement, and in one step of it: each step, so each row of an answer too, gives the
# interpreter up, and gets it back late where other threads work.
FIELDS = ", ".join(f"value ->> {place}" for place in range(len(NAMES) + 1))
INSERT = (
    f"INSERT INTO deliveries ({COLUMNS}, lease_until) SELECT {FIELDS} FROM json_each(?) WHERE true"
    " ON CONFLICT (route_key) DO NOTHING"
)
MADE = (
    "SELECT json_group_array(d.id) FROM json_each(?) AS v"
    " JOIN deliveries AS d ON d.account = v.value ->> 0 AND d.id = v.value ->> 1"
)
START = (
    "INSERT INTO attempts (account, delivery_id, number, started_at, verdict, status_code, response_excerpt, error,"
    " next_attempt_at) SELECT value ->> 0, value ->> 1, value ->> 2, ?, '', 0, '', '', 0 FROM json_each(?)"
)
# The lines, each with an index of its own.
WAITING = "state IN ('PENDING', 'RETRYING')"
PAUSED = "state = 'PAUSED'"


def insert(transaction: Transaction, rows: Sequence[Delivery]) -> list[bool]:
    """Insert deliveries, each once by its route key; tell which are new. SENDING ones are started."""
    if not rows:
        return []
    values = json.dumps([_values(row, transaction.log.created_at) for row in rows])
    made = {row.id for row in rows}
    if transaction.connection.execute(INSERT, (values,)).rowcount < len(rows):
        (found,) = transaction.connection.execute(MADE, (values,)).fetchone()
        made = set(json.loads(found))
    start(transaction, [row for row in rows if row.state is State.SENDING and row.id in made])
    return [row.id in made for row in rows]


def _values(row: Delivery, now: int) -> list[object]:
    lease = now + LEASE_US if row.state is State.SENDING else 0
    return [
        row.account, row.id, row.route_key, row.configuration_id, row.kind, row.event_position, row.event_id,
        row.alert_id, json.dumps(row.subject), json.dumps(row.content) if row.content else "", row.state, row.reason,
        row.attempt, row.scheduled, row.due_at, recipients_json(row.recipients), row.correlation_id, row.request_id,
        row.traceparent, now, row.ended_at, row.status_code, row.error_class, row.digest_id, lease,
    ]  # fmt: skip


def start(transaction: Transaction, rows: Iterable[Delivery]) -> None:
    """Record attempts as begun."""
    names = json.dumps([[row.account, row.id, row.attempt] for row in rows])
    transaction.connection.execute(START, (transaction.log.created_at, names))


def read_all(connection: sqlite3.Connection, select: str, values: Sequence[Any]) -> list[list[Any]]:
    """Read all rows that a query for COLUMNS answers, in one step."""
    query = f"SELECT json_group_array(json_array({COLUMNS})) FROM ({select})"
    (found,) = connection.execute(query, values).fetchone()
    rows: list[list[Any]] = json.loads(found)
    return rows


def delivery(row: Sequence[Any]) -> Delivery:
    """Make a delivery of its columns."""
    return Delivery(**_fields(row))


def leased(row: Sequence[Any]) -> Delivery:
    """Make of a row's columns the delivery that it is with its next attempt under way."""
    values = _fields(row)
    values["state"], values["reason"] = State.SENDING, ""
    values["attempt"] += 1
    return Delivery(**values)


def _fields(row: Sequence[Any]) -> dict[str, Any]:
    values = dict(zip(NAMES, row, strict=True))
    values["subject"] = json.loads(values["subject"])
    values["content"] = json.loads(values["content"]) if values["content"] else {}
    values["state"] = State(values["state"])
    values["error_class"] = ErrorClass(values["error_class"])
    values["recipients"] = () if values["recipients"] == "[]" else recipients(values["recipients"])
    return values


def recipients(text: str) -> tuple[RecipientVerdict, ...]:
    """Read the verdicts of receivers."""
    return tuple(
        RecipientVerdict(recipient, Verdict(verdict), code, words)
        for recipient, verdict, code, words in json.loads(text)
    )


def recipients_json(verdicts: Sequence[RecipientVerdict]) -> str:
    """Write the verdicts of receivers."""
    if not verdicts:
        return "[]"
    return json.dumps([[r.recipient, r.verdict, r.status_code, r.response_excerpt] for r in verdicts])
