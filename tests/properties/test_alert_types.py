"""The built-in alert types against models that are as simple as can be: a few lines, no windows, no questions."""

from __future__ import annotations

import statistics
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tocsin_server.alert_types._conditions import COMPARATORS, PAIRED, Condition, hidden
from tocsin_server.alert_types.event_absence import ALERT_TYPE as ABSENCE
from tocsin_server.alert_types.event_spike import ALERT_TYPE as SPIKE
from tocsin_server.alert_types.event_threshold import ALERT_TYPE as THRESHOLD
from tocsin_server.domain.aggregation import PERCENTILES, EventQuestion, Group, aggregate, aggregated
from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.selection import EventFilter

from tests.support.executors import MINUTE, DecidedLog, MemoryLog, Runs, Seen, T, saved

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(st.one_of(st.integers(-(2**53), 2**53), FLOATS), min_size=1, max_size=30)
HOSTS = st.sampled_from(["a", "b", "c"])
SMALL = st.integers(-3, 12)
PAIRS = st.tuples(SMALL, SMALL).map(sorted)


@st.composite
def condition(draw: st.DrawFn) -> dict[str, Any]:
    comparator = draw(st.sampled_from(COMPARATORS))
    halves = draw(st.booleans())
    threshold: Any = draw(PAIRS) if comparator in PAIRED else draw(SMALL)
    if halves and comparator not in PAIRED:
        threshold += 0.5
    return {"comparator": comparator, "threshold": threshold}


# --- aggregates --------------------------------------------------------------------------------


@given(NUMBERS, st.randoms())
def test_an_aggregate_is_exact_and_has_no_order(numbers: list[float], chance: Any) -> None:
    shuffled = list(numbers)
    chance.shuffle(shuffled)
    for aggregation in ("sum", "avg", "min", "max", *PERCENTILES):
        assert aggregated(aggregation, numbers) == aggregated(aggregation, shuffled)
    exact = sum(map(Fraction, numbers), Fraction(0))
    total = aggregated("sum", numbers)
    average = aggregated("avg", numbers)
    assert total is not None
    assert average is not None
    if abs(exact) < Fraction(1e308):
        assert total == float(exact)
        assert float(average) == pytest.approx(float(exact / len(numbers)), rel=1e-15)
    assert abs(total) < float("inf")


@given(NUMBERS, st.sampled_from(list(PERCENTILES.items())))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    numbers: list[float], percentile: tuple[str, int]
) -> None:
    name, percent = percentile
    enough = [n for n in numbers if sum(other <= n for other in numbers) * 100 >= percent * len(numbers)]
    assert aggregated(name, numbers) == min(enough)


ROWS = st.lists(
    st.tuples(st.tuples(st.sampled_from(["", "a", "b"])), st.sampled_from([None, "", "x", "5", 5, 1.5, True]))
)


@given(ROWS, st.booleans(), st.integers(1, 3), st.integers(1, 3))
def test_groups_are_counted_as_one_would_by_hand(rows: list[Any], drop: bool, at_least: int, limit: int) -> None:
    asked = EventQuestion(
        EventFilter(None), 0, ("host",), "sum", "details.n", drop_missing=drop, at_least=at_least, limit=limit
    )
    expected = []
    for value in ("", "a", "b"):
        numbers = [n for (host,), n in rows if host == value and type(n) in (int, float)]
        if len(numbers) >= at_least and not (drop and not value):
            expected.append(Group((value,), len(numbers), sum(numbers)))
    expected.sort(key=lambda group: (-group.count, group.values))
    assert aggregate(asked, rows) == expected[:limit]


@given(condition(), st.integers(0, 20))
def test_the_bounds_of_a_condition_hold_every_count_that_meets_it(given_: dict[str, Any], count: int) -> None:
    one = Condition.of(given_)
    low, high = one.counts()
    inside = low <= count and (high is None or count <= high)
    assert inside or not one.meets(count)
    if one.comparator != "not_between":
        assert inside == one.meets(count)


# --- thresholds --------------------------------------------------------------------------------

