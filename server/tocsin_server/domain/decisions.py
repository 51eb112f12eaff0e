"""Who is told in a run, and why the others are not: silence, mute and throttle, in this order.

    verdict          told   when
    RECOVERED        yes    the instance is active no more; no throttle is asked
    FIRST            yes    nobody was told of the instance since it became active
    GROUP_CHANGED    yes    its group is another one than was told last, or its sub-group another one than
                            in the run before, if both named one
    EVERY_RUN        yes    it is active, and `notify_when` is ON_ACTIVE_ALERT
    THROTTLE_ENDED   yes    the throttle has passed since it was told, to the microsecond
    SILENCED         no     a silence means the event of its transition; judged when the run is written
    MUTED            no     the alert or the instance is muted
    THROTTLED        no     the throttle has not passed
    UNCHANGED        no     the group is the same, and `notify_when` is ON_ACTION_GROUP_CHANGE
    DEFERRED         no     it was to be told, and the run had no room for more messages

Only what was told moves the throttle's clock, whether actions are attached to the group or not. So what
becomes active or changes its group under a mute or a silence is told when that has ended, once. What a
silence withholds is kept as a delivery that people can recover; `withheld` is the clock of those, so that a
silence of a day does not fill the store faster than the alert would have told.

What is deferred is to the next run as if this one had not told of it, and comes before all that waits for a
shorter time. What was to recover stays active until then, so that its end is in the log when it is told.

All of it is pure; times are the scheduled times of runs, in microseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from tocsin_server.domain.actions import Notification
from tocsin_server.domain.alerting import RUN_MESSAGES_MAX, Alert, InstanceReport, NotifyWhen
from tocsin_server.domain.instances import Instance, Notified


class Verdict(StrEnum):
    """Whether an instance is told in a run, and why or why not; see the module's docstring."""

    FIRST = "FIRST"
    GROUP_CHANGED = "GROUP_CHANGED"
    EVERY_RUN = "EVERY_RUN"
    THROTTLE_ENDED = "THROTTLE_ENDED"
    RECOVERED = "RECOVERED"
    SILENCED = "SILENCED"
    MUTED = "MUTED"
    THROTTLED = "THROTTLED"
    UNCHANGED = "UNCHANGED"
    DEFERRED = "DEFERRED"

    @property
    def tells(self) -> bool:
        """Whether the actions of the group are scheduled."""
        return self not in SUPPRESSING


