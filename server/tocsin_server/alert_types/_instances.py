"""Instances of the built-in types: the id of a group, and what all types say of it.

The id of an instance is the value of the field in `group_by`, or the values joined by "/", with "/" and
"%" in them as %2F and %25; "_missing" stands for an empty value; "*" is the instance without `group_by`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tocsin_server.alert_types._window import Window
from tocsin_server.domain.aggregation import EventQuestion
from tocsin_server.domain.alerting import INSTANCE_ID_MAX, ActiveInstance, InstanceReport, Report, RunContext
from tocsin_server.domain.variables import Json, text_of, time_text

UNGROUPED_ID = "*"
MISSING = "_missing"  # stands for an empty value in an instance's id
SAMPLES_READ_MAX = 200  # events of one run that are decoded to be shown: less than a millisecond
MESSAGE_SHOWN_MAX = 300  # characters of a sample's message

# What a value may not look like on its own: our two words, and what they are escaped to.
_OWN_WORDS = re.compile(r"\*|_missing|%(25)*(2A|5Fmissing)")


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


def named(group_by: Sequence[str], values: Sequence[str]) -> dict[str, Json]:
    """Give the values of a group by their fields."""
    return dict(zip(group_by, values, strict=True))


def values_of(group_by: Sequence[str], instance: ActiveInstance) -> tuple[str, ...] | None:
    """Read the values of a group from what was last said of it; None if it was grouped by other fields."""
    group = instance.context.get("group")
    if not isinstance(group, Mapping) or set(group) != set(group_by):
        return None
    return tuple(str(group[field]) for field in group_by)


def told(group: Mapping[str, Json]) -> str:
    """Say in a sentence which group is meant; nothing without `group_by`."""
    where = ", ".join(f"{field} {text_of(value) or 'unset'}" for field, value in group.items())
    return f" with {where}" if where else ""


def events_told(count: int) -> str:
    """Say how many events there are."""
    return "1 event" if count == 1 else f"{count} events"


def common(group: Mapping[str, Json], window: Window, count: int) -> dict[str, Json]:
    """Say what every type says of an instance."""
    return {"count": count, "group": group, "window": window.shown(), "sample_events": []}


def with_samples(
    context: RunContext, question: EventQuestion, found: Sequence[tuple[tuple[str, ...], InstanceReport]]
) -> tuple[InstanceReport, ...]:
    """Show the newest events of the instances, of as many instances as may be read for."""
    each = int(context.params["sample_events"])  # type: ignore[arg-type]
    if not each or not found:
        return tuple(report for _, report in found)
    shown = found[: SAMPLES_READ_MAX // each]
    samples = context.events.samples(question, [values for values, _ in shown], each)
    reports: list[InstanceReport] = []
    for values, report in found:
        events: list[Any] = [
            {"id": e.id, "type": e.type, "message": e.message[:MESSAGE_SHOWN_MAX], "timestamp": time_text(e.timestamp)}
            for e in samples.get(values, ())
        ]
        reports.append(replace(report, context={**report.context, "sample_events": events}))
    return tuple(reports)


def kept(id: str, instance: ActiveInstance) -> InstanceReport:
    """Report an instance as it was."""
    return InstanceReport(id, instance.group, instance.context, instance.state, instance.subgroup)


def limited(report: Report, most: int, reached: bool) -> Report:
    """Cut a report to so many instances, and say whether there is more."""
    if not reached and len(report.instances) <= most:
        return report
    return replace(report, instances=report.instances[:most], limit_reached=True)
