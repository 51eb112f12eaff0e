"""Settling: how an attempt ended, what becomes of its delivery, and what it says about the receiver.

All of it is one transaction. Every write about an attempt names the attempt's number; when the row has
moved on, only the attempt itself is recorded.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tocsin_server.domain import notices
from tocsin_server.domain.delivery_ports import Sent, Settled
from tocsin_server.domain.event_log import OWN_SERVICE
from tocsin_server.domain.health import HEALTHY, Health, HealthState, Sign, observe, tell
from tocsin_server.domain.notifications import FINAL, Delivery, Outcome, State
from tocsin_server.domain.settlement import Plan, Settlement
from tocsin_server.domain.settlement import settle as settlement_of
from tocsin_server.domain.verdicts import Verdict
from tocsin_server.store import digests, endpoint_health, holds
from tocsin_server.store.delivery_rows import recipients_json
from tocsin_server.store.writer import Transaction

TEST_PLAN = Plan(0.5, ())  # a test is tried once
TAKEN = """
UPDATE deliveries SET state = 'DELIVERED', reason = '', due_at = ?1, scheduled = scheduled + 1, lease_until = 0,
 ended_at = ?1, recipients = new.recipients, status_code = new.status_code, error_class = ''
FROM (SELECT value ->> 0 AS account, value ->> 1 AS id, value ->> 2 AS attempt, value ->> 4 AS status_code,
 value ->> 6 AS recipients FROM json_each(?2)) AS new
WHERE deliveries.account = new.account AND deliveries.id = new.id AND deliveries.attempt = new.attempt
 AND deliveries.state = 'SENDING'
"""
TAKEN_NOW = """
SELECT json_group_array(d.id) FROM json_each(?2) AS v JOIN deliveries AS d ON d.account = v.value ->> 0
 AND d.id = v.value ->> 1 AND d.attempt = v.value ->> 2 AND d.state = 'DELIVERED' AND d.ended_at = ?1
"""
TAKEN_ATTEMPTS = """
UPDATE attempts SET duration_us = new.duration_us, verdict = 'DELIVERED', status_code = new.status_code,
 response_excerpt = new.excerpt, started_at = new.started_at
FROM (SELECT value ->> 0 AS account, value ->> 1 AS id, value ->> 2 AS number, value ->> 3 AS duration_us,
 value ->> 4 AS status_code, value ->> 5 AS excerpt, value ->> 7 AS started_at FROM json_each(?)) AS new