SUPPRESSING = frozenset((Verdict.SILENCED, Verdict.MUTED, Verdict.THROTTLED, Verdict.UNCHANGED, Verdict.DEFERRED))


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one instance in a run: `recovered` when it is active no more."""

    instance_id: str
    group: str
    subgroup: str
    verdict: Verdict
    recovered: bool = False
    silence_id: str = ""


def decide(alert: Alert, before: Instance | None, now: InstanceReport, scheduled_at: int) -> Verdict:
    """Tell whether an active instance is told in this run, silences aside."""
    if alert.mutes(now.id):
        return Verdict.MUTED
    return _unmuted(alert, before, before.notified if before else None, now, scheduled_at)


def recovery(alert: Alert, instance: Instance, group: str) -> Decision:
    """Tell whether the end of an instance is told, silences aside."""
    verdict = Verdict.MUTED if alert.mutes(instance.id) else Verdict.RECOVERED
    return Decision(instance.id, group, "", verdict, recovered=True)


def _unmuted(
    alert: Alert, before: Instance | None, last: Notified | None, now: InstanceReport, scheduled_at: int
) -> Verdict:
    if before is None or last is None:
        return Verdict.FIRST
    if now.group != last.group or before.untold_change or subgroup_changed(before, now):
        return Verdict.GROUP_CHANGED
    match alert.spec.notifies_when:
        case NotifyWhen.ON_ACTIVE_ALERT:
            return Verdict.EVERY_RUN
        case NotifyWhen.ON_ACTION_GROUP_CHANGE:
            return Verdict.UNCHANGED
    over = last.at + alert.spec.throttle_us <= scheduled_at
    return Verdict.THROTTLE_ENDED if over else Verdict.THROTTLED


def subgroup_changed(before: Instance, now: InstanceReport) -> bool:
    """Tell whether the sub-group changed: only if this and the previous run named one."""
    return bool(before.subgroup and now.subgroup and before.subgroup != now.subgroup)


def untold_change(before: Instance | None, now: InstanceReport, verdict: Verdict) -> bool:
    """Tell whether a change of the sub-group waits to be told after a run with this verdict."""
    if before is None or verdict not in (Verdict.MUTED, Verdict.SILENCED, Verdict.DEFERRED):
        return False
    return before.untold_change or subgroup_changed(before, now)


# --- the room of a run -------------------------------------------------------------------------


def deferred(alert: Alert, decisions: Collection[Decision], known: Mapping[str, Instance]) -> frozenset[str]:
    """Give the instances that are to be told and do not fit into the run.

    Instances are told whole. What waits longest comes first, then what has recovered.
    """
    room = RUN_MESSAGES_MAX
    if len(decisions) * len(alert.spec.actions) <= room:
        return frozenset()
    actions = Counter(action.group for action in alert.spec.actions)
    telling = [one for one in decisions if one.verdict.tells and actions[one.group]]
    if sum(actions[one.group] for one in telling) <= room:
        return frozenset()

    def place(one: Decision) -> tuple[bool, int, bool, str]:
        before = known.get(one.instance_id)
        since = before.waits_since if before else None
        return since is None, since or 0, not one.recovered, one.instance_id

    left = set()
    for one in sorted(telling, key=place):
        if actions[one.group] > room:
            left.add(one.instance_id)
        else:
            room -= actions[one.group]
    return frozenset(left)


def postponed(decision: Decision, known: Mapping[str, Instance]) -> Decision:
    """Give the decision about an instance that has to wait; what was to recover stays in its group."""
    if not decision.recovered:
        return replace(decision, verdict=Verdict.DEFERRED)
    was = known[decision.instance_id]
    return Decision(was.id, was.group, was.subgroup, Verdict.DEFERRED)


# --- silences ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """The part of a run that tells: what was decided, the active instances, the messages."""

    decisions: tuple[Decision, ...]
    instances: tuple[Instance, ...]
    notifications: tuple[Notification, ...]


def withhold(
    alert: Alert, known: Mapping[str, Instance], told: Told, silences: Mapping[str, str], scheduled_at: int
) -> Told:
    """Keep from being told what silences mean: `silences` has the id of one for each instance that one means.

    `known` are the instances as they were before the run. Notifications that stay carry their silence. What is
    deferred has nothing to withhold: the next run asks again.
    """
    waiting = {one.instance_id for one in told.decisions if one.verdict is Verdict.DEFERRED}
    silences = {id: silence for id, silence in silences.items() if id not in waiting}
    decisions = tuple(
        replace(one, verdict=Verdict.SILENCED, silence_id=silences[one.instance_id])
        if one.instance_id in silences
        else one
        for one in told.decisions
    )
    instances = {one.id: one for one in told.instances}
    repeated = set()  # silenced as before: kept once already
    for instance_id in silences.keys() & instances.keys():
        instance, before = instances[instance_id], known.get(instance_id)
        silenced, is_kept = _withheld(alert, before, instance, scheduled_at)
        instances[instance_id] = silenced
        if not is_kept:
            repeated.add(instance_id)
    notifications = tuple(
        replace(one, silence_id=silences.get(one.instance_id, ""))
        for one in told.notifications
        if one.instance_id not in repeated
    )
    return Told(decisions, tuple(instances[one.id] for one in told.instances), notifications)


def _withheld(alert: Alert, before: Instance | None, now: Instance, scheduled_at: int) -> tuple[Instance, bool]:
    """Give a silenced instance, its clock as it was; tell whether what it would have told is kept."""
    report = InstanceReport(now.id, now.group, subgroup=now.subgroup)
    waits = untold_change(before, report, Verdict.SILENCED)
    last = (before.withheld or before.notified) if before else None
    if before and before.withheld:  # a change that waits to be told has been kept already
        before = replace(before, untold_change=False)
    is_kept = not alert.mutes(now.id) and _unmuted(alert, before, last, report, scheduled_at).tells
    withheld = Notified(now.group, now.subgroup, scheduled_at) if is_kept else before.withheld if before else None
    notified = before.notified if before else None
    return replace(now, notified=notified, withheld=withheld, untold_change=waits), is_kept
