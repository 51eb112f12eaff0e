"""`.event-spike`: what is compared with what, and when there is no verdict."""

from __future__ import annotations

from typing import Any

import pytest
from tocsin_server.alert_types import event_spike
from tocsin_server.alert_types.event_spike import ALERT_TYPE
from tocsin_server.domain.aggregation import Group
from tocsin_server.domain.alerting import RunErrorReason
from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.instances import RunFailure

from tests.support.executors import DAY, HOUR, MINUTE, DecidedLog, MemoryLog, Runs, Seen, T, saved

SPIKE: dict[str, Any] = {"window": "5m", "height": 3}


def events(counts: dict[int, int], host: str = "") -> list[Seen]:
    """Give so many events in windows of five minutes before T: 0 is the newest."""
    return [Seen(T - (5 * n + 1) * MINUTE, host) for n, count in counts.items() for _ in range(count)]


def directions(params: dict[str, Any], counts: dict[int, int]) -> dict[str, str]:
    runs = Runs(ALERT_TYPE, {**SPIKE, **params}, MemoryLog(events(counts)))
    runs.run()
    return {id: instance.subgroup for id, instance in runs.active.items()}


@pytest.mark.parametrize(
    ("params", "counts", "found"),
    [
        ({}, {0: 6, 1: 2}, {"*": "up"}),  # as high as it has to be
        ({}, {0: 5, 1: 2}, {}),
        ({}, {0: 2, 1: 6}, {}),
        ({"direction": "down"}, {0: 2, 1: 6}, {"*": "down"}),
        ({"direction": "down"}, {0: 0, 1: 1}, {"*": "down"}),
        ({"direction": "down"}, {0: 6, 1: 2}, {}),
        ({"direction": "both"}, {0: 6, 1: 2}, {"*": "up"}),
        ({"direction": "both"}, {0: 2, 1: 6}, {"*": "down"}),
        ({"direction": "both"}, {0: 3, 1: 3}, {}),
        # A reference of nothing would make anything a spike.
        ({"direction": "both"}, {0: 9, 1: 0}, {}),
        ({"direction": "both"}, {0: 0, 1: 0}, {}),
        ({"new_group": "alert"}, {0: 9, 1: 0}, {"*": "up"}),
        ({"new_group": "alert", "direction": "down"}, {0: 9, 1: 0}, {}),
        ({"min_reference": 3}, {0: 9, 1: 2}, {}),
        ({"min_reference": 3}, {0: 9, 1: 3}, {"*": "up"}),
        ({"min_current": 10}, {0: 9, 1: 2}, {}),
        ({"min_current": 10, "new_group": "alert"}, {0: 9, 1: 0}, {}),
        # The median of the windows before, or of the same time earlier.
        ({"reference_windows": 3}, {0: 6, 1: 2, 2: 90, 3: 1}, {"*": "up"}),
        ({"reference_windows": 2}, {0: 6, 1: 3, 2: 2}, {}),
        ({"reference": "10m"}, {0: 6, 1: 90, 2: 2}, {"*": "up"}),
        ({"reference": "10m", "reference_windows": 2}, {0: 6, 2: 1, 3: 90, 4: 3}, {"*": "up"}),
    ],
)
def test_verdicts(params: dict[str, Any], counts: dict[int, int], found: dict[str, str]) -> None:
    assert directions(params, counts) == found


def test_what_is_said_of_a_spike() -> None:
    log = MemoryLog(events({0: 6, 1: 2}, "a") + events({0: 2, 1: 2}, "b"))
    params = {**SPIKE, "group_by": ["host"], "sample_events": 1}
    (one,) = Runs(ALERT_TYPE, params, log).run().instances
    assert (one.id, one.group, one.subgroup) == ("a", "default", "up")
    said = {name: one.context[name] for name in ("value", "count", "reference", "ratio", "direction", "height")}
    assert said == {"value": 6, "count": 6, "reference": 2, "ratio": 3, "direction": "up", "height": 3}
    assert one.context["reason"] == "6 events in 5m with host a: 3 times more than 2"
    declared = {variable.name.split(".")[0] for variable in ALERT_TYPE.action_variables.context}
    assert set(one.context) == declared


