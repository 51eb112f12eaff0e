"""Silences and the actions of alerts: an action is judged by the event of the transition that it tells of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tocsin_server.domain.actions import Notification
from tocsin_server.domain.encoding import wire_bytes
from tocsin_server.domain.execution import Run, RunOutcome, Transition, TransitionKind, own_event
from tocsin_server.domain.notifications import Delivery, State
from tocsin_server.domain.silences import Silence, Silences
from tocsin_server.store import silences, wire
from tocsin_server.store.writer import Transaction


def silencing(transaction: Transaction, run: Run, outcome: RunOutcome) -> Callable[[Notification], Silence | None]:
    """Make a function that gives the silence which keeps a notification of a run from being told, if any does."""
    held = silences.holding(transaction.connection, run.alert.account, transaction.log.created_at)
    if not held or not outcome.notifications:
        return lambda notification: None
    judge = Silences(held)
    told = {str(t.details.get("instance_id")): t for t in outcome.transitions}

    def silence_of(notification: Notification) -> Silence | None:
        transition = told.get(notification.instance_id) or _unchanged(notification)
        event = own_event(run.alert, transition, run.claim.scheduled_at)
        draft = wire.own_draft(event, "", transaction.log.created_at, transaction.runtime.host)
        frame = wire_bytes(wire.EVENTS_TAG, draft.body)
        return judge.silencing(run.alert.account, transaction.log.created_at, draft.head, frame)

    return silence_of


def _unchanged(notification: Notification) -> Transition:
    """Give the transition into the state that a notification tells of once more: only active instances repeat."""
    details = {"instance_id": notification.instance_id, "action_group": notification.group}
    return Transition(TransitionKind.NEW_INSTANCE, "", details)


def silenced(row: Delivery, silence: Silence) -> Delivery:
    """Give a delivery as it ends under a silence."""
    subject = {**row.subject, "silence_id": silence.id}
    return replace(row, state=State.SILENCED, reason="SILENCE", ended_at=row.created_at, subject=subject)
