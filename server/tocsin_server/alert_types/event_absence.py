"""`.event-absence`: what should be heard of regularly has fallen silent (a dead man's switch).

    threshold     fewer events than this in the window are silence
    expected      [[value, ...], ...] or [value, ...]: the groups that have to be heard of, whether or not
                  they ever were. Without it those that were heard of within `seen_within` of the window's end
    forget_after  so long after its newest event a group is forgotten: it ends, and nobody is told that
                  it is well again

An instance stays active until its events are back. Without `group_by` there is one, for all events. What
was never heard of is silent from the first run on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

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
    strings,
)
from tocsin_server.domain.aggregation import GROUPS_READ_MAX, EventQuestion, Group
from tocsin_server.domain.alerting import (
    INSTANCES_MAX,
    ActionGroup,
    ActionVariable,
    ActionVariables,
    AlertType,
    InstanceReport,
    Params,
    Report,
    RunContext,
    RunErrorReason,
)
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.instances import RunFailure
from tocsin_server.domain.schedule import SECOND_US
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.variables import Json, time_text

FORGET_AFTER_MAX_US = 365 * 24 * 3600 * SECOND_US
# Columns that a filter can be narrowed by, where the expected groups are known.
CRITERIA = {"resource_id": "resource_ids", "service": "services", "host": "hosts", "user_id": "user_ids"}

_VALUE = {"type": "string", "maxLength": 1024}
PARAMS_SCHEMA = schema(
    {
        "threshold": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 1},
        "expected": {
            "description": "The groups that have to be heard of: a value each, or a list with one for each field.",
            "type": "array",
            "maxItems": INSTANCES_MAX,
            "uniqueItems": True,
            "items": {"anyOf": [_VALUE, {"type": "array", "items": _VALUE, "minItems": 1, "maxItems": 4}]},
            "default": [],
        },
        "seen_within": {
            "description": "How far back a group was heard of that is missed now, 1s to 31d.",
            "type": "string",
            "pattern": DURATION,
            "default": "7d",
        },
        "forget_after": {
            "description": "How long after its newest event a missed group is forgotten: its instance ends and nobody"
            " is told, up to 365d. Unset: it is missed until its events are back.",
            "type": "string",
            "pattern": DURATION,
        },
    }
)

_VARIABLES = ActionVariables(
    context=(
        ActionVariable("value", "How many events there were; the same as count."),
        ActionVariable("threshold", "How many there should have been."),
        ActionVariable("last_seen", "The newest event's time, RFC 3339; nothing where there was none in seen_within."),
        *CONTEXT,
    ),
    state=(ActionVariable("last_seen_us", "The newest event's time, microseconds since 1970."),),
    params=params_variables(PARAMS_SCHEMA),
)


def check(params: Params) -> Iterator[Violation]:
    """Find what the schema cannot say."""
    wrong = [
        *check_window(params),
        *duration_violations(params, "seen_within", WINDOW_MAX_US),
        *duration_violations(params, "forget_after", FORGET_AFTER_MAX_US),
    ]
    yield from wrong or _contradictions(params)


def _contradictions(params: Params) -> Iterator[Violation]:
    """Find params that are right each for itself and do not go together."""
    fields = len(strings(params["group_by"]))
    for place, values in enumerate(_expected(params)):
        if len(values) != fields:
            yield Violation(f"expected[{place}]", f"has {len(values)} values, group_by has {fields} fields")
    if span_us(params, "seen_within") < span_us(params, "window"):
        yield Violation("seen_within", "is shorter than the window")
    if "forget_after" in params:
        if not fields or params["expected"]:
            yield Violation("forget_after", "is for groups that are known because they were heard of")
        elif span_us(params, "forget_after") < span_us(params, "window"):
            yield Violation("forget_after", "is shorter than the window")


def _expected(params: Params) -> list[tuple[str, ...]]:
    given = cast(Sequence[Json], params["expected"])
    return [(one,) if isinstance(one, str) else strings(one) for one in given]


def execute(context: RunContext) -> Report:
    """Report the groups that should have been heard of and were not."""
    params, window = context.params, Window.of(context.params, context.scheduled_at)
    heard = _heard(context, window)
    known = _known(context, heard)
    counts = _counts(context, window, heard)
    threshold = int(cast(Any, params["threshold"]))
    silent = [values for values in known if counts.get(values, 0) < threshold]
    forgotten = {values for values in silent if _forgotten(context, values, known[values], window)}
    found = [
        (values, _instance(context, values, counts.get(values, 0), known[values], window))
        for values in silent
        if values not in forgotten
    ]
    report = Report(
        with_samples(context, question(context, window), found),
        forgotten=frozenset(instance_id(values) for values in forgotten),
    )
    return limited(report, int(cast(Any, params["max_groups"])), False)


def _heard(context: RunContext, window: Window) -> dict[tuple[str, ...], int]:
    """Read when each group was heard of last."""
    look_back = Window(window.before - span_us(context.params, "seen_within"), window.before)
    asked = _narrowed(context, question(context, look_back, aggregation="latest", limit=GROUPS_READ_MAX + 1))
    return {group.values: int(group.value) for group in _whole(context, asked) if group.value is not None}


def _counts(context: RunContext, window: Window, heard: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    """Count the events of each group in the window, or tell just whether there were any."""
    if context.params["threshold"] == 1:
        return {values: 1 for values, latest in heard.items() if latest >= window.since}
    asked = _narrowed(context, question(context, window, limit=GROUPS_READ_MAX + 1))
    return {group.values: group.count for group in _whole(context, asked)}


def _whole(context: RunContext, asked: EventQuestion) -> list[Group]:
    """Read all groups: one that is cut off would look silent."""
    groups = context.events.aggregate(asked)
    if len(groups) >= asked.limit:
        raise RunFailure(RunErrorReason.LIMIT, f"more than {GROUPS_READ_MAX} groups: narrow the source")
    return groups


def _narrowed(context: RunContext, asked: EventQuestion) -> EventQuestion:
    """Read only the groups that are expected, where an index finds them."""
    expected = _expected(context.params)
    events: EventFilter = asked.events
    for place, field in enumerate(asked.group_by):
        criterion = CRITERIA.get(field)
        values = {values[place] for values in expected}
        if expected and criterion and "" not in values and not getattr(events, criterion):
            narrow: dict[str, Any] = {criterion: tuple(sorted(values))}
            events = replace(events, **narrow)
    return replace(asked, events=events)


def _known(context: RunContext, heard: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], int | None]:
    """Give the groups that have to be heard of, each with the time when it was last."""
    fields, expected = strings(context.params["group_by"]), _expected(context.params)
    if not fields:
        return {(): heard.get(())}
    if expected:
        return {values: heard.get(values) for values in expected}
    known: dict[tuple[str, ...], int | None] = {}
    for was in context.previous.values():
        values = values_of(fields, was)
        if values is not None:
            before = was.state.get("last_seen_us")
            known[values] = before if isinstance(before, int) else None
    return known | dict(heard)


def _forgotten(context: RunContext, values: tuple[str, ...], latest: int | None, window: Window) -> bool:
    if "forget_after" not in context.params:
        return False
    was = context.previous.get(instance_id(values))
    since = latest if latest is not None else was.started_at if was else window.before
    return window.before - since >= span_us(context.params, "forget_after")


def _instance(
    context: RunContext, values: tuple[str, ...], count: int, latest: int | None, window: Window
) -> InstanceReport:
    params, group = context.params, named(strings(context.params["group_by"]), values)
    number = events_told(count) if count else "no events"
    last = f"the last one at {time_text(latest)}" if latest is not None else f"none in {params['seen_within']}"
    said: dict[str, Json] = {
        "value": count,
        "threshold": params["threshold"],
        "last_seen": None if latest is None else time_text(latest),
        **common(group, window, count),
        "reason": f"{number} in {params['window']}{told(group)}, {last}",
    }
    return InstanceReport(instance_id(values), "default", said, {"last_seen_us": latest})


ALERT_TYPE = AlertType(
    id=".event-absence",
    name="Event absence",
    executor=execute,
    params_schema=PARAMS_SCHEMA,
    action_groups=(ActionGroup("default", "Fallen silent"),),
    default_action_group_id="default",
    recovery_action_group=ActionGroup("recovered", "Heard of again"),
    action_variables=_VARIABLES,
    check=check,
)
