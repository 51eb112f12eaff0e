"""Announcing: the notices of silences that start and end, written when their time has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tocsin_server.domain.ports import Runtime


class Announcer:
    """Has the store write what is due: `tell` gives when the next notice is, 0 when more are due now."""

    def __init__(self, tell: Callable[[], Awaitable[int | None]], runtime: Runtime) -> None:
        self._tell = tell
        self._runtime = runtime
        self.wake_in: Callable[[float], None] = lambda seconds: None

    async def step(self) -> bool:
        """Write what is due; tell whether there may be more."""
        due = await self._tell()
        if due:
            self.wake_in(max((due - self._runtime.now()) / 1e6, 0.0))
        return due == 0
