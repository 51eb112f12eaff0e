"""Runs of alerts on a real store with a clock that is held still: fences, crashes, catching up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tocsin_server.dispatch.execution import Execution
from tocsin_server.domain.aggregation import EventQuestion
from tocsin_server.domain.alerting import (
    Action,
    AlertStatus,
    AlertType,
    AlertTypes,
    InstanceReport,
    Params,
    Report,
    RunContext,
    RunErrorReason,
)
from tocsin_server.domain.errors import Reason, TocsinError, Violation
from tocsin_server.domain.selection import EventFilter

from tests.support.alert_house import LEASE, MINUTE, SCRIPTED, T0, House, deliveries, scripted_type

Logged = Callable[[], list[dict[str, Any]]]


async def test_a_run_writes_everything_at_once(house: House) -> None:
    """KE18, XE5: state, instances, events, deliveries and the next run in one transaction."""
    alert = await house.create(SCRIPTED)
    house.scripted.says("web-1")
    (claim,) = await house.run_due()
    assert (claim.number, claim.scheduled_at, claim.missed) == (1, T0, 0)
    assert house.events() == [("new_instance", alert.id), ("status_changed", alert.id)]
    assert deliveries(house) == [
        (
            f"alert/{alert.id}/1/web-1/0",
            "PENDING",
            "",
            {"body": "web-1 is bad"},
            {
                "alert_id": alert.id,
                "instance_id": "web-1",
                "action_group": "default",
                "run_number": 1,
                "verdict": "FIRST",
            },
        )
    ]
    stored = await house.alerts.get("acme", alert.id)
    assert (stored.status, stored.last_execution_at, stored.error) == (AlertStatus.ACTIVE, T0, None)
    state = await house.alerts.state("acme", alert.id)
    assert list(state.memory.instances) == ["web-1"]
    assert state.previous_started_at == T0


async def test_the_next_run_is_at_the_alerts_own_phase(house: House) -> None:
    alert = await house.create(SCRIPTED)
    await house.run_due()
    assert await house.run_due() == []
    (next_run_at,) = house.rows("SELECT next_run_at FROM alert_tasks")[0]
    assert T0 < next_run_at <= T0 + MINUTE
    house.clock.time = next_run_at
    (claim,) = await house.run_due()
    assert claim.scheduled_at == next_run_at
    assert (await house.runs.claim(1, LEASE)).next_due_at == next_run_at + MINUTE
    assert [context.previous_started_at for context in house.scripted.seen] == [None, T0]
    assert {context.alert_id for context in house.scripted.seen} == {alert.id}


@pytest.mark.parametrize("moment", ["claimed", "performed"])
async def test_a_crash_repeats_the_run_and_applies_it_once(house: House, moment: str) -> None:
    """Trap 6, XE5: kill -9 before the settling transaction; the same scheduled time, one message."""
    await house.create(SCRIPTED)
    house.scripted.says("web-1")
    first = await house.claim()
    if moment == "performed":
        assert await house.execution._performed(first) is not None
    house.clock.time += 1000  # later by less than a tick: a newer tick would be run in its place
    after = house.reopened()
    try:
        assert deliveries(after) == []
        await after.runs.release()
        (second,) = await after.run_due()
        assert (second.scheduled_at, second.number) == (first.scheduled_at, first.number + 1)
        assert len(deliveries(after)) == 1
        assert after.told() == ["new_instance"]
        await after.execution.execute(first)
        assert len(deliveries(after)) == 1
    finally:
        after.close()


async def test_a_lease_keeps_others_away_until_it_ends(house: House) -> None:
    """XE8: one claim at a time; the first is fenced off when it comes late."""
    await house.create(SCRIPTED)
    house.scripted.says("web-1")
    first = await house.claim()
    assert await house.run_due() == []
    house.clock.time += LEASE
    (second,) = await house.run_due()
    assert second.number == first.number + 1
    written = deliveries(house)
    await house.execution.execute(first)
    assert deliveries(house) == written


async def test_three_hours_down_are_one_run(house: House) -> None:
    """XE7: the newest tick, and the next one in its place."""
    await house.create(SCRIPTED)
    await house.run_due()
    house.clock.time += 3 * 60 * MINUTE
    (claim,) = await house.run_due()
    assert house.clock.time - MINUTE < claim.scheduled_at <= house.clock.time
    assert claim.missed in (179, 180)
    assert await house.run_due() == []


async def test_what_was_reported_recovers_with_a_message(house: House) -> None:
    await house.create(SCRIPTED)
    house.scripted.says("web-1")
    await house.run_due()
    house.clock.time += MINUTE
    house.scripted.says()
    await house.run_due()
    assert house.told() == ["new_instance", "recovered_instance"]
    assert [content["body"] for _, _, _, content, _ in deliveries(house)] == ["web-1 is bad", "web-1 is fine"]
    assert house.rows("SELECT * FROM alert_instances") == []


async def test_an_executor_that_raises_changes_only_the_status(house: House) -> None:
    """KE7, XE1: and its text does not leave the log."""
    alert = await house.create(SCRIPTED)
    house.scripted.says("web-1")
    await house.run_due()

    def explode(context: RunContext) -> Report:
        raise RuntimeError("the password is 1234")

    house.scripted.report = explode
    house.clock.time += MINUTE
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.status is AlertStatus.ERROR
    assert failed.error is not None
    assert failed.error.reason is RunErrorReason.EXECUTE
    assert "1234" not in failed.error.message
    assert list((await house.alerts.state("acme", alert.id)).memory.instances) == ["web-1"]
    house.scripted.says("web-1")
    house.clock.time += MINUTE
    await house.run_due()
    assert house.told() == ["new_instance"]
    assert [c.previous_started_at for c in house.scripted.seen][-1] == T0


async def test_a_check_that_raises_is_an_error_of_the_run(house: House) -> None:
    """XE1: the code of a type's own check is not trusted either."""

    def check(params: Params) -> list[Violation]:
        raise KeyError("of the check")

    alert = await house.create(SCRIPTED)
    types = AlertTypes([scripted_type(house.scripted, check=check)])
    house.execution = Execution(house.runs, types, house.clock.runtime())
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.error is not None
    assert (failed.status, failed.error.reason) == (AlertStatus.ERROR, RunErrorReason.EXECUTE)