MEETS = {
    ">": lambda value, t: value > t,
    ">=": lambda value, t: value >= t,
    "<": lambda value, t: value < t,
    "<=": lambda value, t: value <= t,
    "between": lambda value, t: t[0] <= value <= t[1],
    "not_between": lambda value, t: value < t[0] or value > t[1],
}


@given(st.lists(condition(), min_size=1, max_size=3), st.none() | condition(), st.lists(SMALL, max_size=15))
def test_severities_with_hysteresis(severities: list[Any], recovery: Any, values: list[int]) -> None:
    unreached = set(hidden([Condition.of(one) for one in severities], counts=False))  # such are refused
    severities = [one for place, one in enumerate(severities) if place not in unreached]
    names = ["critical", "warning", "default"]
    params: dict[str, Any] = {
        "window": "5m",
        "aggregation": "max",
        "field": "details.n",
        "severities": [{**one, "group": name} for one, name in zip(severities, names, strict=False)],
    }
    if recovery:
        params["recovery"] = recovery
    log = DecidedLog([])
    runs = Runs(THRESHOLD, params, log)
    group = ""
    for value in values:
        log.groups = [Group((), 1, value)]
        met = [
            name
            for one, name in zip(severities, names, strict=False)
            if MEETS[one["comparator"]](value, one["threshold"])
        ]
        held = group and recovery and not MEETS[recovery["comparator"]](value, recovery["threshold"])
        group = met[0] if met else group if held else ""
        assert runs.groups().get("*", "") == group


EVENTS = st.lists(st.tuples(st.integers(0, 59), HOSTS), max_size=40)


def log_of(events: list[tuple[int, str]]) -> MemoryLog:
    return MemoryLog([Seen(T + minute * MINUTE, host) for minute, host in events])


@given(EVENTS, st.integers(1, 5), condition())
def test_counts_per_group(events: list[tuple[int, str]], window: int, one: dict[str, Any]) -> None:
    """Pushing bounds down to the read changes no verdict."""
    if min(one["threshold"]) < 0 if isinstance(one["threshold"], list) else one["threshold"] < 0:
        return
    runs = Runs(THRESHOLD, {"window": f"{window}m", "group_by": ["host"], **one}, log_of(events))
    for now in range(0, 64, 7):
        counts = {host: sum(h == host and now - window <= m < now for m, h in events) for host in "abc"}
        expected = {h for h, n in counts.items() if n and MEETS[one["comparator"]](n, one["threshold"])}
        assert set(runs.groups(T + now * MINUTE)) == expected


# --- absence -----------------------------------------------------------------------------------


@given(EVENTS, st.integers(1, 5), st.integers(1, 3), st.sampled_from([None, 10, 20]))
def test_absence_of_what_was_heard_of(
    events: list[tuple[int, str]], window: int, threshold: int, forget: int | None
) -> None:
    """Silent is what was heard of before and is not now; once active it stays so until it is back or forgotten."""
    seen_within = 15
    params: dict[str, Any] = {
        "window": f"{window}m", "group_by": ["host"], "threshold": threshold, "seen_within": f"{seen_within}m",
    }  # fmt: skip
    if forget:
        params["forget_after"] = f"{forget}m"
    runs = Runs(ABSENCE, params, log_of(events))
    active: set[str] = set()
    for now in range(0, 90, 4):
        before = active
        active = set()
        for host in "abc":
            minutes = [m for m, h in events if h == host and m < now]
            known = host in before or any(m >= now - seen_within for m in minutes)
            silent = sum(m >= now - window for m in minutes) < threshold
            gone = forget is not None and minutes and now - max(minutes) >= forget
            if known and silent and not gone:
                active.add(host)
        assert set(runs.groups(T + now * MINUTE)) == active


@given(EVENTS, st.integers(1, 5), st.integers(1, 3))
def test_absence_of_what_is_expected(events: list[tuple[int, str]], window: int, threshold: int) -> None:
    params = {"window": f"{window}m", "group_by": ["host"], "threshold": threshold, "expected": ["a", ["z"]]}
    runs = Runs(ABSENCE, params, log_of(events))
    for now in range(0, 70, 5):
        counts = {host: sum(h == host and now - window <= m < now for m, h in events) for host in "az"}
        assert set(runs.groups(T + now * MINUTE)) == {host for host, n in counts.items() if n < threshold}


