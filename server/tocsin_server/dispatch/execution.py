"""Runs alerts when they are due: the loop, and the step.

    claim    a run that is due gets a number and a lease; `next_run_at` stays where it is
    perform  the alert as it is now, what its runs left behind, the executor and what follows from its report: in
             one visit of a thread that may only read
    settle   everything the run leaves behind in one transaction, if nobody else has taken over

Whatever happens in between, the run is repeated for the same scheduled time and applied once.
Nothing is decided here but when; what follows from a report is in `domain/execution.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

import structlog

from tocsin_server.domain.aggregation import EventReads
from tocsin_server.domain.alert_checks import fitting
from tocsin_server.domain.alerting import (
    RUNS_APART_MAX,
    AlertStatus,
    AlertType,
    AlertTypes,
    Params,
    RunError,
    RunErrorReason,
)
from tocsin_server.domain.decisions import Verdict
from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.execution import Claim, Performed, Run, RunOutcome, Work, attempt, fail, perform
from tocsin_server.domain.histograms import Histogram
from tocsin_server.domain.ports import AlertRuns, Runtime
from tocsin_server.domain.schedule import Ticks

log = structlog.get_logger("tocsin.alerting")

THREADS = 2  # that runs work on: they read, and share one interpreter
APART_WAITING_MAX = 64  # runs apart that wait for each other and take no place of the others
RUNS_MAX = 16  # under way: those that do not work wait for a thread or for the disk
CLAIMED_MAX = 64  # runs that one transaction claims; those that wait for a thread are leased too
LEASE_S = 300.0  # longer than claimed runs wait and take; after it the run is repeated
CLAIMS_APART_S = 0.02  # at least, unless somebody asks: what is due within it is claimed in one transaction
UNUSABLE_TIMEOUT_S = 60.0  # of a run that only finds that its type cannot be used
BACKSTOP_S = 30.0  # of the loop: the clock may have been set, so it looks now and then
FITTING_MAX = 100_000  # alerts whose params are known to fit: checking them costs half a run
SECOND_US = 1_000_000


class Execution:
    """Executes the alerts of all accounts; `step` belongs to a `Loop`, whose `wake_in` it is given."""

    def __init__(self, runs: AlertRuns, types: AlertTypes, runtime: Runtime) -> None:
        self._runs = runs
        self._types = types
        self._runtime = runtime
        self._released = False
        self._stopping = False
        self._waiting: deque[Claim] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._threads = asyncio.Semaphore(THREADS)
        self._put_off = False  # a look at what is due, until a run has ended
        self._apart = asyncio.Semaphore(RUNS_APART_MAX)
        self._runs_apart = 0
        # Of alerts whose params fit: the version, and the params where the type has completed them.
        self._fitting: dict[str, tuple[int, Params | None]] = {}
        self.statuses: Counter[AlertStatus] = Counter()  # of runs that were written
        self.delays = Histogram()  # seconds from the time of a run to its start
        self.wake_in: Callable[[float], None] = lambda seconds: None

    async def step(self) -> bool:
        """Claim what is due and begin it as far as threads are free; tell whether there may be more."""
        if not self._released:
            await self._runs.release()
            self._released = True
        self._put_off = bool(self._waiting) or not self._room()
        if self._stopping or not self._room():
            return False
        if not self._waiting:
            claimed = await self._runs.claim(CLAIMED_MAX, int(LEASE_S * SECOND_US))
            self._waiting.extend(claimed.claims)
            self._look_again(claimed.next_due_at)
        while self._waiting and self._room():
            self._start(self._waiting.popleft())
        return False

    def _room(self) -> int:
        return RUNS_MAX - len(self._running) + min(self._runs_apart, APART_WAITING_MAX)

    def _look_again(self, next_due_at: int | None) -> None:
        if next_due_at is not None:
            seconds = (next_due_at - self._runtime.now()) / SECOND_US
            if seconds < BACKSTOP_S:
                self.wake_in(max(seconds, CLAIMS_APART_S))

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self.execute(claim))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._stopping and (self._waiting or self._put_off):
            self.wake_in(0.0)

    async def stop(self) -> None:
        """Begin no more runs and wait for those under way; what was only claimed is repeated."""
        self._stopping = True
        self._waiting.clear()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def execute(self, claim: Claim) -> None:
        """Execute one claimed run; whatever goes wrong is written down or left to the lease."""
        told = log.bind(account=claim.account, alert_id=claim.alert_id, run_number=claim.number)
        if claim.missed:
            told.info("runs were missed; one run stands in for them", missed=claim.missed)
        try:
            performed = await self._performed(claim)
            if performed is None:
                return
            run, outcome = performed.run, performed.outcome
            waiting = sum(one.verdict is Verdict.DEFERRED for one in outcome.decisions)
            if waiting:
                told.warning("more messages were due than fit into a run; the next tells the rest", waiting=waiting)
            if await self._runs.settle(performed):
                self._count(claim, outcome)
            else:
                told.info("the alert was changed during its run; the run is dropped")
            interval_us = run.alert.spec.interval_us
            self._look_again(Ticks.of(claim.alert_id, interval_us).after(claim.scheduled_at))
        except TocsinError as error:
            told.warning("a run cannot be written; it is repeated", reason=error.reason)
        except Exception:
            told.exception("a run failed in the server; it is repeated when its lease ends")

    def _count(self, claim: Claim, outcome: RunOutcome) -> None:
        self.statuses[outcome.status] += 1
        self.delays.saw(max(claim.started_at - claim.scheduled_at, 0) / SECOND_US)

    async def _performed(self, claim: Claim) -> Performed | None:
        """Perform a run; its time begins when a thread is free for it. None when it does not hold."""
        alert_type = self._types.find(claim.alert_type_id)
        if alert_type is None or not alert_type.enabled:
            async with self._threads:
                return await self._runs.perform(claim, _unusable, UNUSABLE_TIMEOUT_S)
        work = self._work(alert_type)
        if not alert_type.apart:
            async with self._threads:
                return await self._runs.perform(claim, work, alert_type.timeout_s)
        self._runs_apart += 1
        self.wake_in(0.0)  # there is room for another run
        try:
            async with self._apart:
                return await self._runs.perform_apart(claim, work, alert_type.timeout_s)
        finally:
            self._runs_apart -= 1

    def _work(self, alert_type: AlertType) -> Work:
        """Give what a run of a type does; one that cannot be performed is one that failed."""

        def work(run: Run, events: EventReads) -> RunOutcome:
            def raised(error: Exception) -> None:
                log.error("an executor raised", account=run.alert.account, alert_id=run.alert.id, exc_info=error)

            began = self._runtime.monotonic()
            outcome = attempt(lambda: perform(self._fitted(run, alert_type), alert_type, events), run, raised)
            return replace(outcome, duration_us=int((self._runtime.monotonic() - began) * SECOND_US))

        return work

    def _fitted(self, run: Run, alert_type: AlertType) -> Run:
        """Give a run with params as the type, as it is in this process, wants them; RunFailure when they do not fit."""
        alert = run.alert
        version, params = self._fitting.get(alert.id, (-1, None))
        if version != alert.version:
            fitted = fitting(alert, alert_type)
            if len(self._fitting) >= FITTING_MAX:
                self._fitting.clear()
            params = None if fitted is alert else fitted.spec.params
            self._fitting[alert.id] = (alert.version, params)
        if params is None:
            return run
        return replace(run, alert=replace(alert, spec=replace(alert.spec, params=params)))


def _unusable(run: Run, events: EventReads) -> RunOutcome:
    message = f'Alert type "{run.alert.spec.alert_type_id}" is not registered or disabled.'
    return fail(run.memory, RunError(RunErrorReason.DISABLED, message))
