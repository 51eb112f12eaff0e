"""The life cycle of alert instances: one row of each table is one run, or a run after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tocsin_server.domain.alerting import (
    INSTANCES_MAX,
    Action,
    AlertStatus,
    InstanceReport,
    NotifyWhen,
    Report,
    RunError,
    RunErrorReason,
)
from tocsin_server.domain.event_log import Level
from tocsin_server.domain.execution import Claim, Run, RunOutcome, advance, attempt, close, perform
from tocsin_server.domain.instances import RunFailure
from tocsin_server.domain.transitions import TransitionKind, own_event

from tests.support.executors import MemoryLog
from tests.support.lives import ALERT, MINUTE, T0, TYPE, Life, found, sent, spec, statuses, told


def test_new_active_recovered() -> None:
    """KI9: activity begins with a message, goes on with one each run, and ends with one."""
    life = Life()
    first = life.run(found("a"))
    assert told(first) == ["new_instance a"]
    assert sent(first) == [("a", "default")]
    second = life.run(found("a"))
    assert told(second) == []
    assert sent(second) == [("a", "default")]
    third = life.run()
    assert told(third) == ["recovered_instance a"]
    assert sent(third) == [("a", "recovered")]
    assert third.instances == ()
    fourth = life.run()
    assert (fourth.transitions, fourth.notifications) == ((), ())


def test_status_follows_the_instances() -> None:
    life = Life()
    assert statuses(life.run()) == [("PENDING", "OK")]
    assert statuses(life.run()) == []
    assert statuses(life.run(found("a"))) == [("OK", "ACTIVE")]
    assert statuses(life.fail()) == [("ACTIVE", "ERROR")]
    assert statuses(life.fail()) == []
    assert statuses(life.run(found("a"))) == [("ERROR", "ACTIVE")]
    assert statuses(life.run()) == [("ACTIVE", "OK")]


THROTTLE, CHANGE, EVERY = (
    NotifyWhen.ON_THROTTLE_INTERVAL,
    NotifyWhen.ON_ACTION_GROUP_CHANGE,
    NotifyWhen.ON_ACTIVE_ALERT,
)
A, B, NONE = ("default", ""), ("critical", ""), None


def sub(name: str) -> tuple[str, str]:
    return ("default", name)


@pytest.mark.parametrize(
    ("notify_when", "throttle", "runs", "notifies"),
    [
        (None, "", [A, A, A], "111"),
        (None, "2m", [A, A, A, A, A], "10101"),
        (None, "1m", [A, A, A], "111"),
        (None, "10m", [A, A, A], "100"),
        (EVERY, "10m", [A, A, A], "111"),
        (THROTTLE, "", [A, A, A], "111"),
        (CHANGE, "", [A, A, A], "100"),
        (CHANGE, "1m", [A, A, A], "100"),
        # A change of group notifies at once in every mode, and is the new start of the throttle.
        (None, "10m", [A, B, B, A, A], "11010"),
        (CHANGE, "", [A, B, B, A, A], "11010"),
        (EVERY, "", [A, B, A], "111"),
        # A sub-group counts only if this run and the one before named one.
        (None, "10m", [sub("x"), sub("x"), sub("y")], "101"),
        (None, "10m", [sub("x"), A, sub("x")], "100"),
        (None, "10m", [sub("x"), A, sub("y")], "100"),
        (None, "10m", [A, sub("x"), sub("y")], "101"),
        (CHANGE, "", [sub("x"), sub("y"), sub("y")], "110"),
        (CHANGE, "", [sub("x"), A, sub("y"), sub("z")], "1001"),
        # What recovers is forgotten: the next time it is new.
        (None, "10m", [A, NONE, A], "111"),
        (CHANGE, "", [A, NONE, A, A], "1110"),
        # Recovery does not ask the throttle.
        (None, "10m", [A, A, NONE], "101"),
        (EVERY, "10m", [A, NONE, NONE], "110"),
    ],
)
def test_who_is_told_when(
    notify_when: NotifyWhen | None,
    throttle: str,
    runs: Sequence[tuple[str, str] | None],
    notifies: str,
) -> None:
    """KD2, KI6, KI7, trap 4 (sub-group set, unset, set), trap 5 (recovery ignores the throttle)."""
    life = Life(spec(notify_when=notify_when, throttle=throttle))
    outcomes = [life.run(*([found("a", *now)] if now else [])) for now in runs]
    assert "".join("1" if sent(outcome) else "0" for outcome in outcomes) == notifies


def test_a_throttle_that_equals_the_interval_never_skips() -> None:
    """Trap 9: a day of one-minute runs, each of which notifies."""
    life = Life(spec(throttle="1m"))
    assert all(sent(life.run(found("a"))) for _ in range(24 * 60))


def test_the_throttle_ends_exactly_on_time() -> None:
    life = Life(spec(throttle="5m"))
    assert sent(life.run(found("a")))
    life.at = T0 + 5 * MINUTE - 1
    assert not sent(life.run(found("a")))
    life.at = T0 + 5 * MINUTE
    assert sent(life.run(found("a")))


def test_the_throttle_clock_moves_without_an_action() -> None:
    """A group that has no action is notified all the same: adding one later does not start a flood."""
    life = Life(spec(throttle="10m", actions=()))
    life.run(found("a"))
    life.alert = spec(throttle="10m")
    assert not sent(life.run(found("a")))


def test_a_change_of_group_is_one_event_and_no_recovery() -> None:
    life = Life()
    life.run(found("a"))
    changed = life.run(found("a", "critical"))
    assert told(changed) == ["action_group_changed a"]
    assert changed.transitions[0].details["previous_action_group"] == "default"
    assert sent(changed) == [("a", "critical")]
    assert changed.instances[0].started_at == T0


def test_recoveries_are_told_before_what_is_new() -> None:
    """XE14: in one run, one thing recovers and another begins."""
    life = Life()
    life.run(found("old-1"), found("old-2"))
    outcome = life.run(found("new"))
    assert told(outcome) == ["recovered_instance old-1", "recovered_instance old-2", "new_instance new"]
    assert sent(outcome) == [("old-1", "recovered"), ("old-2", "recovered"), ("new", "default")]


def test_what_was_only_looked_at_does_not_recover() -> None:
    """Trap 3: an instance that was created but not scheduled was never active."""
    outcome = Life().run(found("a", None))
    assert (told(outcome), sent(outcome), outcome.instances) == ([], [], ())


def test_an_active_instance_that_is_only_looked_at_recovers() -> None:
    """KI5: without a group its state is forgotten."""
    life = Life()
    life.run(found("a"))
    assert told(life.run(found("a", None))) == ["recovered_instance a"]


def test_an_error_changes_nothing_but_the_status() -> None:
    """Trap 2, XE1: no recovery, no new instance, the throttle goes on."""
    life = Life(spec(throttle="10m"))
    before = life.run(found("a"), state={"n": 1})
    failed = life.fail()
    assert failed.instances == before.instances
    assert failed.state == {"n": 1}
    assert (told(failed), sent(failed)) == ([], [])
    assert failed.error == RunError(RunErrorReason.EXECUTE, "boom")
    assert failed.transitions[0].level is Level.ERROR
    after = life.run(found("a"))
    assert (told(after), sent(after)) == ([], [])


def test_recovery_has_the_last_context_and_state() -> None:
    life = Life()
    life.run(InstanceReport("a", "default", {"server": "old"}, {"cpuUsage": 1}))
    life.run(InstanceReport("a", "default", {"server": "web-1"}, {"cpuUsage": 2}))
    life.alert = spec(actions=(Action("recovered", "m", {"t": "{{context.server}} {{state.cpuUsage}}"}),))
    (message,) = life.run().notifications
    assert message.params == {"t": "web-1 2"}


def test_recovery_tells_how_long_it_was() -> None:
    life = Life()
    life.run(found("a"))
    life.run(found("a"))
    details = life.run().transitions[0].details
    assert (details["duration_s"], details["reason"]) == (120.0, "recovered")


def test_state_is_replaced_and_cleared() -> None:
    """KI5, KE17: no merge; what is not returned is gone."""
    life = Life()
    life.run(InstanceReport("a", "default", state={"x": 1}), state={"n": 1})
    outcome = life.run(InstanceReport("a", "default", state={"y": 2}))
    assert outcome.instances[0].state == {"y": 2}
    assert outcome.state == {}


def test_every_variable_of_a_message() -> None:
    """KI8, KM3, KM4, KM5, KM6, KM7, KM2 to KM8, KM11."""
    body = (
        "{{context.server}} {{state.n}} {{alertId}} {{alertInstanceId}} {{alertName}} {{spaceId}} "
        "{{#tags}}{{.}},{{/tags}} {{params.p}} {{date}} {{alertActionGroup}} {{alertActionGroupName}} "
        "{{alertActionSubgroup}}"
    )
    life = Life(spec(actions=(Action("default", "m", {"body": body}),), params={"p": 0.5}))
    report = InstanceReport("i", "default", {"server": "s"}, {"n": 80.0}, subgroup="sub")
    (message,) = life.run(report).notifications
    assert message.params == {
        "body": "s 80 123 i cpu alert acme infra,cpu, 0.5 2027-01-15T08:00:00.000000Z default High sub"
    }


def test_messages_tell_since_when_it_is_active_and_for_how_long() -> None:
    """As of the run's scheduled time; a recovery tells the whole of it, and what is new begins anew."""
    body = "{{alertInstanceStartedAt}} {{alertInstanceDurationSeconds}}"
    life = Life(
        spec(actions=tuple(Action(group, "m", {"body": body}) for group in ("default", "critical", "recovered")))
    )
    runs = [[found("a")], [found("a")], [found("a", "critical")], [], [found("a")]]
    assert [message.params for run in runs for message in life.run(*run).notifications] == [
        {"body": "2027-01-15T08:00:00.000000Z 0"},
        {"body": "2027-01-15T08:00:00.000000Z 60"},
        {"body": "2027-01-15T08:00:00.000000Z 120"},
        {"body": "2027-01-15T08:00:00.000000Z 180"},
        {"body": "2027-01-15T08:04:00.000000Z 0"},
    ]


