"""Who is told in a run: every combination of mode, throttle, mute, silence and change, and a year of them."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import replace

import pytest
from tocsin_server.domain.alerting import Action, AlertStatus, InstanceReport, NotifyWhen, RunErrorReason
from tocsin_server.domain.schedule import Due, Ticks

from tests.support.lives import MINUTE, T0, Life, found, sent, spec, told, verdicts

MODES = list(NotifyWhen)
THROTTLES = ["", "10m"]
MUTES = ["", "all", "instance", "another"]
CHANGES = {"none": ("default", "x"), "group": ("critical", "x"), "subgroup": ("default", "y")}
COMBINATIONS = list(itertools.product(MODES, THROTTLES, MUTES, (False, True), CHANGES))


@pytest.mark.parametrize(("mode", "throttle", "mute", "is_silenced", "change"), COMBINATIONS)
def test_every_combination(mode: NotifyWhen, throttle: str, mute: str, is_silenced: bool, change: str) -> None:
    """KI6, trap 1 (muted is silent on a change too): the second run of one that was told in the first."""
    alert = spec(notify_when=mode, throttle=throttle)
    life = Life(alert)
    assert verdicts(life.run(found("a", "default", "x"))) == {"a": "FIRST"}
    life.alert = replace(
        alert, mute_all=mute == "all", muted_instance_ids={"instance": ("a",), "another": ("b",)}.get(mute, ())
    )
    outcome = life.run(found("a", *CHANGES[change]), silenced=["a"] if is_silenced else [])
    unchanged = {
        NotifyWhen.ON_ACTIVE_ALERT: "EVERY_RUN",
        NotifyWhen.ON_ACTION_GROUP_CHANGE: "UNCHANGED",
        NotifyWhen.ON_THROTTLE_INTERVAL: "THROTTLED" if throttle else "THROTTLE_ENDED",
    }
    expected = "GROUP_CHANGED" if change != "none" else unchanged[mode]
    if mute in ("all", "instance"):
        expected = "MUTED"
    if is_silenced:
        expected = "SILENCED"
    assert verdicts(outcome) == {"a": expected}
    if expected in ("MUTED", "THROTTLED", "UNCHANGED"):
        assert not outcome.notifications


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by", ["mute", "silence"])
def test_what_was_held_back_is_told_once_it_is_over(mode: NotifyWhen, by: str) -> None:
    """What becomes active or changes its group meanwhile is told at the end; the throttle's clock has not moved."""
    alert = spec(notify_when=mode, throttle="1h")
    life = Life(replace(alert, mute_all=by == "mute"))
    held = ["a"] if by == "silence" else []
    for _ in range(3):
        assert not [n for n in life.run(found("a"), silenced=held).notifications if not n.silence_id]
    life.alert = alert
    assert verdicts(life.run(found("a"))) == {"a": "FIRST"}
    life.alert = replace(alert, mute_all=by == "mute")
    assert not [n for n in life.run(found("a", "critical"), silenced=held).notifications if not n.silence_id]
    life.alert = alert
    assert verdicts(life.run(found("a", "critical"))) == {"a": "GROUP_CHANGED"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by", ["mute", "silence"])
def test_a_change_of_sub_group_that_was_held_back_is_told_once_it_is_over(mode: NotifyWhen, by: str) -> None:
    """KI7: a spike that went from up to down meanwhile is not believed to be up."""
    alert = spec(notify_when=mode, throttle="1h")
    life = Life(alert)
    life.run(found("a", "default", "up"))
    life.alert = replace(alert, mute_all=by == "mute")
    for _ in range(2):
        life.run(found("a", "default", "down"), silenced=["a"] if by == "silence" else [])
    life.alert = alert
    assert verdicts(life.run(found("a", "default", "down"))) == {"a": "GROUP_CHANGED"}
    assert verdicts(life.run(found("a", "default", "down"))) != {"a": "GROUP_CHANGED"}


def test_a_silence_keeps_what_would_have_been_told_and_no_more() -> None:
    """The throttle spaces what is kept for recovery by hand as it would have spaced what is told."""
    life = Life(spec(throttle="3m"))
    kept = [bool(life.run(found("a"), silenced=["a"]).notifications) for _ in range(7)]
    assert kept == [True, False, False, True, False, False, True]
    assert life.memory.instances["a"].notified is None


@pytest.mark.parametrize(("group", "subgroup"), [("default", "down"), ("critical", "up")])
def test_a_change_under_a_silence_is_kept_once(group: str, subgroup: str) -> None:
    """Whether of the group or of the sub-group: after it the throttle spaces what is kept."""
    life = Life(spec(throttle="3m"))
    life.run(found("a", "default", "up"))
    kept = [bool(life.run(found("a", group, subgroup), silenced=["a"]).notifications) for _ in range(5)]
    assert kept == [True, False, False, True, False]


def test_a_recovery_obeys_mutes_and_silences_and_is_not_told_later() -> None:
    """Trap 5: recovery ignores the throttle but obeys mute and silence."""
    alert = spec(throttle="1h")
    for quiet, silenced, verdict in (
        (replace(alert, mute_all=True), [], "MUTED"),
        (replace(alert, muted_instance_ids=("a",)), [], "MUTED"),
        (alert, ["a"], "SILENCED"),
        (alert, [], "RECOVERED"),
    ):
        life = Life(alert)
        life.run(found("a"))
        life.alert = quiet
        outcome = life.run(silenced=silenced)
        assert verdicts(outcome) == {"a": verdict}
        assert [n.group for n in outcome.notifications if not n.silence_id] == (
            ["recovered"] if verdict == "RECOVERED" else []
        )
        life.alert = alert
        assert verdicts(life.run()) == {}


def test_a_year_of_a_one_minute_alert() -> None:
    """Trap 9 over a year, in under a minute of work: nothing drifts or is lost, however late runs begin.

    Of the pure parts: ticks, what is due and what comes after it, as a claim and the end of a run reckon them, the life
    cycle and who is told. The store, claims and `Execution` take part in days of it, in
    `tests/service/test_alert_schedule.py`.
    """
    began = time.thread_time()
    ticks, chance = Ticks.of("123", MINUTE), random.Random(9)
    life = Life(spec(throttle="1h"))
    next_run_at = first = ticks.newest(T0)
    minutes, told, recovered = 365 * 24 * 60, 0, 0
    for minute in range(minutes):
        due = ticks.due(next_run_at, next_run_at + chance.randrange(MINUTE))
        assert due == Due(first + minute * MINUTE, 0)
        life.at = due.scheduled_at
        # Active for 23 h 50 min of each day.
        outcome = life.run(*([found("a")] if minute % 1440 < 1430 else []))
        groups = [group for _, group in sent(outcome)]
        told += groups.count("default")
        recovered += groups.count("recovered")
        next_run_at = ticks.after(due.scheduled_at)
    assert (told, recovered) == (365 * 24, 365)
    assert time.thread_time() - began < 60


# --- more messages than one run schedules ------------------------------------------------------

PAIRS = tuple(Action(group, id, {"body": "x"}) for group in ("default", "recovered") for id in ("mail", "page"))


def crowd(*names: str) -> list[InstanceReport]:
    return [found(name) for name in names]


@pytest.fixture
def five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two instances with two messages each, and one message that nothing fits into."""
    monkeypatch.setattr("tocsin_server.domain.decisions.RUN_MESSAGES_MAX", 5)


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize("mode", [NotifyWhen.ON_ACTION_GROUP_CHANGE, NotifyWhen.ON_THROTTLE_INTERVAL])
def test_what_does_not_fit_into_a_run_is_told_by_the_next(mode: NotifyWhen) -> None:
    """Whole instances, each once, and none is lost: activity, then recovery."""
    life = Life(spec(notify_when=mode, throttle="1h", actions=PAIRS))
    first = life.run(*crowd("a", "b", "c"))
    assert verdicts(first) == {"a": "FIRST", "b": "FIRST", "c": "DEFERRED"}
    assert sent(first) == [("a", "default")] * 2 + [("b", "default")] * 2
    assert told(first) == ["new_instance a", "new_instance b", "new_instance c"]
    second = life.run(*crowd("a", "b", "c"))
    assert sent(second) == [("c", "default")] * 2
    third = life.run()
    assert verdicts(third) == {"a": "RECOVERED", "b": "RECOVERED", "c": "DEFERRED"}
    assert told(third) == ["recovered_instance a", "recovered_instance b"]
    assert (third.status, [one.id for one in third.instances]) == (AlertStatus.ACTIVE, ["c"])
    fourth = life.run()
    assert told(fourth) == ["recovered_instance c"]
    assert sent(fourth) == [("c", "recovered")] * 2
    assert (fourth.status, fourth.instances) == (AlertStatus.OK, ())


@pytest.mark.usefixtures("five")
def test_those_that_every_run_tells_take_turns() -> None:
    life = Life(spec(actions=PAIRS))
    runs = [life.run(*crowd("a", "b", "c", "d", "e")) for _ in range(5)]
    assert [sorted({name for name, _ in sent(outcome)}) for outcome in runs] == [
        ["a", "b"],
        ["c", "d"],
        ["a", "e"],
        ["b", "c"],
        ["a", "d"],
    ]


@pytest.mark.usefixtures("five")
def test_a_change_that_does_not_fit_is_told_by_the_next_run() -> None:
    life = Life(spec(notify_when=NotifyWhen.ON_ACTION_GROUP_CHANGE, actions=PAIRS))
    for _ in range(2):
        life.run(*(found(name, "default", "up") for name in "abc"))
    turned = [found(name, "default", "down") for name in "abc"]
    assert verdicts(life.run(*turned)) == {"a": "GROUP_CHANGED", "b": "GROUP_CHANGED", "c": "DEFERRED"}
    assert verdicts(life.run(*turned)) == {"a": "UNCHANGED", "b": "UNCHANGED", "c": "GROUP_CHANGED"}


@pytest.mark.usefixtures("five")
def test_what_a_silence_withholds_keeps_nobody_waiting_for_long() -> None:
    """It takes room in a run, gives way to those that waited, and is kept once."""
    life = Life(spec(notify_when=NotifyWhen.ON_ACTION_GROUP_CHANGE, actions=PAIRS))
    runs = [life.run(*crowd("a", "b", "c", "d"), silenced=["a", "b"]) for _ in range(3)]
    assert verdicts(runs[0]) == {"a": "SILENCED", "b": "SILENCED", "c": "DEFERRED", "d": "DEFERRED"}
    assert verdicts(runs[1]) == {"a": "DEFERRED", "b": "DEFERRED", "c": "FIRST", "d": "FIRST"}
    assert verdicts(runs[2]) == {"a": "SILENCED", "b": "SILENCED", "c": "UNCHANGED", "d": "UNCHANGED"}
    assert [sorted({n.instance_id for n in one.notifications}) for one in runs] == [["a", "b"], ["c", "d"], []]


@pytest.mark.usefixtures("five")
def test_a_group_without_actions_waits_for_no_room() -> None:
    life = Life(spec(actions=PAIRS))
    outcome = life.run(*crowd("a", "b"), found("c", "critical"), found("d"))
    assert verdicts(outcome) == {"a": "FIRST", "b": "FIRST", "c": "FIRST", "d": "DEFERRED"}


@pytest.mark.usefixtures("five")
def test_what_waits_to_recover_counts_among_the_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood that changes with every run is bounded, and its end is told all the same."""
    monkeypatch.setattr("tocsin_server.domain.instances.INSTANCES_MAX", 3)
    life = Life(spec(notify_when=NotifyWhen.ON_ACTION_GROUP_CHANGE, actions=PAIRS))
    life.run(*crowd("a", "b", "c"))
    outcome = life.run(*crowd("d", "e", "f"))
    assert verdicts(outcome) == {
        "a": "RECOVERED",
        "b": "DEFERRED",
        "c": "RECOVERED",  # it waited for a run already
        "d": "DEFERRED",
        "e": "DEFERRED",
    }
    assert outcome.error is not None
    assert outcome.error.reason is RunErrorReason.LIMIT
    assert "until those that wait have been told of their recovery" in outcome.error.message
    assert told(life.run(*crowd("d", "e"))) == ["recovered_instance b"]
