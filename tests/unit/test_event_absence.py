"""`.event-absence`: what is missed, since when, and when it is given up."""

from __future__ import annotations

from typing import Any

import pytest
from tocsin_server.alert_types import event_absence
from tocsin_server.alert_types.event_absence import ALERT_TYPE
from tocsin_server.domain.aggregation import Group
from tocsin_server.domain.alerting import RunErrorReason
from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.instances import RunFailure

from tests.support.executors import DAY, HOUR, MINUTE, DecidedLog, MemoryLog, Runs, Seen, T, saved

BY_HOST: dict[str, Any] = {"window": "5m", "group_by": ["host"]}


def test_everything_has_fallen_silent() -> None:
    """Without group_by there is one instance, on an empty log too: a switch that waits for life is none."""
    (one,) = Runs(ALERT_TYPE, {"window": "5m"}).run().instances
    assert (one.id, one.group) == ("*", "default")
    assert one.context["reason"] == "no events in 5m, none in 7d"
    log = MemoryLog([Seen(T - MINUTE)])
    assert Runs(ALERT_TYPE, {"window": "5m"}, log).run(T).instances == ()
    (one,) = Runs(ALERT_TYPE, {"window": "5m"}, log).run(T + HOUR).instances
    assert one.context["last_seen"] == "2027-01-15T07:59:00.000000Z"
    assert one.context["reason"] == "no events in 5m, the last one at 2027-01-15T07:59:00.000000Z"


def test_what_is_said_of_a_silent_group() -> None:
    log = MemoryLog([Seen(T - MINUTE, "a"), Seen(T - MINUTE, "a"), Seen(T - MINUTE, "b")])
    (one,) = Runs(ALERT_TYPE, {**BY_HOST, "threshold": 2, "sample_events": 5}, log).run().instances
    assert one.id == "b"
    assert (one.context["value"], one.context["count"], one.context["threshold"]) == (1, 1, 2)
    assert one.context["group"] == {"host": "b"}
    assert str(one.context["reason"]).startswith("1 event in 5m with host b, the last one at ")
    assert len(one.context["sample_events"]) == 1  # type: ignore[arg-type]
    assert one.state == {"last_seen_us": T - MINUTE}
    declared = {variable.name.split(".")[0] for variable in ALERT_TYPE.action_variables.context}
    assert set(one.context) == declared


def test_it_stays_active_beyond_what_is_looked_back_at() -> None:
    """Until its events are back; that it was heard of is remembered with the instance."""
    log = MemoryLog([Seen(T - MINUTE, "a")])
    runs = Runs(ALERT_TYPE, {**BY_HOST, "seen_within": "1h"}, log)
    assert runs.groups(T) == {}
    assert runs.groups(T + 10 * MINUTE) == {"a": "default"}
    assert runs.groups(T + 9 * DAY) == {"a": "default"}
    assert runs.active["a"].state == {"last_seen_us": T - MINUTE}
    log.events.append(Seen(T + 9 * DAY, "a"))
    assert runs.run(T + 9 * DAY + MINUTE).forgotten == frozenset()
    assert runs.active == {}


def test_after_a_while_a_group_is_not_missed_any_more() -> None:
    """It is forgotten, which is not the same as being well again; and it does not come up anew."""
    log = MemoryLog([Seen(T - MINUTE, "a")])
    runs = Runs(ALERT_TYPE, {**BY_HOST, "forget_after": "1h"}, log)
    assert runs.groups(T + 58 * MINUTE) == {"a": "default"}
    last = runs.run(T + 59 * MINUTE)
    assert last.instances == ()
    assert last.forgotten == {"a"}
    assert runs.groups(T + 2 * HOUR) == {}


def test_what_is_expected_is_missed_though_it_never_came() -> None:
    params = {"window": "5m", "group_by": ["host", "type"], "expected": [["a", "x.y"], ["b", "x.y"]]}
    log = MemoryLog([Seen(T - MINUTE, "a", type="x.y"), Seen(T - MINUTE, "c", type="x.y")])
    runs = Runs(ALERT_TYPE, params, log)
    assert runs.groups() == {"b/x.y": "default"}
    assert {question.events.hosts for question in log.asked} == {("a", "b")}  # no more than that is read


def test_a_source_of_its_own_is_not_widened_by_what_is_expected() -> None:
    params = {**BY_HOST, "expected": ["a", "b"], "source": {"hosts": ["a"]}}
    log = MemoryLog([Seen(T - MINUTE, "a"), Seen(T - MINUTE, "b")])
    assert Runs(ALERT_TYPE, params, log).groups() == {"b": "default"}


def test_groups_that_were_not_all_read_are_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 8: a group that was cut off would look silent, and one that recovers would too."""
    monkeypatch.setattr(event_absence, "GROUPS_READ_MAX", 2)
    log = DecidedLog([Group((name,), 1, T) for name in "abc"])
    with pytest.raises(RunFailure) as failed:
        Runs(ALERT_TYPE, BY_HOST, log).run()
    assert failed.value.error.reason is RunErrorReason.LIMIT


def test_more_silent_groups_than_instances() -> None:
    """Trap 8."""
    log = MemoryLog([Seen(T - HOUR, f"h{n}") for n in range(4)])
    report = Runs(ALERT_TYPE, {**BY_HOST, "max_groups": 3}, log).run()
    assert (len(report.instances), report.limit_reached) == (3, True)


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "alert.params"),
        ({"window": "32d"}, "alert.params.window"),
        ({"window": "5m", "threshold": 0}, "alert.params.threshold"),
        ({"window": "5m", "threshold": 1.5}, "alert.params.threshold"),
        ({"window": "5m", "expected": ["a"]}, "alert.params.expected[0]"),
        ({**BY_HOST, "expected": ["a", ["b", "c"]]}, "alert.params.expected[1]"),
        ({**BY_HOST, "expected": [5]}, "alert.params.expected[0]"),
        ({**BY_HOST, "expected": [["a"], ["b", None]]}, "alert.params.expected[1][1]"),
        ({**BY_HOST, "expected": [[]]}, "alert.params.expected[0]"),
        ({**BY_HOST, "expected": ["x" * 1025]}, "alert.params.expected[0]"),
        ({**BY_HOST, "expected": "a"}, "alert.params.expected"),
        ({**BY_HOST, "expected": ["a", "a"]}, "alert.params.expected"),
        ({**BY_HOST, "seen_within": "32d"}, "alert.params.seen_within"),
        ({**BY_HOST, "seen_within": "9999999999d"}, "alert.params.seen_within"),
        ({"window": "9999999999d", "expected": ["a"]}, "alert.params.window"),
        ({**BY_HOST, "seen_within": "1m"}, "alert.params.seen_within"),
        ({**BY_HOST, "forget_after": "1m"}, "alert.params.forget_after"),
        ({**BY_HOST, "forget_after": "366d"}, "alert.params.forget_after"),
        ({**BY_HOST, "forget_after": "1h", "expected": ["a"]}, "alert.params.forget_after"),
        ({"window": "5m", "forget_after": "1h"}, "alert.params.forget_after"),
        ({**BY_HOST, "group_by": ["colour"]}, "alert.params.group_by[0]"),
        ({**BY_HOST, "no_data": "keep"}, "alert.params.no_data"),
    ],
)
def test_every_bound_of_the_params(params: dict[str, Any], path: str) -> None:
    with pytest.raises(TocsinError) as refused:
        saved(ALERT_TYPE, params)
    assert [v.path for v in refused.value.violations] == [path]