async def test_a_claim_that_does_not_hold_any_more_is_not_worked_on(house: House) -> None:
    alert = await house.create(SCRIPTED)
    stale = await house.claim()
    await house.alerts.update(alert, run_now=False)
    await house.execution.execute(stale)
    assert not house.scripted.seen


async def test_a_run_that_takes_too_long_is_an_error(house: House) -> None:
    """XE2: the query is interrupted, the alert runs again at its next tick."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def slow(context: RunContext) -> Report:
        context.events._connection.execute(endless).fetchone()  # type: ignore[attr-defined]
        return Report()

    house.types = AlertTypes([scripted_type(slow, timeout_s=0.05)])
    house.execution = Execution(house.runs, house.types, house.clock.runtime())
    alert = await house.create(SCRIPTED)
    await house.run_due()
    late = await house.alerts.get("acme", alert.id)
    assert late.error is not None
    assert late.error.reason is RunErrorReason.TIMEOUT
    assert house.rows("SELECT next_run_at > ? FROM alert_tasks", T0) == [(1,)]


async def test_a_run_that_gets_no_thread_in_its_time_is_an_error_too(house: House) -> None:
    """XE2: it is written as one that failed, and comes again at its next tick, not when its lease ends."""
    go = threading.Event()
    blockers = [
        house.readers.submit(lambda connection: go.wait(10)) for _ in range(2)
    ]  # all the threads that there are
    house.types = AlertTypes([scripted_type(house.scripted, timeout_s=0.05)])
    house.execution = Execution(house.runs, house.types, house.clock.runtime())
    alert = await house.create(SCRIPTED)
    asyncio.get_running_loop().call_later(0.5, go.set)
    await house.run_due()
    assert all(blocker.done() for blocker in blockers)
    late = await house.alerts.get("acme", alert.id)
    assert late.error is not None
    assert late.error.reason is RunErrorReason.TIMEOUT
    assert house.scripted.seen == []
    assert house.rows("SELECT next_run_at > ? FROM alert_tasks", T0) == [(1,)]


@pytest.mark.parametrize("types", [[], [scripted_type(lambda c: Report(), enabled=False)]])
async def test_a_type_that_is_gone_or_off_is_an_error(house: House, types: list[AlertType]) -> None:
    """KC9."""
    alert = await house.create(SCRIPTED)
    house.execution = Execution(house.runs, AlertTypes(types), house.clock.runtime())
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.error is not None
    assert failed.error.reason is RunErrorReason.DISABLED


async def test_params_are_checked_before_each_run(house: House) -> None:
    """KR8: a type whose schema has changed."""
    alert = await house.create(SCRIPTED)
    strict = scripted_type(house.scripted, params_schema={"type": "object", "required": ["n"]})
    house.execution = Execution(house.runs, AlertTypes([strict]), house.clock.runtime())
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.error is not None
    assert failed.error.reason is RunErrorReason.PARAMS
    assert house.scripted.seen == []


@pytest.mark.parametrize("change", ["update", "disable", "delete", "disable and enable"])
async def test_a_change_during_a_run_drops_the_run(house: House, logged: Logged, change: str) -> None:
    """XE9: nothing of a run is written that began with another alert, and the server's log says so."""
    alert = await house.create(SCRIPTED)
    loop = asyncio.get_running_loop()

    async def other() -> None:
        if change == "update":
            await house.alerts.update(alert, run_now=False)
        elif change == "delete":
            await house.alerts.delete("acme", alert.id)
        else:
            await house.alerts.disable("acme", alert.id, "u")
            if "enable" in change:
                await house.alerts.enable("acme", alert.id, "u")

    def report(context: RunContext) -> Report:
        asyncio.run_coroutine_threadsafe(other(), loop).result(10)
        return Report((InstanceReport("web-1", "default"),))

    house.scripted.report = report
    (stale,) = await house.run_due()
    (line,) = logged()
    assert (line["event"], line["level"]) == ("the alert was changed during its run; the run is dropped", "info")
    assert (line["alert_id"], line["run_number"]) == (alert.id, stale.number)
    assert deliveries(house) == []
    assert house.events() == []
    # Changed, it is due again for the same time at once; disabled or deleted, never.
    house.scripted.says("web-1")
    again = await house.run_due()
    assert [c.scheduled_at for c in again] == ([T0] if change in ("update", "disable and enable") else [])


