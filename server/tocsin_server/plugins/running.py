"""Running the executor of a plug-in: on a thread of its own, for so long, and its words as a report.

The thread that a run has been given is one of few. A plug-in's code runs on another one: when its time is
over the run ends, whatever the code goes on doing, and its place is free. An `async` executor is cancelled; one
that is not cannot be stopped and keeps its own thread until it returns. Such threads are counted and bounded.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from tocsin_server.domain.alerting import Executor, Report, RunContext, RunErrorReason
from tocsin_server.domain.instances import RunFailure
from tocsin_server.plugins.services import Ending, ExecutorOptions, Services, State, serialised

# Runs that have taken too long and still keep a thread: of one alert, of one account's alerts of a type, of a type.
# What hangs for one alert keeps none of the others waiting, and what hangs for one account none of the others.
HUNG_MAX = {"alert": 2, "account": 4, "type": 16}


class PluginThreads:
    """The threads of all plug-ins of a server: one for each run under way, and those that hang."""

    def __init__(self, hung_max: Mapping[str, int] = HUNG_MAX) -> None:
        self._hung_max = hung_max
        self._hung: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def run(self, work: Callable[[float], Any], timeout_s: float, type_id: str, context: RunContext) -> Any:
        """Run `work`, which is told how many seconds it has; RunFailure (TIMEOUT) when they are over.

        The run is over then, and its place is free for another, whatever the thread goes on doing.
        """
        holders = {
            "alert": (type_id, context.space, context.alert_id),
            "account": (type_id, context.space),
            "type": (type_id,),
        }
        self._refuse(holders)
        future: Future[Any] = Future()
        # A daemon: a plug-in that never ends does not keep the server from ending.
        threading.Thread(target=self._work, args=(work, timeout_s, future), name="plug-in", daemon=True).start()
        try:
            return future.result(timeout_s)
        except FutureTimeout as error:
            if future.done() and future.exception() is error:
                raise  # it is the plug-in's own
            self._hangs(future, holders)
            raise _late(timeout_s) from None

    def _refuse(self, holders: Mapping[str, tuple[str, ...]]) -> None:
        with self._lock:
            full = next((name for name, key in holders.items() if self._hung[key] >= self._hung_max[name]), None)
        if full is not None:
            message = f"{self._hung_max[full]} runs of this {full} have taken too long and have not ended yet"
            raise RunFailure(RunErrorReason.TIMEOUT, message)

    def _hangs(self, future: Future[Any], holders: Mapping[str, tuple[str, ...]]) -> None:
        with self._lock:
            self._hung.update(holders.values())
        future.add_done_callback(lambda done: self._ended(holders))

    def _ended(self, holders: Mapping[str, tuple[str, ...]]) -> None:
        with self._lock:
            self._hung.subtract(holders.values())
            self._hung = +self._hung

    @staticmethod
    def _work(work: Callable[[float], Any], left: float, future: Future[Any]) -> None:
        try:
            future.set_result(work(left))
        except BaseException as error:  # the run's thread decides, also about sys.exit
            future.set_exception(error)


def executor_of(
    type_id: str,
    executor: Callable[[ExecutorOptions], State | Awaitable[State]],
    timeout_s: float,
    threads: PluginThreads,
) -> Executor:
    """Make an executor of the server's of one of a plug-in's."""

    def execute(context: RunContext) -> Report:
        ending = Ending()
        services = Services(context, type_id, ending)
        options = ExecutorOptions.of(context, services)
        try:
            state = threads.run(lambda left: _called(executor, options, left, timeout_s), timeout_s, type_id, context)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RunFailure(RunErrorReason.EXECUTE, f"the executor raised {type(error).__name__}") from error
        finally:
            ending.end()
        return Report(services.reports(), serialised({} if state is None else state))

    return execute


def _called(
    executor: Callable[[ExecutorOptions], State | Awaitable[State]],
    options: ExecutorOptions,
    left: float,
    timeout_s: float,
) -> State:
    """Call an executor; one that is `async` in an event loop of this run."""
    answer = executor(options)
    return asyncio.run(_within(answer, left, timeout_s)) if inspect.isawaitable(answer) else answer


async def _within(answer: Awaitable[State], left: float, timeout_s: float) -> State:
    timer = asyncio.timeout(left)
    try:
        async with timer:
            return await answer
    except TimeoutError:
        if timer.expired():
            raise _late(timeout_s) from None
        raise


def _late(timeout_s: float) -> RunFailure:
    return RunFailure(RunErrorReason.TIMEOUT, f"the run took longer than {timeout_s:g} s")
