"""The pulse of an event loop: how late it is, told when it was held up for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from tocsin_server.domain.histograms import Histogram

log = structlog.get_logger("tocsin.api")
BEAT_S = 0.05
LATE_S = 0.1  # every call waits while the loop is held up; a tenth of a second is felt
TELL_EVERY_S = 60.0


class Pulse:
    """Beats on its loop, and logs at most once a minute how often and how long it was late.

    The CPU time of the loop's thread tells why: about as long as the delay where our own code held it up,
    much shorter where the machine gave it no time.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tell_at = 0.0
        self._count = 0
        self._worst_s = 0.0
        self._worst_cpu_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self.lateness = Histogram()  # of every beat, in seconds

    def start(self) -> None:
        """Begin to beat."""
        self._task = asyncio.get_running_loop().create_task(self._beat())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            began, cpu = self._monotonic(), time.thread_time()
            await asyncio.sleep(BEAT_S)
            now = self._monotonic()
            self.saw(now, now - began - BEAT_S, time.thread_time() - cpu)

    def saw(self, now: float, late_s: float, cpu_s: float) -> None:
        """Take in one beat; tell of those that were late, if nothing was told in the last minute."""
        self.lateness.saw(max(late_s, 0.0))
        if late_s > LATE_S:
            self._count += 1
            if late_s > self._worst_s:
                self._worst_s, self._worst_cpu_s = late_s, cpu_s
        if not self._count or now < self._tell_at:
            return
        log.warning(
            "the event loop was held up",
            times=self._count,
            worst_ms=round(self._worst_s * 1000),
            cpu_ms=round(self._worst_cpu_s * 1000),
        )
        self._tell_at = now + TELL_EVERY_S
        self._count, self._worst_s, self._worst_cpu_s = 0, 0.0, 0.0