def test_messages_name_their_action() -> None:
    """Several actions of one group are several messages, told apart by their index."""
    twice = Action("default", "m", {"body": "x"})
    life = Life(spec(actions=(twice, Action("critical", "p", {}), twice)))
    outcome = life.run(found("a"))
    assert [(n.action_index, n.configuration_id) for n in outcome.notifications] == [(0, "m"), (2, "m")]


def test_a_message_that_cannot_be_rendered_says_why() -> None:
    """XD27: the run goes on, the message carries its error."""
    life = Life(spec(actions=(Action("default", "m", {"body": "{{context.big}}"}),)))
    outcome = life.run(InstanceReport("a", "default", {"big": "<" * 60_000}), found("b"))
    assert "characters" in outcome.notifications[0].error
    assert outcome.notifications[0].params is None
    assert outcome.notifications[1].error == ""


@pytest.mark.parametrize(
    ("reports", "reason", "words"),
    [
        ([found("a", "unknown")], RunErrorReason.EXECUTE, "unknown group 'unknown'"),
        ([found("a", "recovered")], RunErrorReason.EXECUTE, "unknown group 'recovered'"),
        ([found("a"), found("a")], RunErrorReason.EXECUTE, "twice"),
        ([found("a"), found("a", None)], RunErrorReason.EXECUTE, "twice"),
        ([found("")], RunErrorReason.EXECUTE, "empty or too long"),
        ([found("x" * 1025)], RunErrorReason.EXECUTE, "empty or too long"),
        ([found("a", when=float("nan"))], RunErrorReason.EXECUTE, "not JSON"),
        ([found("a", when=object())], RunErrorReason.EXECUTE, "not JSON"),
        ([InstanceReport("a", "default", state=[])], RunErrorReason.EXECUTE, "not an object"),  # type: ignore[arg-type]
        ([found("a", big="x" * 65_536)], RunErrorReason.LIMIT, "larger than 65536"),
        (
            [InstanceReport("a", "default", state={"x": "x" * 10_000_000})],
            RunErrorReason.LIMIT,
            "larger than 65536",
        ),
    ],
)
def test_a_report_that_cannot_be_used_fails_the_run(
    reports: list[InstanceReport], reason: RunErrorReason, words: str
) -> None:
    """XE4, KI3: unknown groups, an instance twice, 10 MB of state, NaN."""
    with pytest.raises(RunFailure, match=words) as failure:
        Life().run(*reports)
    assert failure.value.error.reason is reason


