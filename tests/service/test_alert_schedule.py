"""Runs of alerts over time, on a real store: the loop's step, claims and runs, driven by a clock that a test holds."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from tocsin_server.dispatch.execution import Execution
from tocsin_server.domain.alerting import InstanceReport, Report, RunContext
from tocsin_server.domain.executions import ExecutionQuery
from tocsin_server.domain.schedule import SECOND_US, Ticks
from tocsin_server.store.executions import Executions

from tests.support.alert_house import MINUTE, SCRIPTED, House, deliveries

DAY = 24 * 60 * MINUTE
NEVER_S = 24 * 3600.0


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for company in a commit, and the loop for nothing but what is due."""
    monkeypatch.setattr("tocsin_server.store.writer.PATIENCE_S", 0.0)
    monkeypatch.setattr("tocsin_server.dispatch.execution.BACKSTOP_S", NEVER_S)


@dataclass
class Scheduler:
    """The loop of `dispatch/loop.py` in the house's time: it steps, and sleeps as long as the step has asked."""

    house: House
    late: random.Random | None = None  # by how much it sleeps too long, up to 20 s
    wakes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.house.execution.wake_in = self.wakes.append

    async def step(self) -> None:
        """Take one step and wait for the runs that it began."""
        await self.house.execution.step()
        await asyncio.gather(*self.house.execution._running)

    async def sleep(self) -> None:
        asked = min(seconds for seconds in self.wakes if seconds > 0)
        self.wakes.clear()
        self.house.clock.time += round(asked * SECOND_US)
        if self.late is not None:
            self.house.clock.time += self.late.randrange(20 * SECOND_US)


async def runs_of(house: House, alert_id: str) -> list[tuple[int, str]]:
    """Give the scheduled time of each run and what it decided about its instance, or nothing."""
    query = ExecutionQuery("acme", alert_id)
    found = await Executions(house.writer, house.readers).executions(query, None, 10_000)
    return [
        (one.scheduled_at, one.instances[0].decision.verdict.value if one.instances else "") for one in reversed(found)
    ]


async def test_a_throttle_of_one_interval_tells_in_every_run(house: House) -> None:
    """Trap 9, through claims and runs: a day of runs that begin late, with runs by hand in between.

    A run by hand, and the first tick after the run at once, lie less than the throttle after a message: they obey it,
    and the clock does not move.
    """
    chance = random.Random(9)
    alert = await house.create(replace(SCRIPTED, throttle="1m"))
    house.scripted.says("a")
    records, scheduler = Executions(house.writer, house.readers), Scheduler(house, chance)
    house.runs.written = records.tell
    created, by_hand = house.clock.time, set()
    while house.clock.time < created + DAY:
        await scheduler.step()
        if chance.random() < 0.05:
            house.clock.time += 20 * SECOND_US
            asked = asyncio.create_task(records.run_now("acme", alert.id))
            await house.writer.run(lambda tx: None)  # it has asked
            await scheduler.step()
            by_hand.add((await asked).scheduled_at)
        await scheduler.sleep()
    ran = await runs_of(house, alert.id)
    on_ticks = [(at, verdict) for at, verdict in ran if at not in by_hand]
    first = Ticks.of(alert.id, MINUTE).after(created)
    assert on_ticks[:2] == [(created, "FIRST"), (first, "THROTTLED")]
    assert on_ticks[2:] == [(first + n * MINUTE, "THROTTLE_ENDED") for n in range(1, len(on_ticks) - 1)]
    assert len(on_ticks) >= 24 * 60
    assert len(by_hand) > 50
    assert {verdict for at, verdict in ran if at in by_hand} == {"THROTTLED"}
    assert len(deliveries(house)) == len(on_ticks) - 1


async def test_three_days_of_a_one_minute_alert(house: House) -> None:
    """Nothing drifts, is missed or is told twice: the store, claims, `Execution` and its clock, a restart at midnight.

    The loop's own timers do not take part: `Scheduler` sleeps in their place. A year of the parts that are pure is
    in `tests/unit/test_decisions.py`.
    """
    alert = await house.create(replace(SCRIPTED, throttle="1h"))
    first = Ticks.of(alert.id, MINUTE).after(house.clock.time)

    def report(context: RunContext) -> Report:
        minute = (context.scheduled_at - first) // MINUTE
        active = minute >= 0 and minute % 1440 < 1430  # 23 h 50 min of each day
        return Report((InstanceReport("a", "default"),) if active else ())

    house.scripted.report = report
    for day in range(1, 4):
        scheduler = Scheduler(house, random.Random(day))
        while house.clock.time < first + day * DAY:
            await scheduler.step()
            await scheduler.sleep()
        house = house.reopened()
    rows = house.rows("SELECT scheduled_at, missed FROM alert_executions ORDER BY number")
    house.close()
    assert rows[1:] == [(first + n * MINUTE, 0) for n in range(3 * 24 * 60)]
    groups = Counter(subject["action_group"] for *_, subject in deliveries(house))
    assert groups == {"default": 3 * 24, "recovered": 3}
    assert house.told() == ["new_instance", "recovered_instance"] * 3


async def test_two_schedulers_whose_clocks_are_apart_apply_each_run_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 15, in its form for one process: two schedulers over one store, 30 s apart, with leases of 20 s."""
    monkeypatch.setattr("tocsin_server.dispatch.execution.LEASE_S", 20.0)
    slow, fast = house.execution, Execution(house.runs, house.types, house.clock.runtime())
    for scheduler in (slow, fast):
        await scheduler.step()  # the first takes back what a process before had claimed
    alert = await house.create(SCRIPTED)
    first = Ticks.of(alert.id, MINUTE).after(house.clock.time)
    house.scripted.says("a")
    await house.run_due()
    both, begun, alone = threading.Barrier(2), threading.Event(), threading.Event()

    def shared(context: RunContext) -> Report:
        begun.set()
        both.wait(10)  # both are in the same run
        return Report((InstanceReport("a", "default"),))

    def held(context: RunContext) -> Report:
        assert alone.wait(10)
        return Report((InstanceReport("a", "default"),))

    for tick in range(first, first + 20 * MINUTE, 2 * MINUTE):
        # The clock that is ahead takes the other's lease for ended.
        house.scripted.report = shared
        house.clock.time = tick + 5 * SECOND_US
        begun.clear()
        await slow.step()
        assert await asyncio.to_thread(begun.wait, 10)
        house.clock.time += 30 * SECOND_US
        await fast.step()
        await asyncio.gather(*slow._running, *fast._running)
        # The clock that is ahead comes first, before its time, and the other does not do it again.
        house.scripted.report = held
        alone.clear()
        house.clock.time = tick + MINUTE
        await fast.step()
        taken = []
        for seconds in (-30, 40):  # by the other clock it is not due yet, and then it is leased
            house.clock.time += seconds * SECOND_US
            await slow.step()
            taken.append(len(slow._running))
        alone.set()
        await asyncio.gather(*slow._running, *fast._running)
        assert taken == [0, 0]
    ticks = [first + n * MINUTE for n in range(20)]
    assert [at for at, _ in (await runs_of(house, alert.id))[1:]] == ticks
    assert Counter(context.scheduled_at for context in house.scripted.seen[1:]) == {
        at: 2 - n % 2 for n, at in enumerate(ticks)
    }
    assert len(deliveries(house)) == 21
    assert house.told() == ["new_instance"]
