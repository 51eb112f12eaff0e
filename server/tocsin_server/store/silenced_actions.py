"""Silences and the actions of alerts: an action is judged by the event of the transition that it tells of."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from tocsin_server.domain.decisions import Decision
from tocsin_server.domain.encoding import wire_bytes
from tocsin_server.domain.execution import Judgement, Run, RunOutcome
from tocsin_server.domain.notifications import Delivery, State
from tocsin_server.domain.silences import Silences
from tocsin_server.domain.transitions import Transition, TransitionKind, own_event
from tocsin_server.store import silences, wire
from tocsin_server.store.event_log import cursor_position
from tocsin_server.store.generation import GENERATION
from tocsin_server.store.writer import Transaction


def judge(connection: sqlite3.Connection, run: Run, outcome: RunOutcome, at: int, host: str) -> Judgement:
    """Judge the instances of a run: on a thread that reads, because a thousand of them take their time."""
    generation = cursor_position(connection, GENERATION)
    held = silences.holding(connection, run.alert.account, at)
    if not held:
        return Judgement({}, generation, at)
    told = {str(t.details.get("instance_id")): t for t in outcome.transitions}
    asked = Silences(held)
    found: dict[str, str] = {}
    for decision in outcome.decisions:
        transition = told.get(decision.instance_id) or _unchanged(decision)
        event = own_event(run.alert, transition, run.claim.scheduled_at)
        draft = wire.own_draft(event, "", at, host)
        silence = asked.silencing(run.alert.account, at, draft.head, wire_bytes(wire.EVENTS_TAG, draft.body))
        if silence is not None:
            found[decision.instance_id] = silence.id
    return Judgement(found, generation, at)


def silences_of(
    transaction: Transaction, run: Run, outcome: RunOutcome, judgement: Judgement | None
) -> Mapping[str, str]:
    """Give, for each instance of a run that a silence means, the id of that silence, as of this transaction."""
    if judgement is None:
        return {}
    connection, now = transaction.connection, transaction.log.created_at
    holds = cursor_position(connection, GENERATION) == judgement.generation
    if not holds or silences.turned(connection, run.alert.account, judgement.at, now):
        judgement = anew(transaction, run, outcome)
    return judgement.silences


def anew(transaction: Transaction, run: Run, outcome: RunOutcome) -> Judgement:
    """Judge the instances of a run in the transaction that writes it."""
    return judge(transaction.connection, run, outcome, transaction.log.created_at, transaction.runtime.host)


def _unchanged(decision: Decision) -> Transition:
    """Give the transition into the state that a run tells of once more: only active instances repeat."""
    details = {"instance_id": decision.instance_id, "action_group": decision.group}
    return Transition(TransitionKind.NEW_INSTANCE, "", details)


def silenced(row: Delivery, silence_id: str) -> Delivery:
    """Give a delivery as it ends under a silence."""
    subject = {**row.subject, "silence_id": silence_id}
    return row._replace(state=State.SILENCED, reason="SILENCE", ended_at=row.created_at, subject=subject)
