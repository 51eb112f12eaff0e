"""Which events a built-in type looks at: the params that all of them have, and the question they become.

    source       {event_types[], subtypes[], levels[], resource_types[], resource_ids[], services[], hosts[],
                 where}; what is empty means any
    window       [T - query_delay - window, T - query_delay) by the events' `timestamp`, T the scheduled time
                 of the run; of these, the events that were stored before T
    group_by     up to four fields: columns, labels.<key>, details.<path>

`query_delay` is "0s" unless set: an alert tells at once. An event that is stored later than the end of
the window it belongs to is missed by that window; where sources stamp events early or send them late, a
delay as long as that lateness counts them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tocsin_server.domain.aggregation import COLUMNS, GROUP_BY_MAX, EventQuestion, field_fault
from tocsin_server.domain.alerting import INSTANCES_MAX, ActionVariable, Params, RunContext
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.schedule import SECOND_US, DurationError, duration_us
from tocsin_server.domain.selection import LEVEL_BY_NAME, EventFilter
from tocsin_server.domain.variables import Json, time_text
from tocsin_server.domain.where import WHERE_LENGTH_MAX, WhereError, compiled

WINDOW_MAX_US = 31 * 24 * 3600 * SECOND_US  # a longer one is a report, not an alert
QUERY_DELAY_MAX_US = 15 * 60 * SECOND_US
SAMPLES_MAX = 20  # events of one instance that its context shows
DURATION = "^[1-9][0-9]{0,9}[smhd]$"
DURATION_OR_ZERO = "^(0|[1-9][0-9]{0,9})[smhd]$"


def _strings(pattern: str | None = None, length: int = 256) -> Mapping[str, Any]:
    item: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": length}
    if pattern:
        item["pattern"] = pattern
    return {"type": "array", "maxItems": 100, "items": item, "default": []}


SOURCE: Mapping[str, Any] = {
    "description": "Which events are looked at; what is empty means any.",
    "type": "object",
    "additionalProperties": False,
    "default": {},
    "properties": {
        "event_types": _strings(r"^[a-z0-9_.-]*(\*[a-z0-9_.-]*){0,8}$"),
        "subtypes": _strings(),
        "levels": {"type": "array", "maxItems": 2, "items": {"enum": ["info", "error"]}, "default": []},
        "resource_types": _strings(),
        "resource_ids": _strings(length=1024),
        "services": _strings(),
        "hosts": _strings(),
        "where": {
            "description": "A condition in CEL over the whole event.",
            "type": "string",
            "maxLength": WHERE_LENGTH_MAX,
            "default": "",
        },
    },
}

# The params of every built-in type, by name.
PROPERTIES: Mapping[str, Any] = {
    "source": SOURCE,
    "window": {"description": "1s to 31d.", "type": "string", "pattern": DURATION},
    "query_delay": {
        "description": "0s to 15m: how late events may come.",
        "type": "string",
        "pattern": DURATION_OR_ZERO,
        "default": "0s",
    },
    "group_by": {
        "description": "Columns, labels.<key>, details.<path>: an instance for each group of values.",
        "type": "array",
        "maxItems": GROUP_BY_MAX,
        "uniqueItems": True,
        "items": {"type": "string"},
        "default": [],
    },
    "missing_group": {
        "description": "What becomes of events that lack a field of group_by: a group of their own, or nothing.",
        "enum": ["bucket", "drop"],
        "default": "bucket",
    },
    "max_groups": {
        "description": "Instances of one run; more is an error, and nothing recovers.",
        "type": "integer",
        "minimum": 1,
        "maximum": INSTANCES_MAX,
        "default": INSTANCES_MAX,
    },
    "sample_events": {
        "description": "How many of its newest events an instance shows.",
        "type": "integer",
        "minimum": 0,
        "maximum": SAMPLES_MAX,
        "default": 0,
    },
}

# What every built-in type says of an instance.
CONTEXT = (
    ActionVariable("count", "How many events of the window were measured."),
    ActionVariable("reason", "A sentence that says why the instance is active."),
    ActionVariable("window.start", "Begin of the window, RFC 3339."),
    ActionVariable("window.end", "End of the window, RFC 3339; not part of it."),
    ActionVariable("sample_events", "The newest events of the group: id, type, message, timestamp."),
    *(ActionVariable(f"group.{field}", f"The {field} of the group, if it is grouped by it.") for field in COLUMNS),
    ActionVariable("group.labels", "The labels of the group, by key, if it is grouped by some."),
    ActionVariable("group.details", "The details of the group, by path, if it is grouped by some."),
)


def schema(properties: Mapping[str, Any], required: Sequence[str] = ()) -> Mapping[str, Any]:
    """Make the schema of a type's params of what all have and what it has of its own."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "required": ["window", *required],
        "properties": {**PROPERTIES, **properties},
    }


