"""The dispatch thread: an event loop of its own, and the loops that run on it.

A loop waits until it is woken or its backstop passes, then takes steps until one has nothing to do. A
step that fails is logged and tried again: no fault of one delivery or alert ends a loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger("tocsin.dispatch")
T = TypeVar("T")
PAUSE_AFTER_FAULT_S = 1.0


class Loop:
    """One loop: waits for a wake-up or its backstop, then steps until there is nothing to do."""

    def __init__(self, name: str, step: Callable[[], Awaitable[bool]], backstop_s: float) -> None:
        self.name = name
        self._step = step
        self._backstop_s = backstop_s
        self._woken = asyncio.Event()
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0  # kept here: a handle of uvloop whose time has come does not tell

    def wake(self) -> None:
        """Have the loop look again; called on its event loop."""
        self._woken.set()

    def wake_in(self, seconds: float) -> None:
        """Have the loop look again after a while, or sooner if that was asked before: there is one timer."""
        due = asyncio.get_running_loop().time() + max(seconds, 0.0)
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer, self._timer_due = asyncio.get_running_loop().call_at(due, self._ring), due

    def _ring(self) -> None:
        self._timer = None
        self._woken.set()

    async def run(self) -> None:
        """Run until cancelled."""
        self._woken.set()
        while True:
            # The backstop: a lost wake-up costs latency, never work.
            backstop = asyncio.get_running_loop().call_later(self._backstop_s, self._woken.set)
            await self._woken.wait()
            backstop.cancel()
            self._woken.clear()
            try:
                while await self._step():
                    pass
            except Exception:
                log.exception("a step failed", loop=self.name)
                self.wake_in(PAUSE_AFTER_FAULT_S)


class DispatchThread:
    """Runs coroutines on a thread with an event loop; started and stopped from elsewhere."""

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        self.loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the thread and wait for it from another event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    async def run(self, loop: Loop) -> None:
        """Begin to run a loop; called on the thread."""
        self._tasks.append(asyncio.create_task(loop.run(), name=loop.name))

    async def end_loops(self) -> None:
        """Cancel the loops and wait for them; called on the thread."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
