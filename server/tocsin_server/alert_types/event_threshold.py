"""`.event-threshold`: how many events of a kind there were lately, in all or per value of fields.

    params     {source: {event_types[], subtypes[], levels[], resource_types[], resource_ids[],
                services[], hosts[]}, window, query_delay, group_by[], comparator, threshold, max_groups}
    window     [T - query_delay - window, T - query_delay) by the events' `timestamp`, T the scheduled
               time of the run; of these, the events that were stored before T
    instance   one per group whose count meets the comparator: the value of the field in `group_by`, or
               the values joined by "/", with "/" and "%" in them as %2F and %25; "_missing" stands for
               an empty value; "*" without `group_by`

`query_delay` is "0s" unless set: an alert tells at once. An event that is stored later than the end
of the window it belongs to is missed by that window; where sources stamp events early or send them
late, a delay as long as that lateness counts them all.

A group that has no events at all is not seen: with `group_by`, "<" finds groups that have become
rare, not those that have fallen silent. The counting is the store's; this file only interprets.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from tocsin_server.domain.alerting import (
    INSTANCE_ID_MAX,
    INSTANCES_MAX,
    ActionGroup,
    ActionVariable,
    ActionVariables,
    AlertType,
    GroupCount,
    InstanceReport,
    Params,
    Report,
    RunContext,
)
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.schedule import SECOND_US, DurationError, duration_us
from tocsin_server.domain.selection import LEVEL_BY_NAME, EventFilter
from tocsin_server.domain.variables import Json, text_of, time_text

WINDOW_MAX_US = 31 * 24 * 3600 * SECOND_US  # a longer one is a report, not an alert
QUERY_DELAY_MAX_US = 15 * 60 * SECOND_US
GROUP_BY = ("resource_id", "resource_type", "type", "subtype", "service", "host", "user_id")
GROUP = "default"
UNGROUPED_ID = "*"
MISSING = "_missing"  # stands for an empty value in an instance's id

# What a value may not look like on its own: our two words, and what they are escaped to.
_OWN_WORDS = re.compile(r"\*|_missing|%(25)*(2A|5Fmissing)")
_DURATION = "^[1-9][0-9]{0,9}[smhd]$"


def _strings(pattern: str | None = None, length: int = 256) -> Mapping[str, Any]:
    item: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": length}
    if pattern:
        item["pattern"] = pattern
    return {"type": "array", "maxItems": 100, "items": item, "default": []}


PARAMS_SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["window", "threshold"],
    "properties": {
        "source": {
            "description": "Which events are counted; what is empty means any.",
            "type": "object",
            "additionalProperties": False,
            "default": {},
            "properties": {
                "event_types": _strings(r"^[a-z0-9_.-]*(\*[a-z0-9_.-]*){0,8}$"),
                "subtypes": _strings(),
                "levels": {
                    "type": "array",
                    "maxItems": 2,
                    "items": {"enum": ["info", "error"]},
                    "default": [],
                },
                "resource_types": _strings(),
                "resource_ids": _strings(length=1024),
                "services": _strings(),
                "hosts": _strings(),
            },
        },
        "window": {"description": "1s to 31d.", "type": "string", "pattern": _DURATION},
        "query_delay": {
            "description": "0s to 15m: how late events may come.",
            "type": "string",
            "pattern": "^(0|[1-9][0-9]{0,9})[smhd]$",
            "default": "0s",
        },
        "group_by": {
            "type": "array",
            "maxItems": 4,
            "uniqueItems": True,
            "items": {"enum": list(GROUP_BY)},
            "default": [],
        },
        "comparator": {"enum": [">", ">=", "<", "<=", "between"], "default": ">="},
        "threshold": {"description": "A count; for between, the smallest and the largest count."},
        "max_groups": {"type": "integer", "minimum": 1, "maximum": INSTANCES_MAX, "default": INSTANCES_MAX},
    },
    "if": {"properties": {"comparator": {"const": "between"}}, "required": ["comparator"]},
    "then": {
        "properties": {
            "threshold": {
                "type": "array",
                "items": {"type": "number", "minimum": 0},
                "minItems": 2,
                "maxItems": 2,
            }
        }
    },
    "else": {"properties": {"threshold": {"type": "number", "minimum": 0}}},
}

_CONTEXT = ActionVariables(
    context=(
        ActionVariable("value", "The count that was compared."),
        ActionVariable("count", "How many events there were."),
        ActionVariable("threshold", "The threshold of the params."),
        ActionVariable("comparator", "The comparator of the params."),
        ActionVariable("reason", "A sentence that says why the instance is active."),
        ActionVariable("window.start", "Begin of the window, RFC 3339."),
        ActionVariable("window.end", "End of the window, RFC 3339; not part of it."),
        *(ActionVariable(f"group.{field}", f"The {field} of the group, if it is grouped by it.") for field in GROUP_BY),
    ),
    params=tuple(ActionVariable(name, f"The alert's {name}.") for name in PARAMS_SCHEMA["properties"]),
)


def check(params: Params) -> Iterator[Violation]:
    """Find what the schema cannot say: the bounds of durations, the order of two thresholds."""
    threshold = params["threshold"]
    if isinstance(threshold, list) and cast(Any, threshold[0]) > cast(Any, threshold[1]):
        yield Violation("threshold", "the first of the two numbers is the smaller one")
    for name, most in (("window", WINDOW_MAX_US), ("query_delay", QUERY_DELAY_MAX_US)):
        text = str(params[name])
        try:
            if not text.startswith("0") and duration_us(text) > most:
                yield Violation(name, f"at most {most // SECOND_US} seconds")
        except DurationError as error:
            yield Violation(name, str(error))


def execute(context: RunContext) -> Report:
    """Count, and report the groups whose count meets the comparator."""
    params = context.params
    since, before = _window(params, context.scheduled_at)
    group_by = [str(field) for field in _list(params["group_by"])]
    lowest, highest = _bounds(str(params["comparator"]), params["threshold"])
    most = int(cast(Any, params["max_groups"]))
    counts = context.events.count(
        _filter(context.space, cast(Mapping[str, Json], params["source"]), since, before),
        created_before=context.scheduled_at,
        group_by=group_by,
        at_least=lowest,
        at_most=highest,
        limit=most + 1,
    )
    met = [c for c in counts if c.count >= lowest and (highest is None or c.count <= highest)]
    instances = tuple(_instance(params, group_by, group, since, before) for group in met[:most])
    return Report(instances, limit_reached=len(met) > most)


def _window(params: Params, scheduled_at: int) -> tuple[int, int]:
    delay = str(params["query_delay"])
    before = scheduled_at - (0 if delay.startswith("0") else duration_us(delay))
    return before - duration_us(str(params["window"])), before


def _list(value: Json) -> Sequence[Json]:
    return cast(Sequence[Json], value)


def _filter(account: str, source: Mapping[str, Json], since: int, before: int) -> EventFilter:
    chosen = {name: tuple(str(v) for v in _list(values)) for name, values in source.items()}
    return EventFilter(
        account=account,
        types=chosen["event_types"],
        subtypes=chosen["subtypes"],
        levels=tuple(LEVEL_BY_NAME[name] for name in chosen["levels"]),
        resource_types=chosen["resource_types"],
        resource_ids=chosen["resource_ids"],
        services=chosen["services"],
        hosts=chosen["hosts"],
        since=since,
        before=before,
    )


def _bounds(comparator: str, threshold: Json) -> tuple[int, int | None]:
    """Give the smallest and the largest count that meet the comparator; None is no largest."""
    if comparator == "between":
        low, high = cast(Sequence[float], threshold)
        return math.ceil(low), math.floor(high)
    limit = cast(float, threshold)
    match comparator:
        case ">":
            return math.floor(limit) + 1, None
        case ">=":
            return math.ceil(limit), None
        case "<":
            return 0, math.ceil(limit) - 1
    return 0, math.floor(limit)


def instance_id(values: Sequence[str]) -> str:
    """Write the values of a group so that people can read it and no two groups of an alert share it.

    A very long id ends in a hash. Only those have the full length, so that no value looks like one.
    """
    if not values:
        return UNGROUPED_ID
    joined = _single(values[0]) if len(values) == 1 else "/".join(_part(value) for value in values)
    if len(joined) < INSTANCE_ID_MAX:
        return joined
    digest = hashlib.sha256(joined.encode()).hexdigest()
    return f"{joined[: INSTANCE_ID_MAX - len(digest) - 1]}~{digest}"


def _single(value: str) -> str:
    """Write the only value as it is, unless that reads like a word of ours, escaped or not."""
    return _escaped(value) if _OWN_WORDS.fullmatch(value) else value or MISSING


def _part(value: str) -> str:
    """Write one of several values: it ends at the next slash."""
    return _escaped(value) if value == MISSING else value.replace("%", "%25").replace("/", "%2F") or MISSING


def _escaped(value: str) -> str:
    return f"%{ord(value[0]):02X}{value[1:]}"


def _instance(params: Params, group_by: Sequence[str], group: GroupCount, since: int, before: int) -> InstanceReport:
    named = dict(zip(group_by, group.values, strict=True))
    context: dict[str, Json] = {
        "value": group.count,
        "count": group.count,
        "threshold": params["threshold"],
        "comparator": params["comparator"],
        "group": named,
        "window": {"start": time_text(since), "end": time_text(before)},
        "reason": _reason(params, named, group.count),
    }
    return InstanceReport(id=instance_id(group.values), group=GROUP, context=context)


def _reason(params: Params, named: Mapping[str, str], count: int) -> str:
    threshold = params["threshold"]
    limits = [text_of(limit) for limit in (_list(threshold) if isinstance(threshold, list) else [threshold])]
    events = "1 event" if count == 1 else f"{count} events"
    where = ", ".join(f"{field} {value or 'unset'}" for field, value in named.items())
    told = f" with {where}" if where else ""
    return f"{events} in {params['window']}{told}: {params['comparator']} {' and '.join(limits)}"


ALERT_TYPE = AlertType(
    id=".event-threshold",
    name="Event threshold",
    executor=execute,
    params_schema=PARAMS_SCHEMA,
    action_groups=(ActionGroup(GROUP, "Threshold met"),),
    default_action_group_id=GROUP,
    action_variables=_CONTEXT,
    check=check,
)
