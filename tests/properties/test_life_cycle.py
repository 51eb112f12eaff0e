"""The life cycle over any sequence of runs: what the log and the messages say is what happened."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tocsin_server.domain.alerting import Action, AlertStatus, InstanceReport, NotifyWhen
from tocsin_server.domain.instances import Instance

from tests.support.lives import MINUTE, Life, found, spec, statuses, told, verdicts

IDS = ["a", "b", "c"]
ACTIVITY = st.one_of(st.none(), st.tuples(st.sampled_from(["default", "critical"]), st.sampled_from(["", "x", "y"])))
RUN = st.one_of(st.just("error"), st.fixed_dictionaries({id: ACTIVITY for id in IDS}))
RUNS = st.lists(st.tuples(RUN, st.integers(1, 3)), max_size=25)
MODES = st.sampled_from([None, *NotifyWhen])
THROTTLES = st.sampled_from(["", "1m", "3m", "10m"])


def reports(run: dict[str, tuple[str, str] | None]) -> list[InstanceReport]:
    return [found(id, *activity) for id, activity in run.items() if activity]


@given(RUNS, MODES, THROTTLES)
def test_any_life_is_consistent(
    runs: list[tuple[str | dict[str, tuple[str, str] | None], int]], mode: NotifyWhen | None, throttle: str
) -> None:
    life = Life(spec(notify_when=mode, throttle=throttle, actions=()))
    active: set[str] = set()
    status = AlertStatus.PENDING
    for run, minutes in runs:
        before: dict[str, Instance] = dict(life.memory.instances)
        at = life.at
        outcome = life.fail() if isinstance(run, str) else life.run(*reports(run))
        life.at = at + minutes * MINUTE
        # The log alone tells what is active.
        for line in told(outcome):
            kind, _, id = line.partition(" ")
            if kind == "new_instance":
                assert id not in active
                active.add(id)
            elif kind == "recovered_instance":
                active.remove(id)
            else:
                assert id in active
        assert active == {instance.id for instance in outcome.instances}
        # And what state the alert is in.
        for was, now in statuses(outcome):
            assert was == status
            status = AlertStatus(now)
        assert status == outcome.status
        if isinstance(run, str):
            assert outcome.instances == tuple(before.values())
            continue
        for instance in outcome.instances:
            check_notified(instance, before.get(instance.id), at, life)


def check_notified(now: Instance, before: Instance | None, at: int, life: Life) -> None:
    """The stamp of the last message moves exactly when somebody had to be told."""
    assert now.notified is not None
    told_now = now.notified.at == at
    if before is None:
        assert told_now
        assert now.started_at == at
        return
    assert now.started_at == before.started_at
    assert before.notified is not None
    named = before.subgroup and now.subgroup
    changed = before.group != now.group or bool(named and before.subgroup != now.subgroup)
    over = at - before.notified.at >= life.alert.spec.throttle_us
    mode = life.alert.spec.notifies_when
    due = mode is NotifyWhen.ON_ACTIVE_ALERT or (mode is NotifyWhen.ON_THROTTLE_INTERVAL and over)
    assert told_now == (changed or due)


@given(RUNS, MODES, THROTTLES, st.integers(2, 5))
def test_nothing_is_lost_when_runs_are_full(
    runs: list[tuple[str | dict[str, tuple[str, str] | None], int]],
    mode: NotifyWhen | None,
    throttle: str,
    room: int,
) -> None:
    """Each end in the log is told in its run, no run tells too much, and what waits is told soon, and once."""
    groups = ("default", "critical", "critical", "recovered", "recovered")
    actions = tuple(Action(group, "mail", {"body": "x"}) for group in groups)
    life = Life(spec(notify_when=mode, throttle=throttle, actions=actions))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tocsin_server.domain.decisions.RUN_MESSAGES_MAX", room)
        for run, _ in runs:
            outcome = life.fail() if isinstance(run, str) else life.run(*reports(run))
            if isinstance(run, str):
                continue
            assert len(outcome.notifications) <= room
            decided = verdicts(outcome)
            ended = {line.split()[1] for line in told(outcome) if line.startswith("recovered")}
            assert ended == {id for id, verdict in decided.items() if verdict == "RECOVERED"}
            assert {one.id for one in outcome.instances if one.waits_since} == {
                id for id, verdict in decided.items() if verdict == "DEFERRED"
            }
        life.alert = spec(notify_when=NotifyWhen.ON_ACTION_GROUP_CHANGE, actions=actions)
        for _ in range(len(IDS)):  # one instance a run at least
            life.run(found("a"))
        assert verdicts(life.run(found("a"))) == {"a": "UNCHANGED"}
        assert set(life.memory.instances) == {"a"}


@dataclass
class Known:
    """What the plain table remembers of an instance: where it was, and what was told of it last."""

    group: str
    subgroup: str
    told: tuple[str, int] | None = None
    waits: bool = False  # a change of its sub-group was not told


@dataclass
class Table:
    """The table of docs/alerting.md, written down a second time and as plainly as can be."""

    mode: NotifyWhen
    throttle: int
    known: dict[str, Known] = field(default_factory=dict)

    def run(
        self,
        at: int,
        active: Mapping[str, tuple[str, str]],
        muted: Collection[str],
        silenced: Collection[str],
        whole: bool,
    ) -> dict[str, str]:
        verdicts = {}
        for id in [id for id in self.known if whole and id not in active]:
            del self.known[id]
            verdicts[id] = "SILENCED" if id in silenced else "MUTED" if id in muted else "RECOVERED"
        for id, (group, subgroup) in active.items():
            before = self.known.get(id)
            verdict = self.verdict(id, before, (group, subgroup), at, muted, silenced)
            told = (group, at) if verdict in TELLING else before.told if before else None
            changed = bool(before and before.subgroup and subgroup and before.subgroup != subgroup)
            waits = verdict in ("MUTED", "SILENCED") and (changed or bool(before and before.waits))
            self.known[id] = Known(group, subgroup, told, waits)
            verdicts[id] = verdict
        return verdicts

    def verdict(
        self,
        id: str,
        before: Known | None,
        now: tuple[str, str],
        at: int,
        muted: Collection[str],
        silenced: Collection[str],
    ) -> str:
        if id in silenced:
            return "SILENCED"
        if id in muted:
            return "MUTED"
        if before is None or before.told is None:
            return "FIRST"
        if before.waits or now[0] != before.told[0] or (before.subgroup and now[1] and before.subgroup != now[1]):
            return "GROUP_CHANGED"
        if self.mode is NotifyWhen.ON_ACTIVE_ALERT:
            return "EVERY_RUN"
        if self.mode is NotifyWhen.ON_ACTION_GROUP_CHANGE:
            return "UNCHANGED"
        return "THROTTLE_ENDED" if at - before.told[1] >= self.throttle else "THROTTLED"


TELLING = {"FIRST", "GROUP_CHANGED", "EVERY_RUN", "THROTTLE_ENDED"}
SOME = st.sets(st.sampled_from(IDS))
HOW = st.sampled_from(["whole", "whole", "whole", "limit", "error"])
FOUND = st.fixed_dictionaries({id: ACTIVITY for id in IDS})
QUIET_RUNS = st.lists(st.tuples(HOW, FOUND, st.booleans(), SOME, SOME, st.integers(1, 3)), max_size=25)


@given(QUIET_RUNS, MODES, THROTTLES)
def test_who_is_told_is_what_the_table_says(
    runs: list[tuple[str, dict[str, tuple[str, str] | None], bool, set[str], set[str], int]],
    mode: NotifyWhen | None,
    throttle: str,
) -> None:
    """Trap 1, trap 2, trap 5, trap 8, KI6, KI7: mutes, silences, failed runs and runs at a limit over any life.

    Neither moves the clock of the throttle; a run that fails decides nothing, one at a limit ends nothing.
    """
    alert = spec(notify_when=mode, throttle=throttle)
    life, table = Life(alert), Table(alert.spec.notifies_when, alert.spec.throttle_us)
    for how, run, mute_all, muted, silenced, minutes in runs:
        life.alert = replace(alert, mute_all=mute_all, muted_instance_ids=tuple(muted))
        at, active = life.at, {id: activity for id, activity in run.items() if activity}
        if how == "error":
            assert not verdicts(life.fail())
            continue
        outcome = life.run(*reports(run), silenced=silenced, limit_reached=how == "limit")
        assert verdicts(outcome) == table.run(at, active, IDS if mute_all else muted, silenced, how == "whole")
        life.at = at + minutes * MINUTE
        for notification in outcome.notifications:
            verdict = verdicts(outcome)[notification.instance_id]
            assert bool(notification.silence_id) == (verdict == "SILENCED")
            assert verdict not in ("MUTED", "THROTTLED", "UNCHANGED")
        actions = {action.group for action in alert.spec.actions}
        for id, verdict in verdicts(outcome).items():
            if verdict in TELLING and active[id][0] in actions:
                assert id in {n.instance_id for n in outcome.notifications}
