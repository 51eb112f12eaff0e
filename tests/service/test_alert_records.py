"""What runs of alerts leave behind: throttles over restarts, the record of executions, silences as they are written."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from tocsin_server.domain.aggregation import EventReads
from tocsin_server.domain.alerting import Action, Alert, InstanceReport, NotifyWhen, Report, RunContext
from tocsin_server.domain.decisions import Verdict
from tocsin_server.domain.execution import Run, RunOutcome, perform
from tocsin_server.domain.executions import EXECUTION_KEPT_US, ExecutionQuery
from tocsin_server.domain.replay import Order, replay
from tocsin_server.domain.schedule import Ticks
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.silences import Silence
from tocsin_server.store import executions
from tocsin_server.store.execution import _settle as settle
from tocsin_server.store.silences import SilenceStore

from tests.support.alert_house import LEASE, MINUTE, SCRIPTED, House, deliveries


async def test_a_throttle_holds_over_a_restart_and_a_clock_that_jumps(house: House) -> None:
    """XE6: the clock of the throttle is in the same transaction, and is kept as long as the instance is active."""
    await house.create(replace(SCRIPTED, throttle="1h"))
    house.scripted.says("web-1")
    await house.run_due()
    house = house.reopened()
    try:
        for minutes in (1, -30, 40):  # on, back before the first run, on again
            house.clock.time += minutes * MINUTE
            await house.run_due()
        assert len(deliveries(house)) == 1
        house = house.reopened()
        house.clock.time += 60 * MINUTE
        await house.run_due()
        assert [key.split("/")[3] for key, *_ in deliveries(house)] == ["web-1", "web-1"]
    finally:
        house.close()


async def test_executions_are_kept_a_week(house: House) -> None:
    await house.create(SCRIPTED)
    await house.run_due()
    house.clock.time += EXECUTION_KEPT_US - MINUTE
    await house.run_due()
    house.clock.time += 2 * MINUTE
    assert await house.writer.run(executions.purge)
    assert house.rows("SELECT started_at FROM alert_executions") == [(house.clock.time - 2 * MINUTE,)]


async def test_an_alert_keeps_so_many_executions(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are rows, whatever changes of the alert and runs by hand came between them."""
    monkeypatch.setattr("tocsin_server.store.executions.EXECUTIONS_MAX", 3)
    alert = await house.create(SCRIPTED)
    records = executions.Executions(house.writer, house.readers)
    house.runs.written = records.tell
    for _ in range(5):
        alert = await house.alerts.update(alert, run_now=True)
        await house.run_due()
        house.clock.time += MINUTE
    kept = house.rows("SELECT number, ordinal FROM alert_executions WHERE alert_id = ?", alert.id)
    assert [ordinal for _, ordinal in kept] == [3, 4, 5]
    assert kept[-1][0] - kept[0][0] > 3


async def test_a_bound_that_has_come_down_is_reached_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.create(SCRIPTED)
    for most in (9, 9, 9, 9, 9, 2, 2, 2):
        monkeypatch.setattr("tocsin_server.store.executions.EXECUTIONS_MAX", most)
        await house.run_due()
        house.clock.time += MINUTE
    assert house.rows("SELECT ordinal FROM alert_executions") == [(7,), (8,)]


async def test_a_run_by_hand_takes_one_number(house: House) -> None:
    alert = await house.create(SCRIPTED)
    records = executions.Executions(house.writer, house.readers)
    house.runs.written = records.tell
    await house.run_due()
    numbers = []
    for _ in range(2):
        asked = asyncio.create_task(records.run_now("acme", alert.id))
        async with asyncio.timeout(10):
            while not await house.run_due():
                await asyncio.sleep(0)
            numbers.append((await asked).number)
    assert numbers == [2, 3]


async def test_a_run_whose_lease_is_over_is_not_the_answer_to_a_run_by_hand(house: House) -> None:
    """It has seen less than was there when somebody asked."""
    alert = await house.create(SCRIPTED)
    records = executions.Executions(house.writer, house.readers)
    house.runs.written = records.tell
    stale = await house.claim()
    house.clock.time += LEASE
    asked = asyncio.create_task(records.run_now("acme", alert.id))
    await house.writer.run(lambda tx: None)  # it has asked
    await house.execution.execute(stale)
    async with asyncio.timeout(10):
        while not await house.run_due():
            await asyncio.sleep(0)
        assert (await asked).number == stale.number + 2