WHERE attempts.account = new.account AND attempts.delivery_id = new.id AND attempts.number = new.number
"""


class Ended(NamedTuple):
    """An attempt that has ended."""

    row: Delivery
    sent: Sent
    plan: Plan

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        return self.sent.outcome


def settle(transaction: Transaction, ended: Sequence[Ended], paused_max_age_us: int) -> list[Settled | None]:
    """Record how attempts ended; None for one that another attempt has taken over from meanwhile."""
    healthy: dict[tuple[str, str], bool] = {}
    for key in {(one.row.account, one.row.configuration_id) for one in ended}:
        healthy[key] = endpoint_health.get(transaction.connection, *key).is_well
    # What was taken by a receiver that is well changes nothing else, and is the rule.
    plain = [
        one for one in ended
        if one.outcome.verdict is Verdict.DELIVERED and healthy[one.row.account, one.row.configuration_id]
    ]  # fmt: skip
    settled = _taken(transaction, plain) if plain else {}
    quick = {id(one) for one in plain}
    return [
        settled.get(one.row.id) if id(one) in quick else _settle_one(transaction, one, paused_max_age_us)
        for one in ended
    ]


def _taken(transaction: Transaction, ended: Sequence[Ended]) -> dict[str, Settled]:
    now = transaction.log.created_at
    values = json.dumps([
        [one.row.account, one.row.id, one.row.attempt, one.sent.duration_us, one.outcome.status_code,
         one.outcome.response_excerpt, recipients_json(one.outcome.recipients), one.sent.began_at]
        for one in ended
    ])  # fmt: skip
    current = [one.row.id for one in ended]
    if transaction.connection.execute(TAKEN, (now, values)).rowcount < len(ended):
        (found,) = transaction.connection.execute(TAKEN_NOW, (now, values)).fetchone()
        current = json.loads(found)
    transaction.connection.execute(TAKEN_ATTEMPTS, (values,))
    return {name: Settled(State.DELIVERED, "", now, HEALTHY) for name in current}


def _settle_one(transaction: Transaction, ended: Ended, paused_max_age_us: int) -> Settled | None:
    row, sent, plan = ended
    outcome = sent.outcome
    now = transaction.log.created_at
    test = row.route_key.startswith("test/")
    before = endpoint_health.get(transaction.connection, row.account, row.configuration_id)
    after = before
    if not test or outcome.verdict is Verdict.DELIVERED:
        after = observe(before, Sign(outcome.verdict, outcome.error_class, outcome.retry_after_s), now)
    settlement = settlement_of(outcome, row.scheduled, row.attempt, now, plan, after)
    if test:
        settlement = _tested(outcome, row, now)
    if settlement.state is State.RETRYING:
        settlement = _held(transaction.connection, row, settlement)
    is_current = _write(transaction, row, sent, settlement)
    if not is_current:
        return None
    if after is not before:
        after = _note(transaction, row, outcome, before, after)
        if before.state is HealthState.DISABLED and after.state is HealthState.HEALTHY:
            holds.resume_disabled(transaction, paused_max_age_us, (row.account, row.configuration_id))
    if settlement.state is State.EXHAUSTED and not test and not _is_notice(transaction.connection, row):
        transaction.append([notices.of_exhaustion(row, settlement, outcome)])
    return Settled(settlement.state, settlement.reason, settlement.due_at, after)


def _tested(outcome: Outcome, row: Delivery, now: int) -> Settlement:
    ended = settlement_of(outcome, 0, 1, now, TEST_PLAN)
    return ended if ended.state in FINAL else Settlement(State.EXHAUSTED, "ATTEMPTS", now, 1)


def _held(connection: sqlite3.Connection, row: Delivery, settlement: Settlement) -> Settlement:
    state, reason = holds.waiting_state(connection, row.account, row.configuration_id)
    return settlement if state is State.RETRYING else replace(settlement, state=state, reason=reason)


def _write(transaction: Transaction, row: Delivery, sent: Sent, settlement: Settlement) -> bool:
    outcome = sent.outcome
    ended = transaction.log.created_at if settlement.state in FINAL else 0
    cursor = transaction.connection.execute(
        "UPDATE deliveries SET state = ?, reason = ?, due_at = ?, scheduled = ?, lease_until = 0, ended_at = ?,"
        " recipients = ?, status_code = ?, error_class = ?"
        " WHERE account = ? AND id = ? AND attempt = ? AND state = 'SENDING'",
        (settlement.state, settlement.reason, settlement.due_at, settlement.scheduled, ended,
         recipients_json(outcome.recipients), outcome.status_code, outcome.error_class,
         row.account, row.id, row.attempt),
    )  # fmt: skip
    next_at = settlement.due_at if settlement.state is State.RETRYING else 0
    transaction.connection.execute(
        "UPDATE attempts SET duration_us = ?, verdict = ?, status_code = ?, response_excerpt = ?, error = ?,"
        " next_attempt_at = ?, error_class = ?, started_at = ? WHERE account = ? AND delivery_id = ? AND number = ?",
        (sent.duration_us, outcome.verdict, outcome.status_code, outcome.response_excerpt, outcome.error, next_at,
         outcome.error_class, sent.began_at, row.account, row.id, row.attempt),
    )  # fmt: skip
    return cursor.rowcount == 1


def _note(transaction: Transaction, row: Delivery, outcome: Outcome, before: Health, after: Health) -> Health:
    """Keep the health of a receiver and tell the log of it; one that is deleted has none."""
    connection = transaction.connection
    found = connection.execute(
        "SELECT name FROM endpoint_configurations WHERE account = ? AND id = ?", (row.account, row.configuration_id)
    ).fetchone()
    if found is None:
        return after
    after, told = tell(before, after, transaction.log.created_at)
    endpoint_health.put(connection, row.account, row.configuration_id, after)
    if told is not None:
        transaction.append([notices.of_health(told, row, found[0], after, outcome)])
    return after


def _is_notice(connection: sqlite3.Connection, row: Delivery) -> bool:
    """Tell whether a delivery carries nothing but notices about deliveries: that of its own end would never end."""
    told = digests.positions(connection, row.account, row.id) or [row.event_position]
    found = connection.execute(
        f"SELECT service, type FROM events WHERE position IN ({','.join('?' * len(told))})", told
    ).fetchall()
    return bool(found) and all(service == OWN_SERVICE and kind.startswith(notices.PREFIX) for service, kind in found)
