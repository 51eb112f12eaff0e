"""Readiness beyond start and end: while nothing can be stored, health checks say so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tocsin_server.domain.errors import TocsinError

log = structlog.get_logger("tocsin.api")
LOOK_AGAIN_S = 1.0


class Readiness:
    """Has the services be told NOT_SERVING when the disk is full, and SERVING when there is room again."""

    def __init__(self, tell: Callable[[bool], Awaitable[None]], has_room: Callable[[], Awaitable[bool]]) -> None:
        self._tell = tell
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Task[None] | None = None
        self._stopped = False

    def full(self) -> None:
        """Be told, on any thread, that something was not stored because there was no room."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if not self._stopped and (self._waiting is None or self._waiting.done()):
            self._waiting = self._loop.create_task(self._wait())

    async def _wait(self) -> None:
        log.error("the disk of the store is full: nothing is stored until there is room")
        await self._tell(False)
        while not await self._look():
            await asyncio.sleep(LOOK_AGAIN_S)
        await self._tell(True)
        log.info("the store has room again")

    async def _look(self) -> bool:
        try:
            return await self._has_room()
        except (OSError, TocsinError):
            return False

    async def stop(self) -> None:
        """Say nothing any more."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
