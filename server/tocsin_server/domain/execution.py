"""What follows from one execution of an alert: its instances, the events of its life cycle, its messages.

`advance` is a pure function from what was remembered and what was found to what is remembered next
and what is to be said. The store writes an `RunOutcome` whole or not at all, so that a run that is
repeated is applied once. All times are the *scheduled* times of runs: a throttle that equals the
interval lets every run notify, however late each one began.

    found now    known before    then
    in a group   no              new_instance, notify
    in a group   yes             another group (or sub-group, if this and the run before named one):
                                 action_group_changed, notify; else notify_when and throttle decide
    not          yes             recovered_instance, notify the recovery group with the last context,
                                 whatever the throttle; forgotten with its state
    not          no              nothing
    forgotten    yes             as above, with the reason "forgotten", and nobody is notified
    the run failed, or reached   nothing recovers; after a failure nothing else changes either
    a limit
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from tocsin_server.domain.actions import Notification, messages
from tocsin_server.domain.aggregation import EventReads
from tocsin_server.domain.alerting import (
    ALERT_STATE_BYTES_MAX,
    Alert,
    AlertStatus,
    AlertType,
    InstanceReport,
    NotifyWhen,
    Report,
    RunContext,
    RunError,
    RunErrorReason,
)
from tocsin_server.domain.event_log import Level, OwnEvent
from tocsin_server.domain.instances import (
    ID_SHOWN_MAX,
    REASON_SHOWN_MAX,
    Instance,
    Memory,
    Notified,
    RunFailure,
    checked_report,
    json_object,
    within_limit,
)
from tocsin_server.domain.variables import Json, time_text

EVENT_TYPE_PREFIX = "system.alerting."
RESOURCE_TYPE = "alert"  # of the events about an alert; the resource id is the alert's
ADMIN_ACCOUNT = "admin"  # has no namespace


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that has begun: `number` is the fence, whoever writes with another one is too late.

    `log_position` is the head of the log when it was claimed: what was stored before the run's
    scheduled time lies at or below it. `missed` counts the ticks that this run stands in for.
    """

    account: str
    alert_id: str
    number: int
    scheduled_at: int
    started_at: int
    log_position: int
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Claims:
    """What was claimed at once, and when the next run is due; None when none is in sight."""

    claims: tuple[Claim, ...]
    next_due_at: int | None


@dataclass(frozen=True, slots=True)
class AlertState:
    """What the runs of an alert left behind, for people to look at."""

    memory: Memory
    previous_started_at: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """A claimed run with all that it needs to know."""

    claim: Claim
    alert: Alert
    memory: Memory
    previous_started_at: int | None

    def context(self, events: EventReads) -> RunContext:
        """Give what the executor sees."""
        alert, spec = self.alert, self.alert.spec
        return RunContext(
            alert_id=alert.id,
            name=spec.name,
            tags=spec.tags,
            space=alert.account,
            namespace=None if alert.account == ADMIN_ACCOUNT else alert.account,
            created_by=alert.created_by,
            updated_by=alert.updated_by,
            params=spec.params,
            state=self.memory.state,
            instances={id: instance.state for id, instance in self.memory.instances.items()},
            scheduled_at=self.claim.scheduled_at,
            started_at=self.claim.started_at,
            previous_started_at=self.previous_started_at,
            events=events,
            previous=self.memory.instances,
        )


class Verdict(StrEnum):
    """Whether an active instance notifies, and why or why not."""

    FIRST = "FIRST"
    GROUP_CHANGED = "GROUP_CHANGED"
    EVERY_RUN = "EVERY_RUN"
    THROTTLE_ENDED = "THROTTLE_ENDED"
    THROTTLED = "THROTTLED"
    UNCHANGED = "UNCHANGED"

    @property
    def notifies(self) -> bool:
        """Whether the actions of the group are scheduled."""
        return self not in (Verdict.THROTTLED, Verdict.UNCHANGED)


class TransitionKind(StrEnum):
    """What changed; the last segment of the event's type."""

    NEW_INSTANCE = "new_instance"
    RECOVERED_INSTANCE = "recovered_instance"
    ACTION_GROUP_CHANGED = "action_group_changed"
    STATUS_CHANGED = "status_changed"


@dataclass(frozen=True, slots=True)
class Transition:
    """One change in the life of an alert, told in the log."""

    kind: TransitionKind
    message: str
    details: Mapping[str, Json]
    level: Level = Level.INFO


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """All that one run leaves behind; written in one transaction."""

    status: AlertStatus
    error: RunError | None
    state: Mapping[str, Json]
    instances: tuple[Instance, ...]
    transitions: tuple[Transition, ...] = ()
    notifications: tuple[Notification, ...] = ()


# --- transitions -------------------------------------------------------------------------------


def apply(run: Run, alert_type: AlertType, report: Report) -> RunOutcome:
    """Apply the report of a run; one that cannot be used is a run that failed."""
    try:
        return advance(run.alert, alert_type, run.memory, report, run.claim.scheduled_at)
    except RunFailure as failure:
        return fail(run.memory, failure.error)