# --- spikes ------------------------------------------------------------------------------------


@given(
    EVENTS,
    st.integers(1, 4),
    st.sampled_from([1.5, 2, 3]),
    st.sampled_from(["up", "down", "both"]),
    st.sampled_from(["previous", "5m", "10m"]),
    st.integers(1, 4),
    st.sampled_from(["wait", "alert"]),
)
def test_spikes(
    events: list[tuple[int, str]], window: int, height: float, way: str, reference: str, windows: int, new: str
) -> None:
    params = {
        "window": f"{window}m", "group_by": ["host"], "height": height, "direction": way, "reference": reference,
        "reference_windows": windows, "min_current": 2, "min_reference": 1, "new_group": new,
    }  # fmt: skip
    runs = Runs(SPIKE, params, MemoryLog(log_of(events).events, since=T))
    step = window if reference == "previous" else int(reference[:-1])

    def count(host: str, end: int) -> int:
        return sum(h == host and end - window <= m < end for m, h in events)

    for now in range(0, 64, 3):
        runs.run(T + now * MINUTE)
        expected = {}
        for host in "abc":
            current = count(host, now)
            past = statistics.median(count(host, now - step * n) for n in range(1, windows + 1))
            if past < 1:
                up, down = current >= 2 and new == "alert", False
            else:
                up, down = current >= 2 and current / past >= height, current * height <= past
            if now - window - step * windows < 0:
                continue  # the log does not go back that far
            if up and way != "down":
                expected[host] = "up"
            elif down and way != "up":
                expected[host] = "down"
        assert {id: one.subgroup for id, one in runs.active.items()} == expected


# --- any params --------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "5m",
        "0s",
        "9999999999d",
        "1d",
        "previous",
        "count",
        "p95",
        "keep",
        "drop",
        "up",
        "host",
        "details.n",
        "x",
        "",
        "é\n",
    ]
)
SCALARS = st.one_of(WORDS, st.integers(-2, 2000), st.floats(allow_nan=False), st.booleans(), st.none())
ANY = st.recursive(SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(WORDS, below, max_size=2))


PLAUSIBLE: dict[str, Any] = {
    "aggregation": st.sampled_from(["sum", "distinct", "p95"]),
    "field": st.sampled_from(["details.n", "host"]),
    "group_by": st.sampled_from([["host"], ["details.n", "labels.x"]]),
    "expected": st.sampled_from([["a"], [["a", "b"]]]),
    "severities": st.lists(condition().map(lambda one: {**one, "group": "warning"}), max_size=2),
    "recovery": condition(),
    "threshold": SMALL,
    "source": st.sampled_from([{"hosts": ["a"]}, {"levels": ["info"]}]),
}
REQUIRED: list[tuple[Any, dict[str, Any]]] = [(THRESHOLD, {"threshold": 1}), (ABSENCE, {}), (SPIKE, {"height": 2})]


@given(st.data())
def test_params_are_refused_or_they_run(data: st.DataObject) -> None:
    """No params make a fault of the server's of themselves: not when they are saved, not in a run."""
    alert_type, params = data.draw(st.sampled_from(REQUIRED))
    params = {"window": "5m", **params}
    properties = alert_type.params_schema["properties"]
    for name in data.draw(st.lists(st.sampled_from(sorted(properties)), unique=True, max_size=3)):
        likely = properties[name].get("enum") or [properties[name].get("default", "5m")]
        fitting = PLAUSIBLE.get(name, st.sampled_from(likely))
        params[name] = data.draw(st.one_of(*[fitting] * 9, ANY))
    try:
        complete = saved(alert_type, params)
    except TocsinError as refused:
        assert refused.violations
        return
    log = log_of([(0, "a"), (3, "b"), (58, "a")])
    Runs(alert_type, complete, log).run(T + 60 * MINUTE)