def test_a_run_with_a_report_that_cannot_be_used_keeps_everything() -> None:
    life = Life()
    before = life.run(found("a"))
    claim = Claim("acme", "123", "test", 2, life.at, life.at, 0)
    run = Run(claim, ALERT, life.memory, T0)
    raised: list[Exception] = []

    def outcome_of(report: Report) -> RunOutcome:
        alert_type = replace(TYPE, executor=lambda context: report)
        return attempt(lambda: perform(run, alert_type, MemoryLog()), run, raised.append)

    outcome = outcome_of(Report((found("a", "unknown"),)))
    assert outcome.instances == before.instances
    assert outcome.error is not None
    assert outcome.error.reason is RunErrorReason.EXECUTE
    assert outcome_of(Report()).status is AlertStatus.OK
    assert raised == []  # it was foreseen: nothing for the server's log


def test_at_the_limit_nothing_recovers() -> None:
    """Trap 8: what is known stays, new ones come as long as there is room."""
    life = Life()
    life.run(found("known-1"), found("known-2"))
    many = [found(f"new-{n:05}") for n in range(10_000)]
    outcome = life.run(found("known-1"), *many)
    assert len(outcome.instances) == INSTANCES_MAX
    assert {"known-1", "known-2"} < {i.id for i in outcome.instances}
    assert outcome.status is AlertStatus.ERROR
    assert outcome.error is not None
    assert outcome.error.reason is RunErrorReason.LIMIT
    assert not [t for t in told(outcome) if t.startswith("recovered")]
    assert told(life.run(found("known-1"), limit_reached=True)) == []
    assert len(told(life.run(found("known-1")))) == INSTANCES_MAX - 1


