"""Rows of deliveries to the domain and back, and what every writer of them shares."""

from __future__ import annotations

import json
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
INSERT = (
    f"INSERT INTO deliveries ({COLUMNS}, lease_until) VALUES ({','.join('?' * (len(NAMES) + 1))})"
    " ON CONFLICT (route_key) DO NOTHING"
)
# The lines, each with an index of its own.
WAITING = "state IN ('PENDING', 'RETRYING')"
PAUSED = "state = 'PAUSED'"


def insert(transaction: Transaction, rows: Sequence[Delivery]) -> list[bool]:
    """Insert deliveries, each once by its route key; tell which are new. SENDING ones are started."""
    now = transaction.log.created_at
    new: list[bool] = []
    for row in rows:
        lease = now + LEASE_US if row.state is State.SENDING else 0
        cursor = transaction.connection.execute(
            INSERT,
            (row.account, row.id, row.route_key, row.configuration_id, row.kind, row.event_position, row.event_id,
             row.alert_id, json.dumps(row.subject), json.dumps(row.content) if row.content else "", row.state,
             row.reason, row.attempt, row.scheduled, row.due_at, recipients_json(row.recipients),
             row.correlation_id, row.request_id, row.traceparent, now, row.ended_at, row.status_code,
             row.error_class, row.digest_id, lease),
        )  # fmt: skip
        new.append(cursor.rowcount == 1)
        if new[-1] and row.state is State.SENDING:
            start(transaction, row.account, row.id, row.attempt)
    return new


def start(transaction: Transaction, account: str, delivery_id: str, number: int) -> None:
    """Record an attempt as begun."""
    transaction.connection.execute(
        "INSERT INTO attempts (account, delivery_id, number, started_at, verdict, status_code, response_excerpt, error,"
        " next_attempt_at) VALUES (?, ?, ?, ?, '', 0, '', '', 0)",
        (account, delivery_id, number, transaction.log.created_at),
    )


def delivery(row: Sequence[Any]) -> Delivery:
    """Make a delivery of its columns."""
    values = dict(zip(NAMES, row, strict=True))
    values["subject"] = json.loads(values["subject"])
    values["content"] = json.loads(values["content"]) if values["content"] else {}
    values["state"] = State(values["state"])
    values["error_class"] = ErrorClass(values["error_class"])
    values["recipients"] = () if values["recipients"] == "[]" else recipients(values["recipients"])
    return Delivery(**values)


def recipients(text: str) -> tuple[RecipientVerdict, ...]:
    """Read the verdicts of receivers."""
    return tuple(
        RecipientVerdict(recipient, Verdict(verdict), code, words)
        for recipient, verdict, code, words in json.loads(text)
    )


def recipients_json(verdicts: Iterable[RecipientVerdict]) -> str:
    """Write the verdicts of receivers."""
    return json.dumps([[r.recipient, r.verdict, r.status_code, r.response_excerpt] for r in verdicts])