async def test_disabling_ends_the_instances(house: House) -> None:
    """Trap 7: closed with a reason, nobody notified, nothing left when it is enabled again."""
    alert = await house.create(SCRIPTED)
    house.scripted.says("web-1")
    await house.run_due()
    sent = deliveries(house)
    disabled = await house.alerts.disable("acme", alert.id, "someone")
    assert (disabled.enabled, disabled.updated_by, disabled.status) == (False, "someone", AlertStatus.PENDING)
    assert house.told() == ["new_instance", "recovered_instance"]
    assert deliveries(house) == sent
    assert (await house.alerts.state("acme", alert.id)).memory.instances == {}
    house.clock.time += 10 * MINUTE
    assert await house.run_due() == []
    assert (await house.alerts.disable("acme", alert.id, "u")).version == disabled.version
    await house.alerts.enable("acme", alert.id, "u")
    (claim,) = await house.run_due()
    assert (claim.scheduled_at, claim.missed) == (house.clock.time, 0)
    assert house.told() == ["new_instance", "recovered_instance", "new_instance"]


async def test_how_a_delivery_waits(house: House) -> None:
    """A configuration that is off, an endpoint that is off, one that was deleted, another account's."""
    await house.configure("off", enabled=False)
    await house.configure("theirs", account="other")
    ids = ("hook", "off", "gone", "theirs")
    actions = tuple(Action("default", id, {"body": "x"}) for id in ids)
    await house.create(replace(SCRIPTED, actions=actions))
    house.scripted.says("a")
    await house.run_due()
    assert [(state, reason) for _, state, reason, _, _ in deliveries(house)] == [
        ("PENDING", ""),
        ("PAUSED", "DISABLED"),
        ("CANCELLED", "DELETED"),
        ("CANCELLED", "DELETED"),
    ]


async def test_a_message_that_cannot_be_rendered_ends_at_once(house: House) -> None:
    """XD27: EXHAUSTED {RENDER}, and its neighbours go out."""
    await house.create(SCRIPTED)
    big = {"server": "<" * 60_000}
    house.scripted.report = lambda context: Report(
        (InstanceReport("big", "default", big), InstanceReport("small", "default", {"server": "s"}))
    )
    await house.run_due()
    assert [(state, reason) for _, state, reason, _, _ in deliveries(house)] == [
        ("EXHAUSTED", "RENDER"),
        ("PENDING", ""),
    ]


async def test_an_old_version_is_not_written_over_a_new_one(house: House) -> None:
    alert = await house.create(SCRIPTED)
    first = await house.alerts.update(replace(alert, spec=replace(alert.spec, name="one")), run_now=False)
    with pytest.raises(TocsinError) as refused:
        await house.alerts.update(replace(alert, spec=replace(alert.spec, name="two")), run_now=False)
    assert refused.value.reason is Reason.CONFLICT
    assert await house.alerts.get("acme", alert.id) == first


async def test_an_account_has_so_many_alerts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_server.store.alerting.ALERTS_MAX", 2)
    await house.create(SCRIPTED, account="other")
    await house.create(SCRIPTED)
    await house.create(SCRIPTED)
    with pytest.raises(TocsinError) as refused:
        await house.create(SCRIPTED)
    assert refused.value.reason is Reason.LIMIT_REACHED


async def test_an_executor_cannot_group_by_anything_else(house: House) -> None:
    """No word of an executor reaches a statement."""

    def curious(context: RunContext) -> Report:
        context.events.aggregate(EventQuestion(EventFilter(None), T0, ("body FROM events --",)))
        return Report()

    house.scripted.report = curious
    alert = await house.create(SCRIPTED)
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.error is not None
    assert "ValueError" in failed.error.message


async def test_every_call_keeps_to_the_account(house: House) -> None:
    """P5: another account's alert does not exist."""
    alert = await house.create(SCRIPTED)
    calls: Sequence[Callable[[], Any]] = (
        lambda: house.alerts.get("other", alert.id),
        lambda: house.alerts.update(replace(alert, account="other"), run_now=True),
        lambda: house.alerts.delete("other", alert.id),
        lambda: house.alerts.enable("other", alert.id, "u"),
        lambda: house.alerts.disable("other", alert.id, "u"),
        lambda: house.alerts.state("other", alert.id),
    )
    for call in calls:
        with pytest.raises(TocsinError) as refused:
            await call()
        assert refused.value.reason is Reason.NOT_FOUND
    assert await house.alerts.kinds("other", ["hook"]) == {}
    assert await house.alerts.get("acme", alert.id) == alert
