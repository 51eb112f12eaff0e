"""`.event-threshold`: a count or another aggregate of events, in all or per group, against thresholds.

    aggregation  count (of the events), distinct (values of `field`), or one of the numbers in `field`:
                 sum, avg, min, max, p50 .. p99
    severities   [{group, comparator, threshold}]: the first that a value meets gives the instance its
                 group. `comparator` and `threshold` alone are one severity, "default"
    recovery     {comparator, threshold}: an active instance whose value meets no severity any more stays
                 in its group until this is met (hysteresis)
    min_events   fewer events than this are too few to judge: no data
    no_data      what becomes of an instance without data: recover; keep as it is; alert, in the group
                 "no_data". After `no_data_max` a group that was kept, or told of, is forgotten

A group that has no events at all is not seen, unless it is active: "<" finds groups that have become
rare, not those that have fallen silent (`.event-absence` does). Without `group_by` a count of 0 is a
value like any other, as long as `no_data` is "recover" and `min_events` is not set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tocsin_server.alert_types import _conditions as conditions
from tocsin_server.alert_types._conditions import Condition
from tocsin_server.alert_types._instances import (
    common,
    events_told,
    instance_id,
    limited,
    named,
    told,
    values_of,
    with_samples,
)
from tocsin_server.alert_types._window import (
    CONTEXT,
    DURATION,
    WINDOW_MAX_US,
    Window,
    check_window,
    duration_violations,
    params_variables,
    question,
    schema,
    span_us,
)
from tocsin_server.domain.aggregation import (
    DETAILS,
    GROUPS_READ_MAX,
    NUMERIC,
    EventQuestion,
    Group,
    Number,
    field_fault,
)
from tocsin_server.domain.alerting import (
    ActionGroup,
    ActionVariable,
    ActionVariables,
    ActiveInstance,
    AlertType,
    InstanceReport,
    Params,
    Report,
    RunContext,
)
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.variables import Json, text_of

GROUPS = (
    ActionGroup("default", "Threshold met"),
    ActionGroup("warning", "Warning"),
    ActionGroup("critical", "Critical"),
    ActionGroup("no_data", "No data"),
)
DEFAULT, NO_DATA = "default", "no_data"
SEVERITIES_MAX = 8

_SEVERITY = {
    "type": "object",
    "additionalProperties": False,
    "required": ["group", "threshold"],
    "properties": {
        "group": {"enum": [group.id for group in GROUPS if group.id != NO_DATA]},
        "comparator": conditions.COMPARATOR,
        "threshold": conditions.THRESHOLD,
    },
    **conditions.FORM,
}
PARAMS_SCHEMA: Mapping[str, Any] = {
    **schema(
        {
            "aggregation": {
                "description": "count, sum, avg, min, max, distinct, p50 to p99.",
                "type": "string",
                "pattern": "^(count|sum|avg|min|max|distinct|p[5-9][0-9])$",
                "default": "count",
            },
            "field": {
                "description": "What is aggregated: numbers at details.<path>; distinct: any field.",
                "type": "string",
            },
            "comparator": {**conditions.COMPARATOR, "default": ">="},
            "threshold": conditions.THRESHOLD,
            "severities": {
                "description": "Instead of comparator and threshold; the first that is met counts.",
                "type": "array",
                "minItems": 1,
                "maxItems": SEVERITIES_MAX,
                "items": _SEVERITY,
            },
            "recovery": {
                "description": "What an active instance has to meet to recover.",
                "type": "object",
                "additionalProperties": False,
                "required": ["comparator", "threshold"],
                "properties": {"comparator": conditions.COMPARATOR, "threshold": conditions.THRESHOLD},
                **conditions.FORM,
            },
            "min_events": {
                "description": "Fewer are no data; 1 unless set.",
                "type": "integer",
                "minimum": 1,
                "maximum": 1_000_000,
            },
            "no_data": {"enum": ["recover", "keep", "alert"], "default": "recover"},
            "no_data_max": {
                "description": "How long a group without data is kept, 1s to 31d.",
                "type": "string",
                "pattern": DURATION,
                "default": "1d",
            },
        }
    ),
    **conditions.FORM,
}

_VARIABLES = ActionVariables(
    context=(
        ActionVariable("value", "What was compared: the count or the aggregate; nothing where there are no data."),
        ActionVariable("threshold", "The threshold that is met, or was met before."),
        ActionVariable("comparator", "The comparator beside it."),
        *CONTEXT,
    ),
    state=(ActionVariable("no_data_since", "Since when there are no data, microseconds since 1970."),),
    params=params_variables(PARAMS_SCHEMA),
)


@dataclass(frozen=True, slots=True)
class Severity:
    """A group, and what a value has to meet to be in it."""

    group: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class Rules:
    """What the params say of a value."""

    severities: tuple[Severity, ...]
    recovery: Condition | None
    min_events: int

    @classmethod
    def of(cls, params: Params) -> Rules:
        """Read the rules from params."""
        given = cast(Sequence[Mapping[str, Json]], params.get("severities") or [{**params, "group": DEFAULT}])
        recovery = cast("Mapping[str, Json] | None", params.get("recovery"))
        none_are_data = params["aggregation"] == "count" and not params["group_by"] and params["no_data"] == "recover"
        return cls(
            severities=tuple(Severity(str(one["group"]), Condition.of(one)) for one in given),
            recovery=Condition.of(recovery) if recovery else None,
            min_events=int(cast(Any, params.get("min_events", 0 if none_are_data else 1))),
        )

    def judge(self, value: Number, was: str | None) -> Severity | None:
        """Give the severity of a value, or the one in which its instance is held; `was` is its group so far."""
        for severity in self.severities:
            if severity.condition.meets(value):
                return severity
        if self.recovery is None or self.recovery.meets(value):
            return None
        return next((severity for severity in self.severities if severity.group == was), None)


def check(params: Params) -> Iterator[Violation]:
    """Find what the schema cannot say."""
    yield from check_window(params)
    yield from duration_violations(params, "no_data_max", WINDOW_MAX_US)
    yield from _field_violations(params)
    severities = cast(Sequence[Mapping[str, Json]], params.get("severities", ()))
    if bool(severities) == ("threshold" in params):
        yield Violation("threshold", "is required, unless there are severities; not both")
    given = {"threshold": params} if "threshold" in params else {}
    given |= {f"severities[{place}].threshold": one for place, one in enumerate(severities)}
    if "recovery" in params:
        given["recovery.threshold"] = cast(Params, params["recovery"])
    counts = params["aggregation"] in ("count", "distinct")
    for path, one in given.items():
        yield from conditions.order_violations(one, path)
        if counts and conditions.lowest(one) < 0:
            yield Violation(path, "is less than 0, which no count is")


def check_new(params: Params) -> Iterator[Violation]:
    """Find severities that can never be told."""
    severities = cast(Sequence[Mapping[str, Json]], params.get("severities", ()))
    counts = params["aggregation"] in ("count", "distinct")
    for place in conditions.hidden([Condition.of(one) for one in severities], counts):
        yield Violation(f"severities[{place}]", "is never reached: what meets it meets one before it")


def _field_violations(params: Params) -> Iterator[Violation]:
    aggregation, field = str(params["aggregation"]), str(params.get("field", ""))
    if aggregation == "count":
        if field:
            yield Violation("field", "a count has none")
    elif not field:
        yield Violation("field", f"is required for {aggregation}")
    elif field_fault(field):
        yield Violation("field", str(field_fault(field)))
    elif aggregation in NUMERIC and not field.startswith(DETAILS):
        yield Violation("field", "numbers stand at details.<path>")


def execute(context: RunContext) -> Report:
    """Aggregate, and report the groups whose value meets a severity or is held in one."""
    params, rules = context.params, Rules.of(context.params)
    window, most = Window.of(params, context.scheduled_at), int(cast(Any, params["max_groups"]))
    asked = _question(context, rules, window, most)
    groups = context.events.aggregate(asked)
    reached = len(groups) >= asked.limit
    judged = [group for group in groups if group.value is not None and group.count >= rules.min_events]
    found = [(group.values, report) for group in judged if (report := _judged(context, rules, group, window))]
    forgotten: frozenset[str] = frozenset()
    if params["no_data"] != "recover":
        few = [group for group in groups if group.value is None or group.count < rules.min_events]
        # A group beyond what was read is no group without data.
        known = few if reached else few + _absent(context, groups)
        found += [(group.values, report) for group in known if (report := _without_data(context, group, window))]
        forgotten = frozenset(id for group in known if _expired(context, id := instance_id(group.values)))
    return limited(Report(with_samples(context, asked, found), forgotten=forgotten), most, reached)


def _absent(context: RunContext, groups: Sequence[Group]) -> list[Group]:
    """Give the active groups that no event was found of."""
    seen = {instance_id(group.values) for group in groups}
    gone = (values_of(_fields(context), was) for id, was in context.previous.items() if id not in seen)
    return [Group(values, 0, None) for values in gone if values is not None]


def _question(context: RunContext, rules: Rules, window: Window, most: int) -> EventQuestion:
    """Ask for all groups, or only for those that can meet a severity, where nothing else is of interest."""
    params = context.params
    aggregation, field = str(params["aggregation"]), str(params.get("field", ""))
    if aggregation != "count" or rules.recovery or params["no_data"] != "recover":
        return question(context, window, aggregation=aggregation, field=field, limit=GROUPS_READ_MAX + 1)
    bounds = [severity.condition.counts() for severity in rules.severities]
    highest = [high for _, high in bounds if high is not None]
    return question(
        context,
        window,
        at_least=max(rules.min_events, min(low for low, _ in bounds)),
        at_most=max(highest) if len(highest) == len(bounds) else None,
        limit=most + 1 if len(bounds) == 1 else GROUPS_READ_MAX + 1,
    )


def _judged(context: RunContext, rules: Rules, group: Group, window: Window) -> InstanceReport | None:
    """Report a group that was measured, if it is active."""
    id, value = instance_id(group.values), cast(Number, group.value)
    was = context.previous.get(id)
    severity = rules.judge(value, was.group if was else None)
    if severity is None:
        return None
    condition = severity.condition
    said: dict[str, Json] = {
        "value": value,
        "threshold": condition.threshold,
        "comparator": condition.comparator,
        **common(named(_fields(context), group.values), window, group.count),
    }
    verdict = str(condition) if condition.meets(value) else f"not yet {rules.recovery}"
    said["reason"] = f"{_measured(context.params, said)}: {verdict}"
    return InstanceReport(id=id, group=severity.group, context=said)


def _without_data(context: RunContext, group: Group, window: Window) -> InstanceReport | None:
    """Report a group about which nothing can be said, as the rule wants it."""
    id, rule = instance_id(group.values), context.params["no_data"]
    was = context.previous.get(id)
    if _expired(context, id):
        return None
    state: dict[str, Json] = {"no_data_since": _no_data_since(context, was)}
    if rule == "keep":
        return InstanceReport(id, was.group, was.context, state, was.subgroup) if was else None
    group_named = named(_fields(context), group.values)
    few = events_told(group.count) if group.count else "no events"
    said: dict[str, Json] = {
        "value": None,
        "threshold": None,
        "comparator": None,
        **common(group_named, window, group.count),
        "reason": f"no data: {few} in {context.params['window']}{told(group_named)}",
    }
    return InstanceReport(id, NO_DATA, said, state)


def _no_data_since(context: RunContext, was: ActiveInstance | None) -> int:
    since = was.state.get("no_data_since") if was else None
    return since if isinstance(since, int) else context.scheduled_at


def _expired(context: RunContext, id: str) -> bool:
    """Tell whether an active instance has been without data for so long that it is forgotten.

    One that stands for everything and is told of is not: it would be told of again in the next run.
    """
    was = context.previous.get(id)
    if was is None or (context.params["no_data"] == "alert" and not _fields(context)):
        return False
    return context.scheduled_at - _no_data_since(context, was) >= span_us(context.params, "no_data_max")


def _fields(context: RunContext) -> Sequence[str]:
    return cast(Sequence[str], context.params["group_by"])


def _measured(params: Params, said: Mapping[str, Json]) -> str:
    count, where = cast(int, said["count"]), told(cast(Mapping[str, Json], said["group"]))
    events = f"{events_told(count)} in {params['window']}{where}"
    if params["aggregation"] == "count":
        return events
    return f"{params['aggregation']} of {params['field']} is {text_of(said['value'])} over {events}"


ALERT_TYPE = AlertType(
    id=".event-threshold",
    name="Event threshold",
    executor=execute,
    params_schema=PARAMS_SCHEMA,
    action_groups=GROUPS,
    default_action_group_id=DEFAULT,
    action_variables=_VARIABLES,
    check=check,
    check_new=check_new,
)
