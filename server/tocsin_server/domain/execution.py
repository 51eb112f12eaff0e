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
    more to tell than a run may  who waits longest is told; the others are told by the next run, and what was
                                 to recover recovers then
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tocsin_server.domain.actions import Notification, messages
from tocsin_server.domain.aggregation import EventReads
from tocsin_server.domain.alerting import (
    ALERT_STATE_BYTES_MAX,
    Alert,
    AlertStatus,
    AlertType,
    InstanceReport,
    Report,
    RunContext,
    RunError,
    RunErrorReason,
)
from tocsin_server.domain.decisions import (
    Decision,
    Told,
    Verdict,
    decide,
    deferred,
    postponed,
    recovery,
    untold_change,
    withhold,
)
from tocsin_server.domain.event_log import Level
from tocsin_server.domain.instances import (
    Instance,
    Memory,
    Notified,
    RunFailure,
    checked_report,
    cut,
    json_object,
    within_limit,
)
from tocsin_server.domain.navigation import NOWHERE, Place
from tocsin_server.domain.transitions import Transition, TransitionKind, activity, recovered, status_change
from tocsin_server.domain.variables import Json

ADMIN_ACCOUNT = "admin"  # has no namespace


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that has begun: `number` is the fence, whoever writes with another one is too late.

    `log_position` is the head of the log when it was claimed: what was stored before the run's
    scheduled time lies at or below it. `missed` counts the ticks that this run stands in for.
    """

    account: str
    alert_id: str
    alert_type_id: str
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
    place: Place = NOWHERE

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


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """All that one run leaves behind; written in one transaction.

    `anew` says what the same report comes to under the mutes of another alert; None where it has none.
    """

    status: AlertStatus
    error: RunError | None
    state: Mapping[str, Json]
    instances: tuple[Instance, ...]
    transitions: tuple[Transition, ...] = ()
    decisions: tuple[Decision, ...] = ()
    notifications: tuple[Notification, ...] = ()
    duration_us: int = 0
    anew: Callable[[Alert], RunOutcome] | None = field(default=None, compare=False, repr=False)


# What a run does with what it may read of the log.
Work = Callable[[Run, EventReads], RunOutcome]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which instances of a run silences mean: by the silences of a generation, as they held at a time."""

    silences: Mapping[str, str]
    generation: int
    at: int


@dataclass(frozen=True, slots=True)
class Performed:
    """A run that has to be written; without a judgement where there is nothing that a silence could mean."""

    run: Run
    outcome: RunOutcome
    judgement: Judgement | None = None


# --- transitions -------------------------------------------------------------------------------


def attempt(work: Callable[[], RunOutcome], run: Run, raised: Callable[[Exception], None]) -> RunOutcome:
    """Do the work of a run; whatever it raises makes a run that failed. What was not foreseen is told to `raised`."""
    try:
        return work()
    except RunFailure as failure:
        return fail(run.memory, failure.error)
    except Exception as error:
        raised(error)
        # The text may hold anything that the executor has read: it stays in the server's log.
        message = f"the executor raised {type(error).__name__}; the server's log says more"
        return fail(run.memory, RunError(RunErrorReason.EXECUTE, message))


def perform(run: Run, alert_type: AlertType, events: EventReads) -> RunOutcome:
    """Execute a type for a run, and say what follows; see `attempt` for what it may raise."""
    report = alert_type.executor(run.context(events))

    def follows(muted: Alert) -> RunOutcome:
        alert = replace(run.alert, mute_all=muted.mute_all, muted_instance_ids=muted.muted_instance_ids)
        return advance(alert, alert_type, run.memory, report, run.claim.scheduled_at, run.place.link)

    return replace(follows(run.alert), anew=follows)


def muted(run: Run, outcome: RunOutcome, mute_all: bool, muted_instance_ids: tuple[str, ...]) -> tuple[Run, RunOutcome]:
    """Give a run and its outcome as they are under these mutes: those that stand when it is written decide."""
    alert = replace(run.alert, mute_all=mute_all, muted_instance_ids=muted_instance_ids)
    if alert == run.alert or outcome.anew is None:
        return run, outcome
    changed = replace(outcome.anew(alert), duration_us=outcome.duration_us, anew=outcome.anew)
    return replace(run, alert=alert), changed


def advance(
    alert: Alert, alert_type: AlertType, memory: Memory, report: Report, scheduled_at: int, link: str = ""
) -> RunOutcome:
    """Apply what a run found; RunFailure when its report cannot be used. `link` leads to where the alert is shown."""
    lives = _lives(alert, alert_type, memory, report, scheduled_at)
    error = lives.error
    instances = (*lives.active, *lives.kept)
    status = AlertStatus.ERROR if error else AlertStatus.ACTIVE if instances else AlertStatus.OK
    return RunOutcome(
        status=status,
        error=error,
        state=json_object(report.state, ALERT_STATE_BYTES_MAX, "the alert's state"),
        instances=instances,
        transitions=(
            *(recovered(one, scheduled_at, _reason(one, report)) for one in lives.ended),
            *activity(alert_type, memory, lives.active),
            *status_change(memory.status, status, error),
        ),
        decisions=tuple(decision for decision, _ in lives.decided),
        notifications=tuple(_notifications(alert, alert_type, lives.decided, scheduled_at, link)),
    )


@dataclass(frozen=True, slots=True)
class _Lives:
    """What becomes of the instances of a run: which end, stay as they were, are active, and what is told of them."""

    ended: Sequence[Instance]
    kept: Sequence[Instance]
    active: Sequence[Instance]
    decided: Sequence[tuple[Decision, Instance]]
    error: RunError | None