def test_a_million_instances_are_cut_before_they_are_read() -> None:
    """XE4: in seconds of work, and what is cut off is not even looked at; what is wrong with ids is found in all."""
    life = Life()
    life.run(found("known-1"), found("known-2"))
    no_json: dict[str, Any] = {"x": object()}
    many = [InstanceReport(f"new-{n:07}", "default", {} if n < INSTANCES_MAX else no_json) for n in range(1_000_000)]
    began = time.thread_time()
    outcome = life.run(*many, found("known-1"))
    assert time.thread_time() - began < 10
    assert outcome.error is not None
    assert (outcome.status, outcome.error.reason) == (AlertStatus.ERROR, RunErrorReason.LIMIT)
    new = [f"new-{n:07}" for n in range(INSTANCES_MAX - 2)]
    assert sorted(one.id for one in outcome.instances) == ["known-1", "known-2", *new]
    assert told(outcome) == [f"new_instance {id}" for id in new]
    with pytest.raises(RunFailure, match="'new-0999999' was reported twice"):
        life.run(*many, many[-1])
    with pytest.raises(RunFailure, match="context of instance 'new-0001000' is not JSON"):
        life.run(many[INSTANCES_MAX])


def test_closing_tells_each_instance_and_nobody() -> None:
    """Trap 7: disabling leaves no ghost."""
    life = Life()
    outcome = life.run(found("a"), found("b"))
    closed = close(outcome.instances, T0 + MINUTE, "disabled")
    assert [(t.kind.value, t.details["instance_id"], t.details["reason"]) for t in closed] == [
        ("recovered_instance", "a", "disabled"),
        ("recovered_instance", "b", "disabled"),
    ]


def test_a_transition_as_an_event() -> None:
    life = Life()
    event = own_event(ALERT, life.run(found("a")).transitions[0], T0)
    assert (event.account, event.type) == ("acme", "system.alerting.new_instance")
    assert (event.resource_type, event.resource_id) == ("alert", "123")
    assert event.message == "Alert 'cpu alert': instance a is active (High)"
    assert event.details == {
        "alert_id": "123",
        "alert_name": "cpu alert",
        "alert_type_id": "example.cpu",
        "scheduled_at": "2027-01-15T08:00:00.000000Z",
        "instance_id": "a",
        "action_group": "default",
    }


def test_the_texts_of_transitions_name_groups_and_say_why() -> None:
    def says(context: dict[str, Any], group: str = "default", subgroup: str = "") -> list[str]:
        outcome = life.run(InstanceReport("a", group, context, subgroup=subgroup))
        return [t.message for t in outcome.transitions if t.kind is not TransitionKind.STATUS_CHANGED]

    life = Life()
    assert says({"reason": "load is 7"}) == ["instance a is active (High): load is 7"]
    assert says({"reason": 1}, subgroup="slow") == []
    assert says({"reason": ""}, subgroup="fast") == ["instance a went from High, slow to High, fast"]
    assert says({"reason": "x" * 9000}, "critical") == [f"instance a went from High, fast to Critical: {'x' * 500}"]


def test_the_same_run_twice_gives_the_same_outcome() -> None:
    """XE5: what a crash makes us repeat is equal, whatever the order of the report."""
    life = Life()
    life.run(found("a"), found("gone"))
    memory, at = life.memory, life.at
    reports = [found("b"), found("a", "critical"), found("c")]
    once = advance(ALERT, TYPE, memory, Report(tuple(reports)), at)
    again = advance(ALERT, TYPE, memory, Report(tuple(reversed(reports))), at)
    assert once == again
