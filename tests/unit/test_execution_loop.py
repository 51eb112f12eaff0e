"""The loop that executes alerts, over a store that a test writes: when it claims, starts, waits, stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from tocsin_server.dispatch.execution import BACKSTOP_S, CLAIMED_MAX, CLAIMS_APART_S, RUNS_MAX, THREADS, Execution
from tocsin_server.dispatch.loop import Loop
from tocsin_server.domain.alerting import RUNS_APART_MAX, AlertStatus, AlertTypes
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.execution import Claim, Claims, Performed, Run, RunOutcome, Work
from tocsin_server.domain.instances import Memory
from tocsin_server.domain.ports import Runtime
from tocsin_server.domain.schedule import SECOND_US

from tests.support.lives import ALERT, T0, TYPE

RUNTIME = Runtime(now=lambda: T0, monotonic=lambda: 0.0, new_id=lambda: "0" * 32, jitter=lambda: 0.5)
FAILED = TocsinError(Reason.STORAGE_FAILED, "the store did not take the write")
APART = replace(TYPE, id="example.apart", apart=True)
OUTCOME = RunOutcome(AlertStatus.OK, None, {}, ())


def claim(number: int) -> Claim:
    return Claim("acme", f"alert-{number}", TYPE.id, 1, T0, T0, 0)


@dataclass
class FakeRuns:
    """`AlertRuns` with claims that are given, and runs that end when the test says so."""

    due: list[Claim] = field(default_factory=list)
    next_due_at: int | None = None
    errors: dict[str, Exception] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    go_apart: asyncio.Event = field(default_factory=asyncio.Event)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        error = self.errors.get(name)
        if error is not None:
            raise error

    async def release(self) -> None:
        self._call("release")

    async def claim(self, limit: int, lease_us: int) -> Claims:
        self._call("claim")
        claimed, self.due = self.due[:limit], self.due[limit:]
        return Claims(tuple(claimed), self.next_due_at)

    async def perform(self, claim: Claim, work: Work, timeout_s: float) -> Performed | None:
        self._call("perform")
        await self.go.wait()
        return Performed(Run(claim, ALERT, Memory(), None), OUTCOME)

    async def perform_apart(self, claim: Claim, work: Work, timeout_s: float) -> Performed | None:
        self._call("perform_apart")
        await self.go_apart.wait()
        return Performed(Run(claim, ALERT, Memory(), None), OUTCOME)

    async def settle(self, performed: Performed) -> bool:
        self._call("settle")
        self.settled.append(performed.run.claim.alert_id)
        return True


@dataclass
class Bench:
    """One loop with its store, and the wake-ups that it asked for."""

    runs: FakeRuns
    wakes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.execution = Execution(self.runs, AlertTypes([TYPE, APART]), RUNTIME)
        self.execution.wake_in = self.wakes.append

    async def until_settled(self, count: int) -> None:
        """Step as the loop would: whenever a run has ended."""
        async with asyncio.timeout(5):
            while len(self.runs.settled) < count:
                await self.execution.step()
                await asyncio.sleep(0)


async def test_leases_are_given_back_once_before_the_first_claim() -> None:
    bench = Bench(FakeRuns())
    bench.runs.errors["release"] = FAILED
    with pytest.raises(TocsinError):
        await bench.execution.step()
    del bench.runs.errors["release"]
    await bench.execution.step()
    await bench.execution.step()
    assert bench.runs.calls == ["release", "release", "claim", "claim"]


@pytest.mark.parametrize(
    ("next_due_at", "wakes"),
    [
        (None, []),
        (T0 + 3 * SECOND_US, [3.0]),
        (T0 - SECOND_US, [CLAIMS_APART_S]),
        (T0 + int(BACKSTOP_S) * SECOND_US, []),
    ],
)
async def test_the_next_look_is_when_a_run_is_due(next_due_at: int | None, wakes: list[float]) -> None:
    """What lies beyond the backstop is found by it: no timers pile up."""
    bench = Bench(FakeRuns(next_due_at=next_due_at))
    assert not await bench.execution.step()
    assert bench.wakes == wakes


async def test_no_more_work_at_once_than_there_are_threads() -> None:
    bench = Bench(FakeRuns([claim(n) for n in range(CLAIMED_MAX + 5)]))
    await bench.execution.step()
    await asyncio.sleep(0)
    assert bench.runs.calls.count("perform") == THREADS
    assert not await bench.execution.step()  # so many are under way: nothing is claimed
    assert bench.runs.calls.count("claim") == 1
    bench.runs.go.set()
    await bench.until_settled(CLAIMED_MAX + 5)
    assert sorted(bench.runs.settled) == sorted(f"alert-{n}" for n in range(CLAIMED_MAX + 5))
    assert 0.0 in bench.wakes  # each end of a run has the loop look again


async def test_a_loop_gets_through_all_that_is_due_without_its_backstop() -> None:
    """A look that was put off, because claims waited or all places were taken, is made when a run has ended."""
    bench = Bench(FakeRuns([claim(n) for n in range(3 * CLAIMED_MAX + 5)], next_due_at=T0))
    bench.runs.go.set()
    loop = Loop("executing", bench.execution.step, backstop_s=600.0)
    bench.execution.wake_in = loop.wake_in
    running = asyncio.create_task(loop.run())
    async with asyncio.timeout(5):
        while len(bench.runs.settled) < 3 * CLAIMED_MAX + 5:
            await asyncio.sleep(0)
    running.cancel()
    assert bench.runs.calls.count("claim") >= 4


async def test_runs_that_wait_apart_keep_no_other_waiting() -> None:
    """Code of others may wait for a network as long as it likes: so many at a time, beside the rest."""
    apart = [replace(claim(n), alert_id=f"apart-{n}", alert_type_id=APART.id) for n in range(2 * RUNS_MAX)]
    bench = Bench(FakeRuns([*apart, *(claim(n) for n in range(5))]))
    bench.runs.go.set()
    await bench.until_settled(5)
    assert sorted(bench.runs.settled) == [f"alert-{n}" for n in range(5)]
    assert bench.runs.calls.count("perform_apart") == RUNS_APART_MAX
    bench.runs.go_apart.set()
    await bench.until_settled(5 + 2 * RUNS_MAX)


async def test_stopping_finishes_what_is_under_way_and_begins_nothing() -> None:
    bench = Bench(FakeRuns([claim(n) for n in range(RUNS_MAX + 3)]))
    await bench.execution.step()
    await asyncio.sleep(0)
    stopping = asyncio.create_task(bench.execution.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    bench.runs.go.set()
    await stopping
    assert len(bench.runs.settled) == RUNS_MAX
    assert not await bench.execution.step()
    assert bench.runs.calls.count("claim") == 1


@pytest.mark.parametrize("where", ["perform", "settle"])
@pytest.mark.parametrize("error", [FAILED, RuntimeError("a bug")], ids=["storage", "bug"])
async def test_a_run_that_cannot_be_written_is_left_to_its_lease(where: str, error: Exception) -> None:
    """XF: the loop goes on; the run is repeated when its lease ends."""
    bench = Bench(FakeRuns(errors={where: error}))
    bench.runs.go.set()
    await bench.execution.execute(claim(1))
    assert bench.runs.settled == []
    bench.runs.errors.clear()
    await bench.execution.execute(claim(2))
    assert bench.runs.settled == ["alert-2"]