def params_variables(params_schema: Mapping[str, Any]) -> tuple[ActionVariable, ...]:
    """Declare the params of a type as variables."""
    return tuple(ActionVariable(name, f"The alert's {name}.") for name in params_schema["properties"])


def check_window(params: Params) -> Iterator[Violation]:
    """Find what the schema cannot say of the common params: bounds of durations, fields, the condition."""
    yield from duration_violations(params, "window", WINDOW_MAX_US)
    yield from duration_violations(params, "query_delay", QUERY_DELAY_MAX_US)
    for place, field in enumerate(strings(params["group_by"])):
        fault = field_fault(field)
        if fault:
            yield Violation(f"group_by[{place}]", fault)
    text = str(cast(Mapping[str, Json], params["source"])["where"])
    if text:
        try:
            compiled(text)
        except WhereError as error:
            yield Violation("source.where", str(error))


def duration_violations(params: Params, name: str, most: int) -> Iterator[Violation]:
    """Find what is wrong with a duration that is given."""
    text = str(params.get(name) or "0s")
    if text.startswith("0"):
        return
    try:
        if duration_us(text) > most:
            yield Violation(name, f"at most {most // SECOND_US} seconds")
    except DurationError as error:
        yield Violation(name, str(error))


def span_us(params: Params, name: str) -> int:
    """Give a duration of the params in microseconds; 0 for one that is not given."""
    text = str(params.get(name) or "0s")
    return 0 if text.startswith("0") else duration_us(text)


def strings(value: Json) -> tuple[str, ...]:
    """Read a list of strings."""
    return tuple(str(item) for item in cast(Sequence[Json], value))


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open range of time, in microseconds."""

    since: int
    before: int

    @classmethod
    def of(cls, params: Params, scheduled_at: int) -> Window:
        """Give the window that a run for a time looks at."""
        before = scheduled_at - span_us(params, "query_delay")
        return cls(before - span_us(params, "window"), before)

    def back(self, us: int) -> Window:
        """Give the window of the same length so much earlier."""
        return Window(self.since - us, self.before - us)

    def shown(self) -> Mapping[str, Json]:
        """Write it for templates."""
        return {"start": time_text(self.since), "end": time_text(self.before)}


def question(context: RunContext, window: Window, **more: Any) -> EventQuestion:
    """Ask about the events of a window, by the alert's groups."""
    params = context.params
    return EventQuestion(
        events=_filter(context.space, cast(Mapping[str, Json], params["source"]), window),
        created_before=context.scheduled_at,
        group_by=strings(params["group_by"]),
        drop_missing=params["missing_group"] == "drop",
        **more,
    )


def _filter(account: str, source: Mapping[str, Json], window: Window) -> EventFilter:
    chosen = {name: strings(values) for name, values in source.items() if name != "where"}
    return EventFilter(
        account=account,
        types=chosen["event_types"],
        subtypes=chosen["subtypes"],
        levels=tuple(LEVEL_BY_NAME[name] for name in chosen["levels"]),
        resource_types=chosen["resource_types"],
        resource_ids=chosen["resource_ids"],
        services=chosen["services"],
        hosts=chosen["hosts"],
        since=window.since,
        before=window.before,
        where=str(source["where"]),
    )
