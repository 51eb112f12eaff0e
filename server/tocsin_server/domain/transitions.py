"""What changes in the life of an alert, as the events of the log that tell of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tocsin_server.domain.alerting import Alert, AlertStatus, AlertType, RunError
from tocsin_server.domain.event_log import Level, OwnEvent
from tocsin_server.domain.instances import ID_SHOWN_MAX, REASON_SHOWN_MAX, Instance, Memory
from tocsin_server.domain.variables import Json, time_text

EVENT_TYPE_PREFIX = "system.alerting."
RESOURCE_TYPE = "alert"  # of the events about an alert; the resource id is the alert's


class TransitionKind(StrEnum):
    """What changed; the last segment of the event's type."""

    NEW_INSTANCE = "new_instance"
    RECOVERED_INSTANCE = "recovered_instance"
    ACTION_GROUP_CHANGED = "action_group_changed"
    STATUS_CHANGED = "status_changed"
    EXECUTED = "executed"  # every run, where `alerting.log_runs` asks for it


@dataclass(frozen=True, slots=True)
class Transition:
    """One change in the life of an alert, told in the log."""

    kind: TransitionKind
    message: str
    details: Mapping[str, Json]
    level: Level = Level.INFO


def activity(alert_type: AlertType, memory: Memory, active: Iterable[Instance]) -> Iterator[Transition]:
    """Tell of instances that have become active or went to another group."""
    for now in active:
        before = memory.instances.get(now.id)
        details: dict[str, Json] = {"instance_id": now.id, "action_group": now.group}
        if now.subgroup:
            details["action_subgroup"] = now.subgroup
        if before is None:
            message = f"{_shown(now)} is active ({_group(alert_type, now)}){_reason(now)}"
            yield Transition(TransitionKind.NEW_INSTANCE, message, details)
        elif _moved(before, now):
            details["previous_action_group"] = before.group
            groups = f"{_group(alert_type, before)} to {_group(alert_type, now)}"
            message = f"{_shown(now)} went from {groups}{_reason(now)}"
            yield Transition(TransitionKind.ACTION_GROUP_CHANGED, message, details)


def recovered(instance: Instance, at: int, reason: str) -> Transition:
    """Tell of the end of an instance."""
    details: dict[str, Json] = {
        "instance_id": instance.id,
        "action_group": instance.group,
        "reason": reason,
        "started_at": time_text(instance.started_at),
        "duration_s": instance.duration_s(at),
    }
    ended = "recovered" if reason == "recovered" else f"ended: {reason}"
    return Transition(TransitionKind.RECOVERED_INSTANCE, f"{_shown(instance)} {ended}", details)


def status_change(before: AlertStatus, now: AlertStatus, error: RunError | None) -> Iterator[Transition]:
    """Tell of runs that end with another status than before."""
    if before == now:
        return
    details: dict[str, Json] = {"status": now.value, "previous_status": before.value}
    if error:
        details |= {"error_reason": error.reason.value, "error_message": error.message}
    level = Level.ERROR if now is AlertStatus.ERROR else Level.INFO
    yield Transition(TransitionKind.STATUS_CHANGED, f"status went from {before} to {now}", details, level)


def own_event(alert: Alert, transition: Transition, scheduled_at: int) -> OwnEvent:
    """Write a transition as the event that tells of it."""
    about: dict[str, Json] = {
        "alert_id": alert.id,
        "alert_name": alert.spec.name,
        "alert_type_id": alert.spec.alert_type_id,
        "scheduled_at": time_text(scheduled_at),
    }
    return OwnEvent(
        account=alert.account,
        type=EVENT_TYPE_PREFIX + transition.kind.value,
        message=f"Alert {alert.spec.name!r}: {transition.message}",
        details=about | dict(transition.details),
        level=transition.level,
        resource_type=RESOURCE_TYPE,
        resource_id=alert.id,
    )


def _moved(before: Instance, now: Instance) -> bool:
    named = before.subgroup and now.subgroup
    return before.group != now.group or bool(named and before.subgroup != now.subgroup)


def _shown(instance: Instance) -> str:
    return f"instance {instance.id[:ID_SHOWN_MAX]}"


def _group(alert_type: AlertType, instance: Instance) -> str:
    name = alert_type.group_name(instance.group) or instance.group
    return f"{name}, {instance.subgroup}" if instance.subgroup else name


def _reason(instance: Instance) -> str:
    """Give what the executor says of the instance, where it says it in words."""
    reason = instance.context.get("reason")
    return f": {reason[:REASON_SHOWN_MAX]}" if reason and isinstance(reason, str) else ""
