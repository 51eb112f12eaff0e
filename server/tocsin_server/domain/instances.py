"""Instances: what an execution may report of them, and what is remembered of them between runs.

The report of an executor is not trusted: it comes from a plug-in or, later, over a wire. What
happens to an instance from one run to the next is in `execution`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tocsin_server.domain.alerting import (
    INSTANCE_BYTES_MAX,
    INSTANCE_ID_MAX,
    INSTANCES_MAX,
    AlertStatus,
    AlertType,
    InstanceReport,
    Report,
    RunError,
    RunErrorReason,
)
from tocsin_server.domain.variables import Json, plain

ID_SHOWN_MAX = 200  # characters of an instance's id in a sentence
REASON_SHOWN_MAX = 500  # characters of what an executor says, in a sentence of ours


class RunFailure(Exception):
    """A run that cannot be applied; everything stays as it was."""

    def __init__(self, reason: RunErrorReason, message: str) -> None:
        super().__init__(message)
        self.error = RunError(reason, message)


@dataclass(frozen=True, slots=True)
class Notified:
    """The last time that an instance's actions were scheduled."""

    group: str
    subgroup: str
    at: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One active instance: what it was in after the previous run, and what is remembered of it.

    `notified` is when somebody was told of it last, `withheld` when a silence kept that from happening;
    `untold_change`: its sub-group has changed since then, and nobody was told. `waits_since`: the run in which it
    was due to be told first and did not fit, if it waits for the next.
    """

    id: str
    group: str
    subgroup: str
    started_at: int
    context: Mapping[str, Json]
    state: Mapping[str, Json]
    notified: Notified | None = None
    withheld: Notified | None = None
    untold_change: bool = False
    waits_since: int | None = None

    def duration_s(self, at: int) -> float:
        """Give how long it has been active, in seconds."""
        return (at - self.started_at) / 1_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """What the previous runs of an alert left behind."""

    status: AlertStatus = AlertStatus.PENDING
    state: Mapping[str, Json] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)


def checked_report(report: Report, alert_type: AlertType) -> dict[str, InstanceReport]:
    """Give the active instances of a report, by id; RunFailure for what no executor may report.

    What it says of them is copied by `within_limit`, when it is known which of them are watched.
    """
    active: dict[str, InstanceReport] = {}
    seen: set[str] = set()
    groups = {group.id for group in alert_type.action_groups}
    for instance in report.instances:
        if instance.id in seen:
            raise RunFailure(RunErrorReason.EXECUTE, f"instance {_shown(instance)} was reported twice")
        if not instance.id or len(instance.id) > INSTANCE_ID_MAX:
            raise RunFailure(RunErrorReason.EXECUTE, f"instance id {_shown(instance)} is empty or too long")
        seen.add(instance.id)
        if instance.group is None:
            continue
        if instance.group not in groups:
            message = f"instance {_shown(instance)} was reported in the unknown group {instance.group!r}"
            raise RunFailure(RunErrorReason.EXECUTE, message)
        active[instance.id] = instance
    return active


def _copied(instance: InstanceReport) -> InstanceReport:
    shown = _shown(instance)
    return replace(
        instance,
        context=json_object(instance.context, INSTANCE_BYTES_MAX, f"the context of instance {shown}"),
        state=json_object(instance.state, INSTANCE_BYTES_MAX, f"the state of instance {shown}"),
    )


def _shown(instance: InstanceReport) -> str:
    return repr(instance.id[:ID_SHOWN_MAX])


def json_object(value: object, bytes_max: int, name: str) -> Mapping[str, Json]:
    """Copy a JSON object of limited size; RunFailure for anything else."""
    if value == {}:
        return {}
    try:
        copied = plain(value)
    except (TypeError, ValueError) as error:
        raise RunFailure(RunErrorReason.EXECUTE, f"{name} is not JSON: {error}") from None
    if not isinstance(copied, dict):
        raise RunFailure(RunErrorReason.EXECUTE, f"{name} is not an object")
    if len(json.dumps(copied).encode()) > bytes_max:
        raise RunFailure(RunErrorReason.LIMIT, f"{name} is larger than {bytes_max} bytes")
    return copied


def cut(found: dict[str, InstanceReport], memory: Memory, kept: int) -> dict[str, InstanceReport]:
    """Leave out new instances for which those that are kept beside what was found leave no room."""
    over = len(found) + kept - INSTANCES_MAX
    if over <= 0:
        return found
    new = [id for id in found if id not in memory.instances]
    out = frozenset(new[len(new) - over :])
    return {id: now for id, now in found.items() if id not in out}


def within_limit(
    found: dict[str, InstanceReport], memory: Memory, reached: bool
) -> tuple[dict[str, InstanceReport], bool]:
    """Cut what was found to the limit: what is known stays, new ones as long as there is room.

    What is left is copied, RunFailure for what is no JSON or too large. What is cut off is not even read: a report may
    have a million instances.
    """
    if len(found) <= INSTANCES_MAX and not reached:
        return {id: _copied(now) for id, now in found.items()}, False
    known = {id: now for id, now in found.items() if id in memory.instances}
    room = max(0, INSTANCES_MAX - len(memory.instances))
    new = [item for item in found.items() if item[0] not in memory.instances]
    return {id: _copied(now) for id, now in (known | dict(new[:room])).items()}, True
