"""Following the log with an asynchronous iterator that survives disconnects."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Self

from tocsin.aio.channel import AsyncStream, AsyncStreaming
from tocsin.errors import TocsinError
from tocsin.following import After, Item, Progress
from tocsin.subscription import OnDisconnect
from tocsin.v1.event_log_pb2 import Event, SubscribeRequest, SubscribeResponse


class AsyncSubscription:
    """Events in the order of their positions, each once, across any number of connections.

    Iterate over it for the events, or over `items()` to hear of catching up too. One task iterates;
    `close` may be called from another and ends the iteration. A server that is away is waited for
    without end. Raises what a new connection cannot mend: LogChanged, PositionAhead, InvalidField,
    Unauthenticated, PermissionDenied.
    """

    def __init__(
        self,
        connect: AsyncStreaming[SubscribeRequest, SubscribeResponse],
        progress: Progress,
        on_disconnect: OnDisconnect | None = None,
    ) -> None:
        self._connect = connect
        self._progress = progress
        self._on_disconnect = on_disconnect
        self._stream: AsyncStream[SubscribeResponse] | None = None
        self._closed = asyncio.Event()

    @property
    def position(self) -> int | None:
        """Everything up to here has been handed out; None before the server has named a place."""
        return self._progress.position

    @property
    def log_id(self) -> str:
        """Identity of the log that `position` belongs to; empty before the first connection."""
        return self._progress.log_id

    @property
    def after(self) -> After | None:
        """What to start after to go on from here, also in another process."""
        return None if self.position is None else After(self.position, self.log_id)

    @property
    def connections(self) -> int:
        """How many times the server has confirmed the subscription; more than 1 after a disconnect."""
        return self._progress.connections

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (item := await self._next_item()) is not None:
            if isinstance(item, Event):
                return item
        raise StopAsyncIteration

    async def items(self) -> AsyncIterator[Item]:
        """Hand out the events and a `CaughtUp` each time that nothing is left to read."""
        while (item := await self._next_item()) is not None:
            yield item

    def close(self) -> None:
        """End the subscription. May be called again, and from another task."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _next_item(self) -> Item | None:
        while not self._closed.is_set():
            if (item := self._progress.next()) is not None:
                return item
            if self._progress.done:
                self.close()
            else:
                await self._receive()
        return None

    async def _receive(self) -> None:
        error: TocsinError | None = None
        if self._stream is None:
            self._stream = self._connect(self._progress.request(), wait_for_ready=True)
        try:
            self._progress.take(await anext(self._stream))
            return
        except StopAsyncIteration:
            pass
        except TocsinError as failure:
            error = failure
        except asyncio.CancelledError:
            # close() cancels the call and gRPC says so in the reader; a task that is itself being
            # cancelled has to end.
            if not self._closed.is_set() or is_being_cancelled():
                self.close()
                raise
        if self._closed.is_set():
            return
        self._stream = None
        await self._wait(error)

    async def _wait(self, error: TocsinError | None) -> None:
        try:
            wait_s = self._progress.broken(error, random.random())
        except TocsinError:
            self.close()
            raise
        if self._on_disconnect is not None:
            self._on_disconnect(error, wait_s)
        try:
            await asyncio.wait_for(self._closed.wait(), wait_s)
        except TimeoutError:
            return


def is_being_cancelled() -> bool:
    """Tell whether the running task is to end, and not only the call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
