"""The loops of the dispatch thread, on both event loops that they may run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from tocsin_server.dispatch.loop import Loop


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_many_wishes_to_look_again_are_one_timer(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """One whose time has come is asked for once more, a later one gives way to a sooner one."""
    steps: asyncio.Queue[None] = asyncio.Queue()

    async def step() -> bool:
        steps.put_nowait(None)
        return False

    async def run() -> None:
        loop = Loop("test", step, 3600.0)
        running = asyncio.create_task(loop.run())
        async with asyncio.timeout(5):
            await steps.get()  # the first look is at once
            for _ in range(3):
                for seconds in (60.0, -1.0, 0.0, 0.0, 30.0):
                    loop.wake_in(seconds)
                await steps.get()
        assert steps.empty()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(run())