def _lives(alert: Alert, alert_type: AlertType, memory: Memory, report: Report, scheduled_at: int) -> _Lives:
    known = memory.instances
    found, limited = within_limit(checked_report(report, alert_type), memory, report.limit_reached)
    missing = [one for id, one in sorted(known.items()) if id not in found]
    ended, kept = ([], missing) if limited else (missing, [])
    group = alert_type.recovery_action_group.id
    decisions = {one.id: recovery(alert, one, group) for one in ended if one.id not in report.forgotten}
    for id, now in sorted(found.items()):
        verdict = decide(alert, known.get(id), now, scheduled_at)
        decisions[id] = Decision(id, now.group or "", now.subgroup, verdict)
    waiting = deferred(alert, decisions.values(), known)
    kept += [replace(one, waits_since=_waits_since(one, scheduled_at)) for one in ended if one.id in waiting]
    ended = [one for one in ended if one.id not in waiting]
    watched = cut(found, memory, len(kept))
    decisions |= {id: postponed(decisions[id], known) for id in waiting}
    active = [_next(known.get(id), now, decisions[id].verdict, scheduled_at) for id, now in sorted(watched.items())]
    decided = [
        *((decisions[one.id], replace(one, group=group, subgroup="")) for one in ended if one.id in decisions),
        *((decisions[one.id], one) for one in active),
        *((decisions[one.id], one) for one in kept if one.id in waiting),
    ]
    return _Lives(ended, kept, active, decided, _limit_error(limited, len(watched) < len(found)))


def fail(memory: Memory, error: RunError) -> RunOutcome:
    """Apply a run that failed: its status changes, everything else stays."""
    return RunOutcome(
        status=AlertStatus.ERROR,
        error=error,
        state=memory.state,
        instances=tuple(memory.instances.values()),
        transitions=tuple(status_change(memory.status, AlertStatus.ERROR, error)),
    )


def too_late(run: Run, timeout_s: float) -> RunOutcome:
    """Apply a run that has not ended in its time."""
    error = RunError(RunErrorReason.TIMEOUT, f"the run took longer than {timeout_s:g} s")
    return replace(fail(run.memory, error), duration_us=int(timeout_s * 1_000_000))


def executed(run: Run, outcome: RunOutcome) -> Transition:
    """Tell of a run as such, whatever it found."""
    told = sum(decision.verdict.tells for decision in outcome.decisions)
    details: dict[str, Json] = {
        "run_number": run.claim.number,
        "status": outcome.status.value,
        "missed": run.claim.missed,
        "duration_s": outcome.duration_us / 1_000_000,
        "active": len(outcome.instances),
        "told": told,
        "not_told": len(outcome.decisions) - told,
    }
    if outcome.error:
        details |= {"error_reason": outcome.error.reason.value, "error_message": outcome.error.message}
    message = f"run {run.claim.number} ended with {outcome.status}, {len(outcome.instances)} active, {told} told"
    return Transition(TransitionKind.EXECUTED, message, details, Level.ERROR if outcome.error else Level.INFO)


def silence(run: Run, outcome: RunOutcome, silences: Mapping[str, str]) -> RunOutcome:
    """Keep from being told what silences mean: `silences` has the id of one for each instance that one means."""
    told = Told(outcome.decisions, outcome.instances, outcome.notifications)
    told = withhold(run.alert, run.memory.instances, told, silences, run.claim.scheduled_at)
    return replace(outcome, decisions=told.decisions, instances=told.instances, notifications=told.notifications)


def close(instances: Iterable[Instance], at: int, reason: str) -> list[Transition]:
    """End instances because their alert is disabled or deleted; nobody is notified."""
    return [recovered(instance, at, reason) for instance in instances]


def _next(before: Instance | None, now: InstanceReport, verdict: Verdict, scheduled_at: int) -> Instance:
    group, waits = now.group or "", verdict is Verdict.DEFERRED
    notified = Notified(group, now.subgroup, scheduled_at) if verdict.tells else before.notified if before else None
    return Instance(
        id=now.id,
        group=group,
        subgroup=now.subgroup,
        started_at=before.started_at if before else scheduled_at,
        context=now.context,
        state=now.state,
        notified=notified,
        withheld=before.withheld if before and waits else None,  # the next run asks the silences
        untold_change=untold_change(before, now, verdict),
        waits_since=_waits_since(before, scheduled_at) if waits else None,
    )


def _waits_since(before: Instance | None, scheduled_at: int) -> int:
    return before.waits_since if before and before.waits_since is not None else scheduled_at


def _reason(instance: Instance, report: Report) -> str:
    return "forgotten" if instance.id in report.forgotten else "recovered"


def _limit_error(limited: bool, crowded: bool) -> RunError | None:
    """Say that not all instances are watched: there are too many, or those that wait to be told take the room."""
    if not limited and not crowded:
        return None
    until = (
        "and none recovers until there are fewer"
        if limited
        else "until those that wait have been told of their recovery"
    )
    return RunError(RunErrorReason.LIMIT, f"more instances than the limit: some are not watched, {until}")


def _notifications(
    alert: Alert, alert_type: AlertType, decided: Iterable[tuple[Decision, Instance]], scheduled_at: int, link: str
) -> Iterator[Notification]:
    for decision, instance in decided:
        if decision.verdict.tells:
            yield from messages(alert, alert_type, instance, scheduled_at, link)
