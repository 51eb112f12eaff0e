"""Alert types and alerts: what can be registered, what can be saved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tocsin_server.domain.alert_checks import checked, params_violations
from tocsin_server.domain.alerting import (
    Action,
    ActionGroup,
    AlertSpec,
    AlertType,
    AlertTypes,
    NotifyWhen,
    Report,
)
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.variables import Json

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["limit"],
    "additionalProperties": False,
    "properties": {
        "limit": {"type": "number"},
        "unit": {"enum": ["percent", "bytes"], "default": "percent"},
        "where": {
            "type": "object",
            "default": {},
            "properties": {"hosts": {"type": "array", "default": []}},
            "patternProperties": {"^x-": {}},
            "additionalProperties": False,
        },
    },
}
CPU = AlertType(
    id="example.cpu-usage",
    name="CPU usage",
    executor=lambda context: Report(),
    params_schema=SCHEMA,
    action_groups=(ActionGroup("default", "High"), ActionGroup("critical", "Critical")),
    default_action_group_id="default",
)
SPEC = AlertSpec(name="cpu", alert_type_id=CPU.id, consumer="ops", params={"limit": 0.8})


def refused(spec: AlertSpec) -> tuple[Reason, dict[str, str]]:
    with pytest.raises(TocsinError) as error:
        checked(spec, CPU)
    return error.value.reason, {v.path: v.description for v in error.value.violations}


def test_what_is_left_open_is_filled_in() -> None:
    """KR5, KR8, KA1: default interval, default params, the default group of an action that names none."""
    saved = checked(replace(SPEC, actions=(Action("", "c1", {}), Action("recovered", "c1", {}))), CPU)
    assert saved.interval == "1m"
    assert saved.params == {"limit": 0.8, "unit": "percent", "where": {"hosts": []}}
    assert [action.group for action in saved.actions] == ["default", "recovered"]


@pytest.mark.parametrize(
    ("notify_when", "throttle", "effective"),
    [
        (None, "", NotifyWhen.ON_ACTIVE_ALERT),
        (None, "5m", NotifyWhen.ON_THROTTLE_INTERVAL),
        (NotifyWhen.ON_ACTION_GROUP_CHANGE, "5m", NotifyWhen.ON_ACTION_GROUP_CHANGE),
        (NotifyWhen.ON_ACTIVE_ALERT, "5m", NotifyWhen.ON_ACTIVE_ALERT),
    ],
)
def test_what_an_unset_notify_when_means(notify_when: NotifyWhen | None, throttle: str, effective: NotifyWhen) -> None:
    assert replace(SPEC, notify_when=notify_when, throttle=throttle).notifies_when is effective


@pytest.mark.parametrize(
    ("params", "path", "words"),
    [
        ({}, "alert.params", "'limit' is a required property"),
        ({"limit": "much"}, "alert.params.limit", "not of type 'number'"),
        ({"limit": 1, "unit": "miles"}, "alert.params.unit", "not one of"),
        ({"limit": 1, "more": 1}, "alert.params.more", "is unknown"),
        ({"limit": 1, "where": {"x-nodes": 5, "nodes": 5}}, "alert.params.where.nodes", "is unknown"),
        ({"limit": 1, "where": {"hosts": 5}}, "alert.params.where.hosts", "not of type 'array'"),
        ({"limit": "x" * 10_000}, "alert.params.limit", "'xxx"),
    ],
)
def test_params_are_checked_against_the_schema(params: dict[str, Json], path: str, words: str) -> None:
    """KR8: a violation names the path, and is short however long the value."""
    reason, violations = refused(replace(SPEC, params=params))
    assert reason is Reason.INVALID_FIELD
    assert words in violations[path]
    assert len(violations[path]) <= 300


def test_unknown_groups_are_refused_together() -> None:
    """KI8, KR4: groups are those of the type, and its recovery group."""
    actions = (Action("default", "c", {}), Action("warn", "c", {}), Action("page", "c", {}))
    reason, violations = refused(replace(SPEC, actions=actions))
    assert reason is Reason.INVALID_FIELD
    assert violations == {
        "alert.actions[1].group": "Invalid action groups: warn, page",
        "alert.actions[2].group": "Invalid action groups: warn, page",
    }


@pytest.mark.parametrize("text", ["0s", "1.5m", "1w", "366d"])
def test_durations_are_checked(text: str) -> None:
    """KD1, KD2, XE10."""
    assert set(refused(replace(SPEC, interval=text))[1]) == {"alert.schedule.interval"}
    assert set(refused(replace(SPEC, throttle=text))[1]) == {"alert.throttle"}


def test_templates_are_read_when_the_alert_is_saved() -> None:
    """XE11: the path of the string, the line and the column."""
    params = {"subject": "fine {{context.x}}", "lines": ["ok", "a\n{{open"]}
    reason, violations = refused(replace(SPEC, actions=(Action("", "c", params),)))
    assert reason is Reason.INVALID_TEMPLATE
    assert violations == {"alert.actions[0].params.lines[1]": "this tag is not closed by }} (line 2, column 1)"}


def test_a_check_of_the_types_own_names_its_path() -> None:
    """KR8: what a schema cannot say."""
    from tocsin_server.domain.errors import Violation

    strict = replace(CPU, check=lambda params: [Violation("limit", "too much")])
    assert params_violations(strict, {"limit": 1}, "alert.params") == [Violation("alert.params.limit", "too much")]


def test_types_are_found_by_id() -> None:
    """KR1: an unknown type is refused by its name; a second registration is a fault."""
    types = AlertTypes([CPU, replace(CPU, id="a.off", enabled=False)])
    assert [t.id for t in types] == ["a.off", "example.cpu-usage"]
    assert types.usable(CPU.id) is CPU
    with pytest.raises(TocsinError, match='Alert type "nope" is not registered') as unknown:
        types.usable("nope")
    assert unknown.value.reason is Reason.ALERT_TYPE_NOT_REGISTERED
    with pytest.raises(TocsinError) as disabled:
        types.usable("a.off")
    assert disabled.value.reason is Reason.ALERT_TYPE_DISABLED
    with pytest.raises(ValueError, match="already registered"):
        AlertTypes([CPU, CPU])


@pytest.mark.parametrize(
    "change",
    [
        {"id": "no spaces"},
        {"id": ""},
        {"default_action_group_id": "other"},
        {"recovery_action_group": ActionGroup("default", "Back to normal")},
        {"action_groups": (ActionGroup("default", "a"), ActionGroup("default", "b"))},
        {"default_interval": "1w"},
    ],
)
def test_a_type_that_contradicts_itself_is_not_registered(change: dict[str, Any]) -> None:
    """KR1, KR4, KR6."""
    with pytest.raises(ValueError, match=r"alert type|Invalid duration"):
        replace(CPU, **change)
