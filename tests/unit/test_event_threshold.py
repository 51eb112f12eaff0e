"""`.event-threshold`: what it asks of the log, and what it reports of the answer."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from tocsin_server.alert_types import discover
from tocsin_server.alert_types._instances import MISSING, instance_id
from tocsin_server.alert_types.event_threshold import ALERT_TYPE
from tocsin_server.domain.aggregation import EventQuestion, Group
from tocsin_server.domain.alerting import Report
from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.event_log import Level
from tocsin_server.domain.schedule import SECOND_US
from tocsin_server.domain.selection import EventFilter

from tests.support.executors import MINUTE, DecidedLog, Runs, T, saved


def run(params: dict[str, Any], *counts: tuple[tuple[str, ...], int]) -> tuple[Report, EventQuestion]:
    log = DecidedLog([Group(values, count, count) for values, count in counts])
    report = Runs(ALERT_TYPE, params, log).run()
    (asked,) = log.asked
    return report, asked


def test_discovery_finds_it() -> None:
    assert ALERT_TYPE in discover()


def test_the_window_ends_at_the_scheduled_time() -> None:
    """Half-open, by the events' own time; only what was stored before the run's time."""
    _, asked = run({"window": "5m", "threshold": 1}, ((), 0))
    assert asked.events == EventFilter(account="acme", since=T - 5 * MINUTE, before=T)
    assert asked.created_before == T


def test_a_query_delay_moves_the_window() -> None:
    _, asked = run({"window": "5m", "query_delay": "30s", "threshold": 1}, ((), 0))
    assert (asked.events.since, asked.events.before) == (
        T - 5 * MINUTE - 30 * SECOND_US,
        T - 30 * SECOND_US,
    )
    assert asked.created_before == T


def test_the_source_becomes_a_filter() -> None:
    source = {
        "event_types": ["image.*"],
        "subtypes": ["s"],
        "levels": ["error"],
        "resource_types": ["image_tag"],
        "resource_ids": ["r"],
        "services": ["v"],
        "hosts": ["h"],
    }
    _, asked = run({"window": "1h", "threshold": 1, "source": source}, ((), 0))
    chosen = asked.events
    assert (chosen.types, chosen.subtypes, chosen.levels) == (("image.*",), ("s",), (Level.ERROR,))
    assert (chosen.resource_types, chosen.resource_ids) == (("image_tag",), ("r",))
    assert (chosen.services, chosen.hosts) == (("v",), ("h",))


@pytest.mark.parametrize(
    ("comparator", "threshold", "bounds"),
    [
        (">", 3, (4, None)),
        (">", 2.5, (3, None)),
        (">=", 3, (3, None)),
        (">=", 2.5, (3, None)),
        ("<", 3, (0, 2)),
        ("<", 2.5, (0, 2)),
        ("<=", 3, (0, 3)),
        ("<=", 2.5, (0, 2)),
        ("between", [2, 4], (2, 4)),
        ("between", [1.5, 4.5], (2, 4)),
    ],
)
def test_comparators_are_bounds_of_a_count(comparator: str, threshold: object, bounds: tuple[int, int | None]) -> None:
    params = {"window": "1m", "comparator": comparator, "threshold": threshold}
    low, high = bounds
    for count in range(7):
        report, asked = run(params, ((), count))
        assert (asked.at_least, asked.at_most) == bounds
        assert bool(report.instances) == (low <= count and (high is None or count <= high))


def test_one_instance_when_it_is_not_grouped() -> None:
    report, _ = run({"window": "5m", "threshold": 3}, ((), 4))
    (instance,) = report.instances
    assert (instance.id, instance.group) == ("*", "default")
    assert instance.context == {
        "value": 4,
        "count": 4,
        "sample_events": [],
        "threshold": 3,
        "comparator": ">=",
        "group": {},
        "window": {"start": "2027-01-15T07:55:00.000000Z", "end": "2027-01-15T08:00:00.000000Z"},
        "reason": "4 events in 5m: >= 3",
    }


def test_one_instance_per_group() -> None:
    params = {"window": "5m", "threshold": 1, "group_by": ["resource_id", "host"]}
    report, asked = run(params, (("nginx:1", "h1"), 1), (("a/b", ""), 2))
    assert asked.group_by == ("resource_id", "host")
    assert [i.id for i in report.instances] == ["nginx:1/h1", "a%2Fb/_missing"]
    assert report.instances[0].context["group"] == {"resource_id": "nginx:1", "host": "h1"}
    assert report.instances[0].context["reason"] == "1 event in 5m with resource_id nginx:1, host h1: >= 1"
    assert report.instances[1].context["reason"] == "2 events in 5m with resource_id a/b, host unset: >= 1"


@pytest.mark.parametrize(
    ("values", "id"),
    [
        ((), "*"),
        (("docker.io/acme/payments:2.4",), "docker.io/acme/payments:2.4"),
        (("100% é",), "100% é"),
        (("",), "_missing"),
        (("docker.io/acme/payments:2.4", "50%", "h 1"), "docker.io%2Facme%2Fpayments:2.4/50%25/h 1"),
        (("", "h1"), "_missing/h1"),
    ],
)
def test_instance_ids_are_readable(values: tuple[str, ...], id: str) -> None:
    assert instance_id(values) == id


@pytest.mark.parametrize("size", [1, 2])
def test_instance_ids_never_collide(size: int) -> None:
    """Trap 11: slashes, unicode, empty values, the words of our own and what they become, a kilobyte."""
    values = ["a", "b", "a/b", "b/c", "/", "", "é", "%", "%25", "%2F", "x" * 1024, "x" * 1023 + "y"]
    values += ["*", "%2A", "%252A", MISSING, "%5Fmissing", "%255Fmissing", "%25255Fmissing", "_missing_"]
    groups = [(), *product(values, repeat=size)]
    ids = [instance_id(values) for values in groups]
    assert len(set(ids)) == len(ids)
    assert max(len(id) for id in ids) == 1024


def test_no_value_can_be_the_id_that_another_one_got_for_its_length() -> None:
    long = instance_id(("x" * 1024, "h"))
    assert instance_id((long,)) != long
    assert instance_id((long, "h")) != long


def test_more_groups_than_allowed_reach_the_limit() -> None:
    """Trap 8: the report says that it is not whole."""
    params = {"window": "5m", "threshold": 1, "group_by": ["host"], "max_groups": 2}
    report, asked = run(params, (("a",), 9), (("b",), 8), (("c",), 7))
    assert asked.limit == 3
    assert [i.id for i in report.instances] == ["a", "b"]
    assert report.limit_reached
    assert not run(params, (("a",), 9), (("b",), 8))[0].limit_reached


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"threshold": 1}, "alert.params"),
        ({"window": "5m"}, "alert.params.threshold"),
        (
            {"window": "5m", "threshold": 1, "severities": [{"group": "critical", "threshold": 2}]},
            "alert.params.threshold",
        ),
        ({"window": "5m", "severities": []}, "alert.params.severities"),
        ({"window": "5m", "severities": [{"group": "no_data", "threshold": 2}]}, "alert.params.severities[0].group"),
        ({"window": "5m", "severities": [{"group": "warning"}]}, "alert.params.severities[0]"),
        (
            {"window": "5m", "severities": [{"group": "warning", "comparator": "between", "threshold": [2, 1]}]},
            "alert.params.severities[0].threshold",
        ),
        (
            {"window": "5m", "severities": [{"group": "warning", "threshold": [1, 2]}]},
            "alert.params.severities[0].threshold",
        ),
        (
            {
                "window": "5m",
                "severities": [{"group": "warning", "threshold": 5}, {"group": "critical", "threshold": 9}],
            },
            "alert.params.severities[1]",
        ),
        (
            {"window": "5m", "severities": [{"group": "warning", "threshold": -1}]},
            "alert.params.severities[0].threshold",
        ),
        ({"window": "5m", "threshold": 1, "recovery": {"threshold": 1}}, "alert.params.recovery"),
        (
            {"window": "5m", "threshold": 1, "recovery": {"comparator": "between", "threshold": 1}},
            "alert.params.recovery.threshold",
        ),
        ({"window": "5m", "threshold": [1, 2], "comparator": ">"}, "alert.params.threshold"),
        ({"window": "5m", "threshold": [3, 2], "comparator": "not_between"}, "alert.params.threshold"),
        ({"window": "5m", "threshold": 1, "aggregation": "p49"}, "alert.params.aggregation"),
        ({"window": "5m", "threshold": 1, "aggregation": "p100"}, "alert.params.aggregation"),
        ({"window": "5m", "threshold": 1, "aggregation": "avg"}, "alert.params.field"),
        ({"window": "5m", "threshold": 1, "aggregation": "avg", "field": "host"}, "alert.params.field"),
        ({"window": "5m", "threshold": 1, "aggregation": "avg", "field": "labels.x"}, "alert.params.field"),
        ({"window": "5m", "threshold": 1, "aggregation": "distinct", "field": "colour"}, "alert.params.field"),
        ({"window": "5m", "threshold": 1, "field": "details.ms"}, "alert.params.field"),
        ({"window": "5m", "threshold": 1, "min_events": 0}, "alert.params.min_events"),
        ({"window": "5m", "threshold": 1, "no_data": "page"}, "alert.params.no_data"),
        ({"window": "5m", "threshold": 1, "no_data_max": "32d"}, "alert.params.no_data_max"),
        ({"window": "5m", "threshold": 1, "sample_events": 21}, "alert.params.sample_events"),
        ({"window": "5m", "threshold": 1, "missing_group": "keep"}, "alert.params.missing_group"),
        ({"window": "5m", "threshold": 1, "group_by": ["details."]}, "alert.params.group_by[0]"),
        ({"window": "5m", "threshold": 1, "group_by": ["details.a..b"]}, "alert.params.group_by[0]"),
        ({"window": "5m", "threshold": 1, "group_by": ["labels."]}, "alert.params.group_by[0]"),
        ({"window": "5m", "threshold": 1, "group_by": ["details" + ".a" * 17]}, "alert.params.group_by[0]"),
        ({"window": "5m", "threshold": 1, "group_by": ["details." + "a" * 300]}, "alert.params.group_by[0]"),
        ({"window": "5m", "threshold": 1, "source": {"where": "event.message =="}}, "alert.params.source.where"),
        ({"window": "0s", "threshold": 1}, "alert.params.window"),
        ({"window": "32d", "threshold": 1}, "alert.params.window"),
        ({"window": "5m\n", "threshold": 1}, "alert.params.window"),
        ({"window": "5m", "threshold": 1, "query_delay": "16m"}, "alert.params.query_delay"),
        ({"window": "5m", "threshold": 1, "query_delay": "x"}, "alert.params.query_delay"),
        ({"window": "5m", "threshold": [1, 2]}, "alert.params.threshold"),
        ({"window": "5m", "threshold": -1}, "alert.params.threshold"),
        ({"window": "5m", "threshold": 1, "comparator": "between"}, "alert.params.threshold"),
        ({"window": "5m", "threshold": [3, 2], "comparator": "between"}, "alert.params.threshold"),
        ({"window": "5m", "threshold": 1, "comparator": "!="}, "alert.params.comparator"),
        ({"window": "5m", "threshold": 1, "group_by": ["message"]}, "alert.params.group_by[0]"),
        ({"window": "5m", "threshold": 1, "group_by": ["host", "host"]}, "alert.params.group_by"),
        (
            {
                "window": "5m",
                "threshold": 1,
                "group_by": ["host", "type", "service", "subtype", "user_id"],
            },
            "alert.params.group_by",
        ),
        ({"window": "5m", "threshold": 1, "max_groups": 1001}, "alert.params.max_groups"),
        ({"window": "5m", "threshold": 1, "max_groups": 0}, "alert.params.max_groups"),
        ({"window": "5m", "threshold": 1, "colour": "red"}, "alert.params.colour"),
        (
            {"window": "5m", "threshold": 1, "source": {"event_types": ["A"]}},
            "alert.params.source.event_types[0]",
        ),
        ({"window": "5m", "threshold": 1, "source": {"levels": ["warn"]}}, "alert.params.source.levels[0]"),
        ({"window": "5m", "threshold": 1, "source": {"hosts": [""]}}, "alert.params.source.hosts[0]"),
        ({"window": "5m", "threshold": 1, "source": {"users": []}}, "alert.params.source.users"),
        ({"window": "5m", "threshold": 1, "source": {"hosts": ["h"] * 101}}, "alert.params.source.hosts"),
    ],
)
def test_every_bound_of_the_params(params: dict[str, Any], path: str) -> None:
    with pytest.raises(TocsinError) as refused:
        saved(ALERT_TYPE, params)
    assert [v.path for v in refused.value.violations] == [path]
