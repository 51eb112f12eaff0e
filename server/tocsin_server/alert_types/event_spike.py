"""`.event-spike`: many more events than before, or many fewer.

    height             how many times more (or fewer) than the reference: above 1
    direction          up, down or both
    reference          "previous": the windows just before; or an offset such as "1d", "7d": the window at
                       the same time of earlier days, weeks
    reference_windows  of how many such windows the median is the reference
    min_current        fewer events than this in the window are no spike upwards
    min_reference      a group whose reference is below has none yet: it is new
    new_group          what a new group with min_current events is: wait (nothing yet), or alert

Everything is computed from the log, nothing is remembered: a restart changes no verdict. There is none
before the log goes back as far as the reference; until then active instances stay as they are, and the
state of the alert has the time of the first verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, cast

from tocsin_server.alert_types._instances import (
    common,
    events_told,
    instance_id,
    kept,
    limited,
    named,
    told,
    with_samples,
)
from tocsin_server.alert_types._window import (
    CONTEXT,
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
from tocsin_server.domain.aggregation import GROUPS_READ_MAX, Number
from tocsin_server.domain.alerting import (
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
from tocsin_server.domain.schedule import SECOND_US, duration_us
from tocsin_server.domain.variables import Json, text_of, time_text

REFERENCE_WINDOWS_MAX = 28
EVENTS_MAX = 1_000_000_000
UP, DOWN = "up", "down"

PARAMS_SCHEMA = schema(
    {
        "height": {"type": "number", "exclusiveMinimum": 1, "maximum": 1_000_000},
        "direction": {"enum": [UP, DOWN, "both"], "default": UP},
        "reference": {
            "description": "previous, or an offset such as 1d or 7d.",
            "type": "string",
            "pattern": "^(previous|[1-9][0-9]{0,9}[smhd])$",
            "default": "previous",
        },
        "reference_windows": {"type": "integer", "minimum": 1, "maximum": REFERENCE_WINDOWS_MAX, "default": 1},
        "min_current": {"type": "integer", "minimum": 1, "maximum": EVENTS_MAX, "default": 1},
        "min_reference": {"type": "integer", "minimum": 1, "maximum": EVENTS_MAX, "default": 1},
        "new_group": {"enum": ["wait", "alert"], "default": "wait"},
    },
    required=["height"],
)

_VARIABLES = ActionVariables(
    context=(
        ActionVariable("value", "How many events there were; the same as count."),
        ActionVariable("reference", "The median of the reference windows."),
        ActionVariable("ratio", "The value divided by the reference; nothing where the reference is 0."),
        ActionVariable("direction", "up or down."),
        ActionVariable("height", "The height of the params."),
        *CONTEXT,
    ),
    params=params_variables(PARAMS_SCHEMA),
)


def check(params: Params) -> Iterator[Violation]:
    """Find what the schema cannot say."""
    previous = params["reference"] == "previous"
    wrong = [*check_window(params), *(() if previous else duration_violations(params, "reference", WINDOW_MAX_US))]
    yield from wrong or _contradictions(params, "reference_windows" if previous else "reference")


def _contradictions(params: Params, path: str) -> Iterator[Violation]:
    """Find params that are right each for itself and do not go together."""
    if _step_us(params) < span_us(params, "window"):
        yield Violation(path, "is shorter than the window: it would compare the window with itself")
    elif _reach_us(params) > WINDOW_MAX_US:
        yield Violation(path, f"the reference reaches back more than {WINDOW_MAX_US // SECOND_US} seconds")


def _step_us(params: Params) -> int:
    reference = str(params["reference"])
    return span_us(params, "window") if reference == "previous" else duration_us(reference)


def _reach_us(params: Params) -> int:
    return _step_us(params) * int(cast(Any, params["reference_windows"]))


def execute(context: RunContext) -> Report:
    """Compare the window with its reference, group by group."""
    params, window = context.params, Window.of(context.params, context.scheduled_at)
    earliest = window.since - _reach_us(params)
    recorded_since = context.events.recorded_since()
    if recorded_since is None or earliest < recorded_since:
        return _waiting(context, recorded_since, earliest)
    current = _counts(context, window)
    windows = int(cast(Any, params["reference_windows"]))
    past = [_counts(context, window.back(_step_us(params) * n)) for n in range(1, windows + 1)]
    groups = dict.fromkeys([*current, *(values for counts in past for values in counts)])
    found = []
    for values in groups:
        count = current.get(values, 0)
        reference = _plain(median(counts.get(values, 0) for counts in past))
        direction = verdict(params, count, reference)
        if direction:
            found.append((values, _instance(context, values, (count, reference, direction), window)))
    report = Report(with_samples(context, question(context, window), found))
    return limited(report, int(cast(Any, params["max_groups"])), False)


def _waiting(context: RunContext, recorded_since: int | None, earliest: int) -> Report:
    """Say nothing new: what was active stays so."""
    as_they_were = tuple(kept(id, was) for id, was in context.previous.items())
    state: dict[str, Json] = {}
    if recorded_since is not None:
        state["first_verdict_at"] = time_text(context.scheduled_at + recorded_since - earliest)
    return Report(as_they_were, state)


def _counts(context: RunContext, window: Window) -> Mapping[tuple[str, ...], int]:
    groups = context.events.aggregate(question(context, window, limit=GROUPS_READ_MAX + 1))
    if len(groups) > GROUPS_READ_MAX:
        raise RunFailure(RunErrorReason.LIMIT, f"more than {GROUPS_READ_MAX} groups: narrow the source")
    return {group.values: group.count for group in groups}


def verdict(params: Params, count: int, reference: Number) -> str:
    """Tell whether a group spikes, and where to: "up", "down", or nothing."""
    height, direction = cast(float, params["height"]), params["direction"]
    enough = count >= cast(int, params["min_current"])
    if reference < cast(int, params["min_reference"]):
        return UP if params["new_group"] == "alert" and direction != DOWN and enough else ""
    if direction != DOWN and enough and count >= reference * height:
        return UP
    return DOWN if direction != UP and count * height <= reference else ""


def _plain(number: float) -> Number:
    return int(number) if float(number).is_integer() else number


def _compared(count: int, reference: Number, direction: str) -> str:
    """Say in words how many more or fewer than the reference there are."""
    if not reference:
        return "none before"
    if not count or (direction == UP and count <= reference):
        return f"{text_of(reference)} before"
    more, ratio = ("more", count / reference) if direction == UP else ("fewer", reference / count)
    return f"{text_of(_plain(round(ratio, 2)))} times {more} than {text_of(reference)}"


def _instance(
    context: RunContext, values: Sequence[str], found: tuple[int, Number, str], window: Window
) -> InstanceReport:
    params, group = context.params, named(strings(context.params["group_by"]), values)
    count, reference, direction = found
    said: dict[str, Json] = {
        "value": count,
        "reference": reference,
        "ratio": _plain(count / reference) if reference else None,
        "direction": direction,
        "height": params["height"],
        **common(group, window, count),
        "reason": f"{events_told(count)} in {params['window']}{told(group)}: {_compared(count, reference, direction)}",
    }
    return InstanceReport(instance_id(values), "default", said, subgroup=direction)


ALERT_TYPE = AlertType(
    id=".event-spike",
    name="Event spike",
    executor=execute,
    params_schema=PARAMS_SCHEMA,
    action_groups=(ActionGroup("default", "Spike"),),
    default_action_group_id="default",
    action_variables=_VARIABLES,
    check=check,
)
