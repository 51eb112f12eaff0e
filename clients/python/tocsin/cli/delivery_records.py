"""Deliveries as text: a row, a line, a whole record. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tocsin.cli import choices
from tocsin.cli.attempts import answer_text, attempt_lines, recipient_lines
from tocsin.cli.escaping import escaped
from tocsin.cli.printing import Columns
from tocsin.cli.rendering import short_time_text, time_text
from tocsin.v1 import notifications_pb2 as pb

COLOURS = {
    "DELIVERED": "green",
    "EXHAUSTED": "red",
    "CANCELLED": "yellow",
    "RETRYING": "yellow",
    "PAUSED": "yellow",
    "SILENCED": "yellow",
}
"""The colour of each state."""

_TITLES = ("ID", "STATE", "REASON", "TRIES", "ANSWER", "TELLS", "CONFIGURATION", "CREATED", "CREATED")
_ID, _STATE, _REASON, _TRIES, _ANSWER, _TELLS, _CONFIGURATION, _FINE, _COARSE = range(len(_TITLES))
DELIVERIES = Columns(
    _TITLES,
    (
        ((_ID, _STATE, _REASON, _TRIES, _ANSWER, _TELLS, _CONFIGURATION, _FINE),),
        ((_ID, _STATE, _REASON, _TRIES, _ANSWER), (_TELLS, _CONFIGURATION, _COARSE)),
        ((_ID, _STATE, _TRIES, _ANSWER), (_TELLS, _CONFIGURATION), (_REASON, _COARSE)),
        ((_ID, _STATE, _TRIES), (_TELLS,), (_CONFIGURATION, _COARSE), (_REASON, _ANSWER)),
        ((_ID, _STATE), (_TELLS,), (_CONFIGURATION,), (_TRIES, _ANSWER)),
    ),
    {_REASON: 10, _ANSWER: 18},
    _STATE,
    COLOURS,
)

_REASONS = {
    "ATTEMPTS": "every attempt of its schedule has failed",
    "PERMANENT": "the receiver refused it for good",
    "RENDER": "its text could not be made",
    "EXPIRED": "it was held for too long",
    "GONE": "the receiver is gone for good",
    "DELETED": "its configuration was deleted",
    "BY_HAND": "somebody cancelled it",
    "DISABLED": "its endpoint or its configuration is switched off",
    "CREDENTIALS": "the receiver does not accept the credentials",
    "NOT_FOUND": "the receiver does not know the address",
    "FAILURES": "the receiver has only failed for five days",
    "SILENCE": "a silence held",
}


def state(delivery: pb.Delivery) -> str:
    """Answer the state as a bare word."""
    return choices.word(pb.DeliveryState, delivery.state)


def subject(delivery: pb.Delivery) -> str:
    """Answer what it tells, in a few words."""
    match delivery.WhichOneof("subject"):
        case "event":
            return f"event {delivery.event.id}"
        case "alert":
            return f"alert {delivery.alert.alert_id}"
        case "digest":
            return f"digest {delivery.digest.number}"
        case kind:
            return kind or ""


def cells(delivery: pb.Delivery) -> list[str]:
    """Answer the columns of `DELIVERIES`."""
    return [
        delivery.id,
        state(delivery),
        delivery.reason,
        str(delivery.attempt_count),
        answer_text(delivery.status_code, delivery.error_class),
        subject(delivery),
        delivery.configuration_id,
        time_text(delivery.create_time),
        short_time_text(delivery.create_time),
    ]


def summary(delivery: pb.Delivery) -> str:
    """Answer a delivery in some words, without its ID: state, reason, last answer, tries."""
    tries = f"{delivery.attempt_count} tr{'y' if delivery.attempt_count == 1 else 'ies'}"
    return "  ".join(filter(None, _words(delivery, tries if delivery.attempt_count else "")))


def change(delivery: pb.Delivery) -> str:
    """Answer a delivery that has changed, on one line; its state begins after the ID and two blanks."""
    due = f"next {short_time_text(delivery.next_attempt_at)}" if delivery.HasField("next_attempt_at") else ""
    tries = f"try {delivery.attempt_count}" if delivery.attempt_count else ""
    parts = [delivery.id, *_words(delivery, tries), subject(delivery), due]
    return "  ".join(escaped(part) for part in parts if part)


def _words(delivery: pb.Delivery, tries: str) -> list[str]:
    return [state(delivery), delivery.reason, tries, answer_text(delivery.status_code, delivery.error_class)]


def record(delivery: pb.Delivery, width: int | None) -> list[str]:
    """Answer everything about a delivery, attempt by attempt."""
    lines = [*_labelled(_facts(delivery)), *_labelled(_context(delivery))]
    if delivery.recipients:
        lines += ["Recipients:", *recipient_lines(delivery.recipients, width)]
    kept = len(delivery.attempts)
    older = f" (the newest {kept} of them)" if kept < delivery.attempt_count else ""
    lines.append(f"Attempts: {delivery.attempt_count}{older}")
    for attempt in delivery.attempts:
        lines += attempt_lines(attempt, width)
    return lines


def _facts(delivery: pb.Delivery) -> Iterable[tuple[str, str]]:
    why = _REASONS.get(delivery.reason, "")
    yield "ID", delivery.id
    yield "State", state(delivery)
    yield "Reason", f"{delivery.reason}: {why}" if why else delivery.reason
    yield from _subject_facts(delivery)
    yield "Silence", delivery.silence_id
    yield "Digest", delivery.digest_id
    yield "Configuration", delivery.configuration_id
    yield "Kind", delivery.kind
    yield "Created At", time_text(delivery.create_time)
    yield "Ended At", time_text(delivery.end_time) if delivery.HasField("end_time") else ""
    yield "Next Attempt", time_text(delivery.next_attempt_at) if delivery.HasField("next_attempt_at") else ""


def _subject_facts(delivery: pb.Delivery) -> Iterable[tuple[str, str]]:
    match delivery.WhichOneof("subject"):
        case "event":
            yield "Event", delivery.event.id
            yield "Position", str(delivery.event.position)
        case "alert":
            found = delivery.alert
            yield "Alert", found.alert_id
            yield "Instance", found.instance_id
            yield "Action Group", found.action_group
            yield "Run", str(found.run_number)
        case "digest":
            group = ", ".join(f"{name}={value}" for name, value in sorted(delivery.digest.group.items()))
            yield "Tells", f"digest {delivery.digest.number} of {group or 'all events'}"
        case kind:
            yield "Tells", f"a {kind} message" if kind else ""


def _context(delivery: pb.Delivery) -> Iterable[tuple[str, str]]:
    yield "Correlation Id", delivery.correlation_id
    yield "Request Id", delivery.request_id
    yield "Traceparent", delivery.traceparent


def _labelled(facts: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{label}: {escaped(value)}" for label, value in facts if value]
