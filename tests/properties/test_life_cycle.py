"""The life cycle over any sequence of runs: what the log and the messages say is what happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tocsin_server.domain.alerting import AlertStatus, InstanceReport, NotifyWhen
from tocsin_server.domain.instances import Instance

from tests.support.lives import MINUTE, Life, found, spec, statuses, told

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
