"""`.event-threshold`: severities, hysteresis, aggregates, what lacks data, what groups are made of."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tocsin_server.alert_types._conditions import Condition, hidden
from tocsin_server.alert_types._instances import MISSING, SAMPLES_READ_MAX
from tocsin_server.alert_types.event_threshold import ALERT_TYPE
from tocsin_server.domain.aggregation import GROUPS_READ_MAX, EventQuestion, Group
from tocsin_server.domain.alert_checks import checked, fitting
from tocsin_server.domain.alerting import Alert, AlertSpec
from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.variables import Json

from tests.support.executors import DAY, HOUR, MINUTE, DecidedLog, MemoryLog, Runs, Seen, T


def asked_of(params: dict[str, Any]) -> EventQuestion:
    log = DecidedLog([Group(("a",), 9, 9)])
    Runs(ALERT_TYPE, params, log).run()
    (asked,) = log.asked
    return asked


WARN_AND_PAGE = {
    "window": "5m",
    "severities": [
        {"group": "critical", "comparator": ">", "threshold": 100},
        {"group": "warning", "comparator": ">", "threshold": 80},
    ],
    "recovery": {"comparator": "<", "threshold": 60},
}


def test_severities_and_hysteresis() -> None:
    """The first that is met counts; what meets none stays where it is until it has recovered."""
    log = DecidedLog([])
    runs = Runs(ALERT_TYPE, WARN_AND_PAGE, log)
    seen = []
    for count in (70, 81, 70, 101, 100, 60, 59, 60, 120, 70, 10):
        log.groups = [Group((), count, count)]
        seen.append(runs.groups().get("*", ""))
    expected = ["", "warning", "warning", "critical", "warning", "warning", "", "", "critical", "critical", ""]
    assert seen == expected


def test_what_is_held_says_so() -> None:
    log = DecidedLog([Group((), 90, 90)])
    runs = Runs(ALERT_TYPE, WARN_AND_PAGE, log)
    runs.run()
    log.groups = [Group((), 70, 70)]
    (held,) = runs.run().instances
    assert held.context["reason"] == "70 events in 5m: not yet < 60"
    assert (held.context["value"], held.context["threshold"], held.context["comparator"]) == (70, 80, ">")


def test_bounds_are_asked_for_only_where_nothing_else_is_of_interest() -> None:
    """Counting stays as quick as it was: what no severity can meet is not answered."""
    severities = [
        {"group": "critical", "threshold": 9},
        {"group": "warning", "comparator": "between", "threshold": [2, 3]},
    ]
    plain: dict[str, Any] = {"window": "5m", "group_by": ["host"], "severities": severities}
    asked = asked_of(plain)
    assert (asked.at_least, asked.at_most, asked.limit) == (2, None, GROUPS_READ_MAX + 1)
    asked = asked_of({**plain, "min_events": 4})
    assert asked.at_least == 4
    for more in ({"no_data": "keep"}, {"recovery": {"comparator": "<", "threshold": 1}}):
        asked = asked_of({**plain, **more})
        assert (asked.at_least, asked.at_most, asked.limit) == (1, None, GROUPS_READ_MAX + 1)


def measured(*values: float, host: str = "h", at: int = T - MINUTE) -> list[Seen]:
    return [Seen(at, host, {"ms": value}) for value in values]


@pytest.mark.parametrize(
    ("aggregation", "value"),
    [("sum", 110), ("avg", 22), ("min", 1), ("max", 100), ("p50", 3), ("p80", 5), ("p81", 100), ("p99", 100)],
)
def test_aggregates_of_numbers(aggregation: str, value: float) -> None:
    params = {"window": "5m", "aggregation": aggregation, "field": "details.ms", "threshold": value}
    (one,) = Runs(ALERT_TYPE, params, MemoryLog(measured(100, 1, 3, 5, 1))).run().instances
    assert one.context["value"] == value


def test_distinct_values_of_any_field() -> None:
    log = MemoryLog([Seen(T - 1, host, {"user": user}) for host, user in [("a", 1), ("b", 1), ("c", None), ("", "x")]])
    for field_name, count in (("host", 3), ("details.user", 2)):
        params = {"window": "5m", "aggregation": "distinct", "field": field_name, "threshold": 1}
        (one,) = Runs(ALERT_TYPE, params, log).run().instances
        assert (one.context["value"], one.context["count"]) == (count, 3)


def test_events_without_a_number_are_not_measured() -> None:
    """They count neither in the aggregate nor for min_events."""
    odd: list[Json] = [None, {}, {"ms": "12"}, {"ms": True}, {"ms": None}, {"ms": {"a": 1}}, 5, [1]]
    log = MemoryLog([Seen(T - 1, "h", details) for details in odd] + measured(10, 20))
    params = {"window": "5m", "aggregation": "avg", "field": "details.ms", "threshold": 0, "min_events": 2}
    (one,) = Runs(ALERT_TYPE, params, log).run().instances
    assert (one.context["value"], one.context["count"]) == (15, 2)
    assert one.context["reason"] == "avg of details.ms is 15 over 2 events in 5m: >= 0"
    assert Runs(ALERT_TYPE, {**params, "min_events": 3}, log).run().instances == ()


@pytest.mark.parametrize(("rule", "groups"), [("recover", {}), ("keep", {"*": "default"}), ("alert", {"*": "no_data"})])
def test_no_data_of_everything(rule: str, groups: dict[str, str]) -> None:
    """After something was active and nothing comes any more."""
    params = {"window": "5m", "aggregation": "max", "field": "details.ms", "threshold": 1, "no_data": rule}
    runs = Runs(ALERT_TYPE, params, MemoryLog(measured(5)))
    assert runs.groups() == {"*": "default"}
    assert runs.groups(T + 10 * MINUTE) == groups
    assert runs.groups(T + 11 * MINUTE) == groups


def test_no_data_is_told_of_without_anything_before() -> None:
    params = {"window": "5m", "threshold": 1, "no_data": "alert"}
    (one,) = Runs(ALERT_TYPE, params).run().instances
    assert (one.group, one.context["value"], one.context["reason"]) == ("no_data", None, "no data: no events in 5m")


@pytest.mark.parametrize("rule", ["keep", "alert"])
def test_a_group_without_data_is_forgotten_in_the_end(rule: str) -> None:
    """It has not recovered: nobody is told that it is well."""
    params = {
        "window": "5m", "aggregation": "max", "field": "details.ms", "threshold": 1, "group_by": ["host"],
        "no_data": rule, "no_data_max": "1h",
    }  # fmt: skip
    group = {"keep": "default", "alert": "no_data"}[rule]
    log = MemoryLog(measured(5, host="a") + measured(5, host="b"))
    runs = Runs(ALERT_TYPE, params, log)
    assert runs.groups() == {"a": "default", "b": "default"}
    log.events += measured(7, host="b", at=T + 9 * MINUTE)
    assert runs.groups(T + 10 * MINUTE) == {"a": group, "b": "default"}
    assert runs.active["a"].context["group"] == {"host": "a"}
    last = runs.run(T + 10 * MINUTE + HOUR)
    assert last.forgotten == {"a"}
    assert runs.groups(T + DAY + 2 * HOUR) == {}


def test_a_group_with_too_few_events_has_no_data() -> None:
    params = {"window": "5m", "threshold": 3, "min_events": 3, "group_by": ["host"], "no_data": "alert"}
    log = MemoryLog([Seen(T - 1, "a")] * 2 + [Seen(T - 1, "b")] * 3)
    runs = Runs(ALERT_TYPE, params, log)
    assert runs.groups() == {"a": "no_data", "b": "default"}
    assert runs.active["a"].context["reason"] == "no data: 2 events in 5m with host a"


def test_no_group_is_without_data_while_not_all_were_read() -> None:
    """Trap 8: what was cut off may well have events."""
    params = {"window": "5m", "threshold": 1, "group_by": ["host"], "no_data": "alert"}
    log = MemoryLog([Seen(T - 1, "gone")])
    runs = Runs(ALERT_TYPE, params, log)
    runs.run()
    many = DecidedLog([Group((f"h{n}",), 1, 1) for n in range(GROUPS_READ_MAX + 1)])
    runs.log = many
    report = runs.run(T + HOUR)
    assert report.limit_reached
    assert "gone" not in {one.id for one in report.instances}
    assert not report.forgotten


def test_events_that_lack_a_field_can_be_dropped() -> None:
    log = MemoryLog([Seen(T - 1, "a"), Seen(T - 1, "")])
    params = {"window": "5m", "threshold": 1, "group_by": ["host"]}
    assert Runs(ALERT_TYPE, params, log).groups() == {"a": "default", MISSING: "default"}
    assert Runs(ALERT_TYPE, {**params, "missing_group": "drop"}, log).groups() == {"a": "default"}


def test_groups_of_labels_and_details() -> None:
    events = [
        Seen(T - 1, "a", {"code": code, "at": {"zone": "é/1"}}, {"team.x": "ops"}) for code in (1, 1.5, True, None)
    ]
    params = {"window": "5m", "threshold": 1, "group_by": ["labels.team.x", "details.at.zone", "details.code"]}
    runs = Runs(ALERT_TYPE, params, MemoryLog(events))
    assert list(runs.groups()) == ["ops/é%2F1/_missing", "ops/é%2F1/1", "ops/é%2F1/1.5", "ops/é%2F1/true"]
    first = cast(dict[str, Json], runs.active["ops/é%2F1/1"].context["group"])
    assert first == {"labels.team.x": "ops", "details.at.zone": "é/1", "details.code": "1"}


def test_any_value_makes_a_group() -> None:
    """Trap 11: slashes, unicode, empty, null, 10 KB; long ones stay apart by their hash."""
    values: list[Json] = ["a/b", "é", "", None, "x" * 10_000, "x" * 9_999 + "y", {"a": [1]}, "*", "_missing"]
    log = MemoryLog([Seen(T - 1, details={"v": value}) for value in values])
    runs = Runs(ALERT_TYPE, {"window": "5m", "threshold": 1, "group_by": ["details.v"]}, log)
    ids = set(runs.groups())
    assert len(ids) == len(values) - 1  # "" and null are both missing
    assert max(map(len, ids)) <= 1024
    assert ids >= {"a/b", "é", MISSING, '{"a":[1]}', "%2A", "%5Fmissing"}


def test_samples_are_the_newest_events_of_so_many_instances_as_may_be_read() -> None:
    params = {"window": "5m", "threshold": 1, "group_by": ["host"], "sample_events": 20}
    log = DecidedLog([Group((f"h{n}",), 1, 1) for n in range(30)])
    report = Runs(ALERT_TYPE, params, log).run()
    assert log.shown == [(SAMPLES_READ_MAX // 20, 20)]
    assert [len(cast(list[Json], i.context["sample_events"])) for i in report.instances] == [20] * 10 + [0] * 20
    first = cast(list[dict[str, str]], report.instances[0].context["sample_events"])[0]
    assert first == {"id": "e", "type": "t", "message": "m" * 300, "timestamp": "2027-01-15T08:00:00.000000Z"}


def test_all_that_an_instance_says_is_declared() -> None:
    """Templates are written from the list of variables."""
    declared = {variable.name.split(".")[0] for variable in ALERT_TYPE.action_variables.context}
    log = MemoryLog([Seen(T - 1, "a")])
    (one,) = Runs(ALERT_TYPE, {"window": "5m", "threshold": 1, "group_by": ["host"]}, log).run().instances
    assert set(one.context) == declared


NUMBERS = st.one_of(st.integers(-3, 6), st.sampled_from([0.5, 2.5]))
CONDITIONS = st.one_of(
    st.builds(Condition, st.sampled_from([">", ">=", "<", "<="]), st.tuples(NUMBERS)),
    st.builds(
        lambda comparator, pair: Condition(comparator, tuple(sorted(pair))),
        st.sampled_from(["between", "not_between"]),
        st.tuples(NUMBERS, NUMBERS),
    ),
)


@given(st.lists(CONDITIONS, max_size=5), st.booleans())
def test_a_severity_is_hidden_when_no_number_reaches_it(found: list[Condition], counts: bool) -> None:
    numbers: list[float] = list(range(12)) if counts else [n / 4 for n in range(-40, 48)]
    reached = {next((i for i, one in enumerate(found) if one.meets(number)), None) for number in numbers}
    possible = {i for i, one in enumerate(found) if any(map(one.meets, numbers))}
    assert set(hidden(found, counts)) == possible - reached


def test_an_alert_that_had_a_hidden_severity_before_it_was_refused_goes_on() -> None:
    severities: list[Json] = [{"group": "warning", "threshold": 5}, {"group": "critical", "threshold": 9}]
    spec = AlertSpec("n", ".event-threshold", "c", "1m", params={"window": "5m", "severities": severities})
    with pytest.raises(TocsinError):
        checked(spec, ALERT_TYPE)
    stored = Alert("acme", "a1", 1, True, spec, "u", "u", 0, 0)
    assert fitting(stored, ALERT_TYPE).spec.params["severities"]