@pytest.mark.parametrize(
    ("params", "counts", "reason"),
    [
        ({"height": 1.5}, {0: 6, 1: 2}, "6 events in 5m: 3 times more than 2"),
        ({"height": 1.5}, {0: 7, 1: 3}, "7 events in 5m: 2.33 times more than 3"),
        ({"direction": "down"}, {0: 1, 1: 6}, "1 event in 5m: 6 times fewer than 6"),
        ({"direction": "down"}, {0: 0, 1: 6}, "0 events in 5m: 6 before"),
        ({"new_group": "alert"}, {0: 4, 1: 0}, "4 events in 5m: none before"),
        ({"new_group": "alert", "min_reference": 9}, {0: 4, 1: 5}, "4 events in 5m: 5 before"),
    ],
)
def test_the_sentence_has_the_ratio_that_there_is(params: dict[str, Any], counts: dict[int, int], reason: str) -> None:
    (one,) = Runs(ALERT_TYPE, {**SPIKE, **params}, MemoryLog(events(counts))).run().instances
    assert one.context["reason"] == reason


def test_no_verdict_before_the_log_reaches_back_far_enough() -> None:
    """Since the creation of the log, not of the process; the state says when there will be one."""
    log = MemoryLog(events({0: 9, 1: 1}), since=T - 10 * MINUTE + 1)
    runs = Runs(ALERT_TYPE, SPIKE, log)
    report = runs.run(T)
    assert report.instances == ()
    assert report.state == {"first_verdict_at": "2027-01-15T08:00:00.000001Z"}
    assert runs.groups(T + 1) == {"*": "default"}
    assert runs.state == {}
    assert Runs(ALERT_TYPE, SPIKE, MemoryLog([], since=None)).run().state == {}


def test_what_was_active_stays_so_while_there_is_no_verdict() -> None:
    """Trap 13: retention has taken the reference away; that is no recovery."""
    log = MemoryLog(events({0: 9, 1: 1}), since=0)
    runs = Runs(ALERT_TYPE, SPIKE, log)
    assert runs.groups(T) == {"*": "default"}
    before = runs.active["*"]
    log.since = T + HOUR
    assert runs.groups(T + HOUR) == {"*": "default"}
    assert runs.active["*"] == before


def test_groups_that_were_not_all_read_are_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 8."""
    monkeypatch.setattr(event_spike, "GROUPS_READ_MAX", 2)
    log = DecidedLog([Group((name,), 1, 1) for name in "abc"])
    with pytest.raises(RunFailure) as failed:
        Runs(ALERT_TYPE, {**SPIKE, "group_by": ["host"]}, log).run()
    assert failed.value.error.reason is RunErrorReason.LIMIT


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"window": "5m"}, "alert.params"),
        ({"window": "5m", "height": 1}, "alert.params.height"),
        ({**SPIKE, "direction": "sideways"}, "alert.params.direction"),
        ({**SPIKE, "reference": "soon"}, "alert.params.reference"),
        ({**SPIKE, "reference": "1m"}, "alert.params.reference"),
        ({**SPIKE, "reference": "9999999999d"}, "alert.params.reference"),
        ({**SPIKE, "window": "9999999999d"}, "alert.params.window"),
        ({**SPIKE, "reference": "7d", "reference_windows": 5}, "alert.params.reference"),
        ({**SPIKE, "window": "2d", "reference_windows": 28}, "alert.params.reference_windows"),
        ({**SPIKE, "reference_windows": 0}, "alert.params.reference_windows"),
        ({**SPIKE, "reference_windows": 29}, "alert.params.reference_windows"),
        ({**SPIKE, "min_current": 0}, "alert.params.min_current"),
        ({**SPIKE, "min_reference": 0}, "alert.params.min_reference"),
        ({**SPIKE, "new_group": "ignore"}, "alert.params.new_group"),
        ({**SPIKE, "threshold": 1}, "alert.params.threshold"),
    ],
)
def test_every_bound_of_the_params(params: dict[str, Any], path: str) -> None:
    with pytest.raises(TocsinError) as refused:
        saved(ALERT_TYPE, params)
    assert [v.path for v in refused.value.violations] == [path]


def test_weeks_can_be_compared() -> None:
    """The same time of four weeks: the longest that params allow is 31 days."""
    log = MemoryLog([Seen(T - MINUTE - 7 * DAY * week) for week in range(5) for _ in range(9 if week == 0 else 3)])
    params = {**SPIKE, "reference": "7d", "reference_windows": 4}
    assert Runs(ALERT_TYPE, params, log).groups() == {"*": "default"}