def advance(alert: Alert, alert_type: AlertType, memory: Memory, report: Report, scheduled_at: int) -> RunOutcome:
    """Apply what a run found; RunFailure when its report cannot be used."""
    found, limited = within_limit(checked_report(report, alert_type), memory, report.limit_reached)
    missing = [i for id, i in sorted(memory.instances.items()) if id not in found]
    ended, untouched = ([], missing) if limited else (missing, [])
    recovered = [i for i in ended if i.id not in report.forgotten]
    forgotten = [i for i in ended if i.id in report.forgotten]
    verdicts = {id: decide(alert, memory.instances.get(id), now, scheduled_at) for id, now in found.items()}
    active = [_next(memory.instances.get(id), now, verdicts[id], scheduled_at) for id, now in sorted(found.items())]
    instances = (*active, *untouched)
    error = _limit_error() if limited else None
    status = AlertStatus.ERROR if error else AlertStatus.ACTIVE if instances else AlertStatus.OK
    return RunOutcome(
        status=status,
        error=error,
        state=json_object(report.state, ALERT_STATE_BYTES_MAX, "the alert's state"),
        instances=instances,
        transitions=(
            *(_recovery(instance, scheduled_at, "recovered") for instance in recovered),
            *(_recovery(instance, scheduled_at, "forgotten") for instance in forgotten),
            *_activity(alert_type, memory, active),
            *_status_change(memory.status, status, error),
        ),
        notifications=(
            *_recoveries(alert, alert_type, recovered, scheduled_at),
            *_actives(alert, alert_type, [i for i in active if verdicts[i.id].notifies], scheduled_at),
        ),
    )


def fail(memory: Memory, error: RunError) -> RunOutcome:
    """Apply a run that failed: its status changes, everything else stays."""
    return RunOutcome(
        status=AlertStatus.ERROR,
        error=error,
        state=memory.state,
        instances=tuple(memory.instances.values()),
        transitions=tuple(_status_change(memory.status, AlertStatus.ERROR, error)),
    )


def close(instances: Iterable[Instance], at: int, reason: str) -> list[Transition]:
    """End instances because their alert is disabled or deleted; nobody is notified."""
    return [_recovery(instance, at, reason) for instance in instances]


def decide(alert: Alert, before: Instance | None, now: InstanceReport, scheduled_at: int) -> Verdict:
    """Tell whether an active instance notifies in this run."""
    notified = before.notified if before else None
    if before is None or notified is None:
        return Verdict.FIRST
    if now.group != notified.group or _subgroup_changed(before, now):
        return Verdict.GROUP_CHANGED
    match alert.spec.notifies_when:
        case NotifyWhen.ON_ACTIVE_ALERT:
            return Verdict.EVERY_RUN
        case NotifyWhen.ON_ACTION_GROUP_CHANGE:
            return Verdict.UNCHANGED
    over = notified.at + alert.spec.throttle_us <= scheduled_at
    return Verdict.THROTTLE_ENDED if over else Verdict.THROTTLED


def _subgroup_changed(before: Instance, now: InstanceReport) -> bool:
    """Tell whether the sub-group changed: only if this and the previous run named one."""
    return bool(before.subgroup and now.subgroup and before.subgroup != now.subgroup)


def _next(before: Instance | None, now: InstanceReport, verdict: Verdict, scheduled_at: int) -> Instance:
    group = now.group or ""
    notified = Notified(group, now.subgroup, scheduled_at) if verdict.notifies else None
    return Instance(
        id=now.id,
        group=group,
        subgroup=now.subgroup,
        started_at=before.started_at if before else scheduled_at,
        context=now.context,
        state=now.state,
        notified=notified or (before.notified if before else None),
    )


def _activity(alert_type: AlertType, memory: Memory, active: Iterable[Instance]) -> Iterator[Transition]:
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


def _moved(before: Instance, now: Instance) -> bool:
    named = before.subgroup and now.subgroup
    return before.group != now.group or bool(named and before.subgroup != now.subgroup)


def _recovery(instance: Instance, at: int, reason: str) -> Transition:
    details: dict[str, Json] = {
        "instance_id": instance.id,
        "action_group": instance.group,
        "reason": reason,
        "started_at": time_text(instance.started_at),
        "duration_s": (at - instance.started_at) / 1_000_000,
    }
    ended = "recovered" if reason == "recovered" else f"ended: {reason}"
    return Transition(TransitionKind.RECOVERED_INSTANCE, f"{_shown(instance)} {ended}", details)


def _status_change(before: AlertStatus, now: AlertStatus, error: RunError | None) -> Iterator[Transition]:
    if before == now:
        return
    details: dict[str, Json] = {"status": now.value, "previous_status": before.value}
    if error:
        details |= {"error_reason": error.reason.value, "error_message": error.message}
    level = Level.ERROR if now is AlertStatus.ERROR else Level.INFO
    yield Transition(TransitionKind.STATUS_CHANGED, f"status went from {before} to {now}", details, level)


def _shown(instance: Instance) -> str:
    return f"instance {instance.id[:ID_SHOWN_MAX]}"


def _group(alert_type: AlertType, instance: Instance) -> str:
    name = alert_type.group_name(instance.group) or instance.group
    return f"{name}, {instance.subgroup}" if instance.subgroup else name


def _reason(instance: Instance) -> str:
    """Give what the executor says of the instance, where it says it in words."""
    reason = instance.context.get("reason")
    return f": {reason[:REASON_SHOWN_MAX]}" if reason and isinstance(reason, str) else ""


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


def _limit_error() -> RunError:
    return RunError(
        RunErrorReason.LIMIT,
        "more instances than the limit: some are not watched, and none recovers until there are fewer",
    )


def _recoveries(
    alert: Alert, alert_type: AlertType, recovered: Iterable[Instance], scheduled_at: int
) -> Iterator[Notification]:
    group = alert_type.recovery_action_group.id
    for instance in recovered:
        yield from messages(alert, alert_type, replace(instance, group=group, subgroup=""), scheduled_at)


def _actives(
    alert: Alert, alert_type: AlertType, notifying: Iterable[Instance], scheduled_at: int
) -> Iterator[Notification]:
    for instance in notifying:
        yield from messages(alert, alert_type, instance, scheduled_at)
