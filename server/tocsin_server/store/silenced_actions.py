"""Silences and the actions of alerts: an action is judged by the event of the transition that it tells of."""

from __future__ import annotations

from dataclasses import replace

from tocsin_server.domain.decisions import Decision
from tocsin_server.domain.encoding import wire_bytes
from tocsin_server.domain.execution import Run, RunOutcome
from tocsin_server.domain.notifications import Delivery, State
from tocsin_server.domain.silences import Silences
from tocsin_server.domain.transitions import Transition, TransitionKind, own_event
from tocsin_server.store import silences, wire
from tocsin_server.store.writer import Transaction


def silences_of(transaction: Transaction, run: Run, outcome: RunOutcome) -> dict[str, str]:
    """Give, for each instance of a run that a silence means, the id of that silence."""
    now = transaction.log.created_at
    held = silences.holding(transaction.connection, run.alert.account, now)
    if not held or not outcome.decisions:
        return {}
    judge = Silences(held)
    told = {str(t.details.get("instance_id")): t for t in outcome.transitions}
    found: dict[str, str] = {}
    for decision in outcome.decisions:
        transition = told.get(decision.instance_id) or _unchanged(decision)
        event = own_event(run.alert, transition, run.claim.scheduled_at)
        draft = wire.own_draft(event, "", now, transaction.runtime.host)
        frame = wire_bytes(wire.EVENTS_TAG, draft.body)
        silence = judge.silencing(run.alert.account, now, draft.head, frame)
        if silence is not None:
            found[decision.instance_id] = silence.id
    return found


def _unchanged(decision: Decision) -> Transition:
    """Give the transition into the state that a run tells of once more: only active instances repeat."""
    details = {"instance_id": decision.instance_id, "action_group": decision.group}
    return Transition(TransitionKind.NEW_INSTANCE, "", details)


def silenced(row: Delivery, silence_id: str) -> Delivery:
    """Give a delivery as it ends under a silence."""
    subject = {**row.subject, "silence_id": silence_id}
    return replace(row, state=State.SILENCED, reason="SILENCE", ended_at=row.created_at, subject=subject)
