"""Compares what everybody saw: each check is a promise of tocsin, with what broke it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tocsin import Event
from tocsin.v1.notifications_pb2 import DELIVERY_STATE_DELIVERED, Delivery, DeliveryState

from examples.demo.ledger import Ledger, Received
from examples.demo.stream import SICK_IMAGE
from examples.receivers import Mail, Post

TRANSITIONS = frozenset({"system.alerting.new_instance", "system.alerting.recovered_instance"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server says in the end."""

    events: list[Event]
    deliveries: list[Delivery]
    refused_signatures: int


@dataclass(frozen=True, slots=True)
class Check:
    """A promise; `problem` is empty when it was kept."""

    promise: str
    problem: str


def warning_text(count: int) -> str:
    """Answer the text that the alert's template has to become."""
    return f"{SICK_IMAGE} failed {count} times in 6s"


RECOVERY_TEXT = f"{SICK_IMAGE} is well again"


def check_all(ledger: Ledger, facts: Facts) -> list[Check]:
    """Check everything."""
    checks: dict[str, Callable[[Ledger, Facts], Iterator[str]]] = {
        "nobody met an error that a retry could not mend": _no_faults,
        "every acknowledged event is in the log, once and in order": _log,
        "the subscriber got every event once and in order": _subscriber,
        "the subscriber went on after the kill": _resumed,
        "the webhook was told of every failure and of nothing else": _webhook,
        "every signature was right": _signatures,
        "the mailbox was told of every failure and of nothing else": _mailbox,
        "every delivery ended delivered": _deliveries,
        "the alert warned once, about the right image": _warning,
        "the alert told once that it is over": _recovery,
        "the log has both transitions of the alert": _transitions,
    }
    return [Check(promise, "; ".join(check(ledger, facts))) for promise, check in checks.items()]


def _no_faults(ledger: Ledger, facts: Facts) -> Iterator[str]:
    yield from ledger.faults
    if not ledger.producer_done:
        yield "the producer did not finish"


def _log(ledger: Ledger, facts: Facts) -> Iterator[str]:
    stored = {event.id: event.position for event in facts.events}
    if len(stored) != len(facts.events):
        yield "an id is in the log twice"
    if lost := [entry.id for entry in ledger.acknowledged if stored.get(entry.id) != entry.position]:
        yield f"{len(lost)} acknowledged events are missing or elsewhere"
    positions = [entry.position for entry in ledger.acknowledged]
    if positions != sorted(set(positions)):
        yield "positions do not rise"
    foreign = [event for event in facts.events if not event.type.startswith("system.")]
    if len(foreign) != len(positions):
        yield f"{len(foreign)} events are stored, {len(positions)} were acknowledged"


def _subscriber(ledger: Ledger, facts: Facts) -> Iterator[str]:
    arrived = [entry.position for entry in ledger.arrived]
    if arrived != sorted(set(arrived)):
        yield "events came twice or out of order"
    wanted = [entry.id for entry in ledger.acknowledged]
    got = [entry.id for entry in ledger.arrived if not entry.own]
    if got != wanted:
        missing, extra = set(wanted) - set(got), set(got) - set(wanted)
        yield f"{len(missing)} events are missing, {len(extra)} are not known"


def _resumed(ledger: Ledger, facts: Facts) -> Iterator[str]:
    if ledger.connections < 2:
        yield f"it had {ledger.connections} connection(s)"


def _webhook(ledger: Ledger, facts: Facts) -> Iterator[str]:
    told: dict[str, set[str]] = {}
    for post in _posts(ledger.failures_posted):
        told.setdefault(post.body["data"]["id"], set()).add(post.id)
    yield from _compare(told, ledger.failures())


def _mailbox(ledger: Ledger, facts: Facts) -> Iterator[str]:
    event_of = {delivery.id: delivery.event.id for delivery in facts.deliveries if delivery.kind == "email"}
    told: dict[str, set[str]] = {}
    for entry in ledger.mails:
        assert isinstance(entry.message, Mail)
        told.setdefault(event_of.get(entry.message.id, "unknown"), set()).add(entry.message.id)
    yield from _compare(told, ledger.failures())


def _compare(told: dict[str, set[str]], wanted: set[str]) -> Iterator[str]:
    if missing := wanted - told.keys():
        yield f"{len(missing)} of {len(wanted)} are missing"
    if extra := told.keys() - wanted:
        yield f"{len(extra)} were not asked for"
    # At least once: a repeat is allowed, but it has to be known by its id.
    if twice := [id for id, deliveries in told.items() if len(deliveries) > 1]:
        yield f"{len(twice)} came under two delivery ids"


def _signatures(ledger: Ledger, facts: Facts) -> Iterator[str]:
    if facts.refused_signatures:
        yield f"{facts.refused_signatures} were wrong"


def _deliveries(ledger: Ledger, facts: Facts) -> Iterator[str]:
    states = Counter(delivery.state for delivery in facts.deliveries)
    for state, count in states.items():
        if state != DELIVERY_STATE_DELIVERED:
            yield f"{count} are {DeliveryState.Name(state)}"
    wanted = 2 * len(ledger.failures()) + 2
    if len(facts.deliveries) != wanted:
        yield f"there are {len(facts.deliveries)}, expected {wanted}"


def _warning(ledger: Ledger, facts: Facts) -> Iterator[str]:
    texts = _texts(ledger, "warning")
    if len(texts) != 1:
        yield f"it warned {len(texts)} times"
    possible = {warning_text(count) for count in range(3, 10)}
    yield from (f"it said {text!r}" for text in texts if text not in possible)


def _recovery(ledger: Ledger, facts: Facts) -> Iterator[str]:
    texts = _texts(ledger, "recovery")
    if texts != [RECOVERY_TEXT]:
        yield f"it said {texts!r}"


def _transitions(ledger: Ledger, facts: Facts) -> Iterator[str]:
    types = Counter(entry.type for entry in ledger.arrived if entry.own)
    for type in sorted(TRANSITIONS):
        if types[type] != 1:
            yield f"{types[type]} events of type {type}"


def _texts(ledger: Ledger, kind: str) -> list[str]:
    """Answer what the alert said, each delivery once, however often it was attempted."""
    said = {post.id: post.body for post in _posts(ledger.alerts_posted)}
    return [body["text"] for body in said.values() if body["kind"] == kind]


def _posts(entries: Iterable[Received]) -> Iterator[Post]:
    for entry in entries:
        assert isinstance(entry.message, Post)
        yield entry.message
