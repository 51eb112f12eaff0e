"""Running the executor of a plug-in: on a thread of its own, for so long, and its words as a report.

The thread that a run has been given is one of few. A plug-in's code runs on another one: when its time is
over the run ends, whatever the code goes on doing. An `async` executor is cancelled; one that is not cannot
be stopped and keeps its thread until it returns, of which there are so many.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from time import monotonic
from typing import Any

from tocsin_server.domain.alerting import RUNS_APART_MAX, Executor, Report, RunContext, RunErrorReason
from tocsin_server.domain.instances import RunFailure
from tocsin_server.plugins.services import Ending, ExecutorOptions, Services, State, serialised

THREADS_MAX = 2 * RUNS_APART_MAX  # of all plug-ins: more than run at the same time, so that some may hang


class PluginThreads:
    """The threads of all plug-ins of a server."""

    def __init__(self, most: int = THREADS_MAX) -> None:
        self._most = most
        self._free = threading.BoundedSemaphore(most)

    def run(self, work: Callable[[float], Any], timeout_s: float) -> Any:
        """Run `work`, which is told how many seconds it has; RunFailure (TIMEOUT) when they are over."""
        deadline = monotonic() + timeout_s
        if not self._free.acquire(timeout=timeout_s):
            message = f"no thread is free: {self._most} runs of plug-ins have not ended"
            raise RunFailure(RunErrorReason.TIMEOUT, message)
        future: Future[Any] = Future()
        left = max(deadline - monotonic(), 0.0)
        # A daemon: a plug-in that never ends does not keep the server from ending.
        threading.Thread(target=self._work, args=(work, left, future), name="plug-in", daemon=True).start()
        try:
            return future.result(left)
        except FutureTimeout as error:
            if future.done() and future.exception() is error:
                raise  # it is the plug-in's own
            raise _late(timeout_s) from None

    def _work(self, work: Callable[[float], Any], left: float, future: Future[Any]) -> None:
        try:
            future.set_result(work(left))
        except BaseException as error:  # the run's thread decides, also about sys.exit
            future.set_exception(error)
        finally:
            self._free.release()


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
            state = threads.run(lambda left: _called(executor, options, left, timeout_s), timeout_s)
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
