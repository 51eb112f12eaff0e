"""The demo's checks are real: each break of a promise is seen by its check, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tocsin import Event
from tocsin.v1.notifications_pb2 import DELIVERY_STATE_DELIVERED, DELIVERY_STATE_EXHAUSTED, Delivery

from examples.demo.checks import RECOVERY_TEXT, Facts, check_all, warning_text
from examples.demo.ledger import Acknowledged, Arrived, Ledger, Received
from examples.demo.stream import OUTAGE_AT, SICK_FAILURES, SICK_IMAGE, stream
from examples.receivers import Mail, Post

FAILED = ("e2", "e4")


def post(path: str, id: str, body: Any) -> Received:
    return Received(Post(path, id, body), 1.0)


def delivery(id: str, kind: str, event_id: str = "") -> Delivery:
    subject = Delivery.EventSubject(id=event_id) if event_id else None
    return Delivery(id=id, kind=kind, state=DELIVERY_STATE_DELIVERED, event=subject)


def perfect() -> tuple[Ledger, Facts]:
    ledger = Ledger(producer_done=True, connections=2)
    for position in range(1, 6):
        id = f"e{position}"
        ledger.acknowledged.append(Acknowledged(id, position, "r", id in FAILED, 0.0, 0.1))
        ledger.arrived.append(Arrived(id, position, "a.b", False, 0.2))
    for position, type in ((6, "system.alerting.new_instance"), (7, "system.alerting.recovered_instance")):
        ledger.arrived.append(Arrived(f"s{position}", position, type, True, 0.3))
    for id in FAILED:
        ledger.failures_posted.append(post("/failures", f"w-{id}", {"data": {"id": id}}))
        ledger.mails.append(Received(Mail(f"m-{id}", ("a@b.c",), "", ""), 1.0))
    ledger.alerts_posted.append(post("/pager", "a1", {"kind": "warning", "text": warning_text(3)}))
    ledger.alerts_posted.append(post("/pager", "a2", {"kind": "recovery", "text": RECOVERY_TEXT}))
    deliveries = [delivery("a1", "webhook"), delivery("a2", "webhook")]
    deliveries += [delivery(f"w-{id}", "webhook", id) for id in FAILED]
    deliveries += [delivery(f"m-{id}", "email", id) for id in FAILED]
    events = [Event(id=entry.id, position=entry.position, type=entry.type) for entry in ledger.arrived]
    return ledger, Facts(events, deliveries, refused_signatures=0)


def broken(ledger: Ledger, facts: Facts) -> list[str]:
    return [check.promise for check in check_all(ledger, facts) if check.problem]


def test_nothing_is_broken_when_all_is_well() -> None:
    assert broken(*perfect()) == []


def test_repeats_under_the_same_id_are_allowed() -> None:
    ledger, facts = perfect()
    ledger.failures_posted.append(ledger.failures_posted[0])
    ledger.mails.append(ledger.mails[0])
    ledger.alerts_posted.append(ledger.alerts_posted[0])
    assert broken(ledger, facts) == []


BREAKS: dict[str, tuple[str, Callable[[Ledger, Facts], object]]] = {
    "fault": ("nobody met", lambda ledger, facts: ledger.faults.append("boom")),
    "unfinished": ("nobody met", lambda ledger, facts: setattr(ledger, "producer_done", False)),
    "not resumed": ("the subscriber went on", lambda ledger, facts: setattr(ledger, "connections", 1)),
    "lost event": ("every acknowledged", lambda ledger, facts: facts.events.pop(0)),
    "stored twice": ("every acknowledged", lambda ledger, facts: facts.events.append(facts.events[0])),
    "unknown event": (
        "every acknowledged",
        lambda ledger, facts: facts.events.append(Event(id="x", position=9, type="a.b")),
    ),
    "gap": ("the subscriber got", lambda ledger, facts: ledger.arrived.pop(1)),
    "duplicate": ("the subscriber got", lambda ledger, facts: ledger.arrived.insert(2, ledger.arrived[1])),
    "disorder": ("the subscriber got", lambda ledger, facts: ledger.arrived.insert(0, ledger.arrived.pop(1))),
    "webhook missed": ("the webhook", lambda ledger, facts: ledger.failures_posted.pop()),
    "webhook told too much": (
        "the webhook",
        lambda ledger, facts: ledger.failures_posted.append(post("/failures", "w", {"data": {"id": "e1"}})),
    ),
    "webhook told under two ids": (
        "the webhook",
        lambda ledger, facts: ledger.failures_posted.append(post("/failures", "w", {"data": {"id": "e2"}})),
    ),
    "mail missed": ("the mailbox", lambda ledger, facts: ledger.mails.pop()),
    "foreign mail": (
        "the mailbox",
        lambda ledger, facts: ledger.mails.append(Received(Mail("?", (), "", ""), 1.0)),
    ),
    "delivery given up": (
        "every delivery",
        lambda ledger, facts: setattr(facts.deliveries[0], "state", DELIVERY_STATE_EXHAUSTED),
    ),
    "delivery missing": ("every delivery", lambda ledger, facts: facts.deliveries.pop(0)),
    "no warning": ("the alert warned", lambda ledger, facts: ledger.alerts_posted.pop(0)),
    "two warnings": (
        "the alert warned",
        lambda ledger, facts: ledger.alerts_posted.append(
            post("/pager", "a9", {"kind": "warning", "text": warning_text(4)})
        ),
    ),
    "template not rendered": (
        "the alert warned",
        lambda ledger, facts: ledger.alerts_posted.__setitem__(
            0, post("/pager", "a1", {"kind": "warning", "text": "{{context.count}}"})
        ),
    ),
    "no recovery": ("the alert told", lambda ledger, facts: ledger.alerts_posted.pop()),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_is_seen(name: str) -> None:
    promise, breaks = BREAKS[name]
    ledger, facts = perfect()
    breaks(ledger, facts)
    (found,) = broken(ledger, facts)
    assert found.startswith(promise)


def test_a_wrong_signature_and_a_missing_transition_are_seen() -> None:
    ledger, facts = perfect()
    assert broken(ledger, replace(facts, refused_signatures=1)) == ["every signature was right"]
    ledger.arrived[-1] = replace(ledger.arrived[-1], type="system.alerting.status_changed")
    assert broken(ledger, facts) == ["the log has both transitions of the alert"]


def test_only_one_image_of_the_stream_is_sick() -> None:
    steps = list(stream())
    assert steps == list(stream())
    sick = [number for number, step in enumerate(steps) if step.event.resource.id == SICK_IMAGE]
    assert sick == list(range(OUTAGE_AT, OUTAGE_AT + SICK_FAILURES))
    failing = [step for step in steps if step.failed]
    assert {step.event.type for step in failing} == {
        "image.analysis.failed",
        "feed.sync.failed",
        "tag.check.failed",
    }
    others = [step.event.resource.id for step in failing if step.event.type == "image.analysis.failed"]
    assert all(others.count(image) < 3 for image in set(others) - {SICK_IMAGE})