async def test_a_run_by_hand_waits_for_the_run_under_way(house: House) -> None:
    """It ends none, however often somebody asks; those who ask together get one run."""
    alert = await house.create(SCRIPTED)
    records = executions.Executions(house.writer, house.readers)
    house.runs.written = records.tell
    under_way = await house.claim()
    asked = [asyncio.create_task(records.run_now("acme", alert.id)) for _ in range(3)]
    await house.writer.run(lambda tx: None)  # they have asked
    await house.execution.execute(under_way)
    async with asyncio.timeout(10):
        while not await house.run_due():
            await asyncio.sleep(0)
        found = await asyncio.gather(*asked)
    assert len({one.number for one in found}) == 1
    assert [number for (number,) in house.rows("SELECT number FROM alert_executions ORDER BY number")] == [
        under_way.number,
        found[0].number,
    ]


@pytest.mark.parametrize("comes", ["before", "meanwhile", "by itself"])
async def test_a_silence_that_begins_while_a_run_is_written_holds_for_it(house: House, comes: str) -> None:
    """Silences are judged beside the writer, as of the transaction that writes the run."""
    await house.create(SCRIPTED)
    house.scripted.says("web-1")
    store = SilenceStore(house.writer, house.readers)
    begins = house.clock.time + (1 if comes == "by itself" else 0)
    meant = EventFilter("acme", types=("system.alerting.*",))
    silence = Silence("acme", "", meant, begins, house.clock.time + MINUTE, "u", "quiet")

    async def begin() -> None:
        await store.create(silence, lambda now: None, "", b"")

    if comes != "meanwhile":
        await begin()
    alert_type = house.types.usable("test.scripted")
    performed = await house.runs.perform(await house.claim(), lambda run, log: perform(run, alert_type, log), 9)
    assert performed is not None and performed.judgement is not None
    assert bool(performed.judgement.silences) == (comes == "before")
    house.clock.time += 2
    if comes == "meanwhile":
        await begin()
    await house.writer.run(lambda tx: settle(tx, performed, False))
    assert [state for _, state, *_ in deliveries(house)] == ["SILENCED"]


