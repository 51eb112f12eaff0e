"""The dispatch thread put together: routing, delivering and executing, started and stopped as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tocsin_server.dispatch.delivery import Deliverer
from tocsin_server.dispatch.endpoint_tests import EndpointTests
from tocsin_server.dispatch.execution import BACKSTOP_S, Execution
from tocsin_server.dispatch.loop import DispatchThread, Loop
from tocsin_server.dispatch.routing import Router
from tocsin_server.dispatch.sending import Sender
from tocsin_server.domain.delivery_ports import Outbox
from tocsin_server.domain.notifications import Attempt, Delivery, EndpointConfiguration
from tocsin_server.domain.ports import EndpointKind, Runtime
from tocsin_server.domain.verdicts import Verdict

SWEEP_EVERY_S = 60.0


class Dispatcher:
    """Routing, delivering, sweeping, runs of alerts and `also` other loops on the dispatch thread; see `loop.py`."""

    def __init__(
        self,
        outbox: Outbox,
        runtime: Runtime,
        kinds: Mapping[str, EndpointKind],
        close_ways_out: Callable[[], Awaitable[None]],
        backstop_s: float,
        ui_url: str = "",
        enabled: bool = True,
        execution: Execution | None = None,
        new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        also: Sequence[Loop] = (),
        docs_url: str = "",
    ) -> None:
        self.thread = DispatchThread(new_event_loop)
        self._outbox = outbox
        self._close_ways_out = close_ways_out
        sender = Sender(outbox, runtime, kinds, ui_url, docs_url)
        self._tests = EndpointTests(outbox, runtime, sender)
        self._deliverer = Deliverer(outbox, runtime, kinds, lambda: self._router.book, sender, enabled)
        self._router = Router(outbox, runtime, self._deliverer.lanes, self._deliverer.start, self._deliverer.booked)
        self._routing = Loop("routing", self._router.step, backstop_s)
        self._delivering = Loop("delivering", self._deliverer.step, backstop_s)
        self._sweeping = Loop("sweeping", self._sweep, SWEEP_EVERY_S)
        self._also = also
        self._execution = execution
        self._executing = Loop("executing", execution.step, BACKSTOP_S) if execution else None

    async def start(self) -> None:
        """Take over routing and leases, then begin; called on another event loop."""
        self.thread.start()
        await self.thread.call(self._start())

    async def _start(self) -> None:
        self._router.wake = self._routing.wake
        self._router.queued = self._delivering.wake
        self._deliverer.reload_book = self._tests.reload_book = self._reload
        self._deliverer.wake_in = self._delivering.wake_in
        await self._router.begin()
        for loop in (self._routing, self._delivering, self._sweeping, *self._also):
            await self.thread.run(loop)
        if self._execution is not None and self._executing is not None:
            self._execution.wake_in = self._executing.wake_in
            await self.thread.run(self._executing)
        await self._outbox.accompany(self._router)

    async def _sweep(self) -> bool:
        await self._outbox.sweep()
        return False

    @property
    def attempts(self) -> Mapping[tuple[str, Verdict], int]:
        """How many attempts have ended, by kind and verdict."""
        return self._deliverer.attempts

    @property
    def behind(self) -> int:
        """How many events the router has not looked at yet; none while nobody waits for any."""
        return max(self._outbox.head - self._router.position, 0) if self._router.has_selectors else 0

    def follows_closely(self) -> bool:
        """Tell whether the router has to hear of a commit: else the timer is soon enough; called from any thread."""
        return self._router.is_behind

    def nudge(self) -> None:
        """Have the router look now, whether or not anybody waits for events; called from any thread."""
        self.thread.loop.call_soon_threadsafe(self._routing.wake)

    def log_changed(self) -> None:
        """Look at the log; called on the dispatch thread."""
        self._routing.wake()

    def configurations_changed(self) -> None:
        """Read configurations anew and look for deliveries that may go on; called from any thread."""
        self.thread.loop.call_soon_threadsafe(self._reload)

    def _reload(self) -> None:
        self._router.stale()
        self._routing.wake()
        self._look()

    def _look(self) -> None:
        self._deliverer.look_anew()
        self._delivering.wake()

    def wake(self, loop: Loop) -> None:
        """Have a loop look now; called from any thread."""
        self.thread.loop.call_soon_threadsafe(loop.wake)

    def deliveries_queued(self) -> None:
        """Look for deliveries that wait; called from any thread."""
        self.thread.loop.call_soon_threadsafe(self._look)

    def alerts_changed(self) -> None:
        """Look for runs that are due; called from any thread."""
        if self._executing is not None:
            self.thread.loop.call_soon_threadsafe(self._executing.wake)

    async def test(self, configuration: EndpointConfiguration, stored: bool) -> tuple[Delivery, Attempt]:
        """Send one test message; see `domain.ports.Tester`."""
        return await self.thread.call(self._tests.test(configuration, stored))

    async def stop(self) -> None:
        """Stop claiming, let attempts finish, end the thread."""
        await self.thread.call(self._stop())
        self.thread.stop()

    async def _stop(self) -> None:
        await self._outbox.accompany(None)
        await self.thread.end_loops()
        if self._execution is not None:
            await self._execution.stop()
        await self._deliverer.stop()
        await self._close_ways_out()