async def test_a_run_writes_so_many_messages_and_the_next_ones_the_rest(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, over restarts; the record says that some have to wait."""
    monkeypatch.setattr("tocsin_server.domain.decisions.RUN_MESSAGES_MAX", 3)
    actions = tuple(Action(group, "hook", {"body": "x"}) for group in ("default", "default", "recovered", "recovered"))
    await house.create(replace(SCRIPTED, actions=actions, notify_when=NotifyWhen.ON_ACTION_GROUP_CHANGE))
    for names in (("a", "b"), ("a", "b"), (), ()):
        house.scripted.says(*names)
        await house.run_due()
        house.clock.time += MINUTE
        house = house.reopened()
    records = executions.Executions(house.writer, house.readers)
    (alert_id,) = house.rows("SELECT id FROM alerts")[0]
    found = await records.executions(ExecutionQuery("acme", alert_id), None, 10)
    house.close()
    assert [one.limit_reached for one in reversed(found)] == [True, False, True, False]
    told = [
        (key.split("/")[3], subject["run_number"], subject["action_group"]) for key, *_, subject in deliveries(house)
    ]
    assert told == [
        *[("a", 1, "default"), ("a", 1, "default"), ("b", 2, "default"), ("b", 2, "default")],
        *[("a", 3, "recovered"), ("a", 3, "recovered"), ("b", 4, "recovered"), ("b", 4, "recovered")],
    ]


@pytest.mark.parametrize("given", ["before it is judged", "before it is written"])
@pytest.mark.parametrize("ends", [False, True], ids=["mute", "unmute"])
@pytest.mark.parametrize("one", [False, True], ids=["all", "instance"])
async def test_mutes_hold_for_the_run_under_way(house: House, given: str, ends: bool, one: bool) -> None:
    """XE9: the run is kept, and told or not told as the mutes stand when it is written."""
    alert = await house.create(SCRIPTED)
    house.scripted.says("web-1", "web-2")

    async def mute(on: bool) -> None:
        change = {"muted_instance_ids": ("web-1",) if on else ()} if one else {"mute_all": on}
        await house.alerts.mute("acme", alert.id, "u", lambda a: replace(a, **change))

    if ends:
        await mute(True)
    loop, alert_type = asyncio.get_running_loop(), house.types.usable("test.scripted")

    def work(run: Run, log: EventReads) -> RunOutcome:
        if given == "before it is judged":
            asyncio.run_coroutine_threadsafe(mute(not ends), loop).result(5)
        return perform(run, alert_type, log)

    performed = await house.runs.perform(await house.claim(), work, 9)
    assert performed is not None
    anew, rendering = performed.outcome.anew, list[str]()
    assert anew is not None

    def noted(muted: Alert) -> RunOutcome:
        rendering.append(threading.current_thread().name)
        return anew(muted)

    performed = replace(performed, outcome=replace(performed.outcome, anew=noted))
    if given == "before it is written":
        await mute(not ends)
    assert await house.runs.settle(performed)
    assert len(rendering) == (given == "before it is written")
    assert "writer" not in rendering  # for which everybody waits who appends
    told = {"web-2"} if one else set()
    assert {key.split("/")[3] for key, *_ in deliveries(house)} == ({"web-1", "web-2"} if ends else told)
    assert house.told() == ["new_instance", "new_instance"]
    assert len(house.scripted.seen) == 1
    assert await house.run_due() == []


async def test_a_silence_is_asked_again_when_a_mute_has_ended(house: House) -> None:
    """What was muted when the run was judged is silenced when it is written."""
    alert = await house.create(SCRIPTED)
    await house.alerts.mute("acme", alert.id, "u", lambda a: replace(a, mute_all=True))
    house.scripted.says("web-1")
    meant = EventFilter("acme", types=("system.alerting.*",))
    silence = Silence("acme", "", meant, house.clock.time, house.clock.time + MINUTE, "u", "quiet")
    await SilenceStore(house.writer, house.readers).create(silence, lambda now: None, "", b"")
    performed = await house.execution._performed(await house.claim())
    assert performed is not None
    await house.alerts.mute("acme", alert.id, "u", lambda a: replace(a, mute_all=False))
    assert await house.runs.settle(performed)
    assert [state for _, state, *_ in deliveries(house)] == ["SILENCED"]


async def test_a_preview_has_no_more_room_than_live_runs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same decisions, run by run, through activity, turns, and recoveries that have to wait."""
    monkeypatch.setattr("tocsin_server.domain.decisions.RUN_MESSAGES_MAX", 3)
    actions = tuple(Action(group, "hook", {"body": "x"}) for group in ("default", "default", "recovered", "recovered"))
    alert = await house.create(replace(SCRIPTED, actions=actions))
    house.clock.time = start = Ticks.of(alert.id, MINUTE).after(house.clock.time)
    seen = [("a", "b", "c"), ("a", "b", "c"), ("c", "d"), ("d",), (), (), (), ()]

    def report(context: RunContext) -> Report:
        return Report(tuple(InstanceReport(id, "default") for id in seen[(context.scheduled_at - start) // MINUTE]))

    house.scripted.report = report
    for _ in seen:
        await house.run_due()
        house.clock.time += MINUTE
    found = await executions.Executions(house.writer, house.readers).executions(
        ExecutionQuery("acme", alert.id), None, 10
    )
    live = [[one.decision for one in execution.instances] for execution in reversed(found)]
    order = Order(alert, start, start + len(seen) * MINUTE, True)
    replayed = [list(one.outcome.decisions) for one in replay(order, house.types.usable("test.scripted"), NoReads())]
    assert replayed == live
    assert {one.verdict for decisions in live for one in decisions} >= {Verdict.DEFERRED, Verdict.RECOVERED}


class NoReads:
    """A log that nobody asks."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)
