"""Sharing a durable consumer with an asynchronous iterator that survives disconnects."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

from tocsin.aio.channel import AsyncStream
from tocsin.consumers import Delivery, Say, Sharing, merged
from tocsin.consumption import CLOSE_S
from tocsin.errors import TocsinError
from tocsin.subscription import OnDisconnect
from tocsin.v1.event_log_pb2 import Consumer, ConsumeRequest, ConsumeResponse

Join = Callable[..., AsyncStream[ConsumeResponse]]
"""Opens a stream, given what this side says."""


class _Said:
    """What this side of one stream says, in one event loop."""

    def __init__(self, start: ConsumeRequest) -> None:
        self._waiting = deque([start])
        self._ended = False
        self._changed = asyncio.Event()

    def say(self, request: ConsumeRequest) -> None:
        """Send a message; after the end it is dropped, for its lease has ended too."""
        if not self._ended:
            self._waiting.append(request)
            self._changed.set()

    def end(self) -> None:
        """End this side, after what was said."""
        self._ended = True
        self._changed.set()

    async def requests(self) -> AsyncIterator[ConsumeRequest]:
        """Give what is said until the end."""
        while True:
            while self._waiting:
                yield merged(self._waiting.popleft(), self._waiting)
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()


class AsyncConsumption:
    """Deliveries of a consumer, across any number of connections.

    Iterate over it, and `ack` or `nack` each delivery. One task iterates; `close` may be awaited by
    another and ends the iteration: it waits until the server has stored what was settled, and gives
    the rest back. A server that is away is waited for without end. Raises what a new connection
    cannot mend: NotFound, InvalidField, Unauthenticated, PermissionDenied.
    """

    def __init__(
        self,
        connect: Join,
        sharing: Sharing,
        on_disconnect: OnDisconnect | None = None,
    ) -> None:
        self._connect = connect
        self._sharing = sharing
        self._on_disconnect = on_disconnect
        self._stream: AsyncStream[ConsumeResponse] | None = None
        self._said: _Said | None = None
        self._reading = asyncio.Lock()
        self._closed = asyncio.Event()

    @property
    def consumer(self) -> Consumer | None:
        """The consumer as the server described it last; None before the first connection."""
        return self._sharing.consumer

    @property
    def connections(self) -> int:
        """How many times the server has let this client join; more than 1 after a disconnect."""
        return self._sharing.connections

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        while not self._closed.is_set():
            if (delivery := self._sharing.next()) is not None:
                return delivery
            await self._receive()
        raise StopAsyncIteration

    async def close(self) -> None:
        """Leave: what was settled is stored, the rest goes to others. May be called again."""
        self._closed.set()
        stream, said = self._stream, self._said
        if stream is None or said is None:
            return
        said.end()
        try:
            async with asyncio.timeout(CLOSE_S), self._reading:
                async for _ in stream:
                    pass
        except (TocsinError, TimeoutError):
            pass  # it is over either way; what was not stored comes again
        finally:
            stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _receive(self) -> None:
        error: TocsinError | None = None
        stream, say = self._joined()
        try:
            async with self._reading:
                self._sharing.take(await anext(stream), say)
            return
        except StopAsyncIteration:
            pass
        except TocsinError as failure:
            error = failure
        except asyncio.CancelledError:
            # A task that is being cancelled ends; its stream is not left open.
            self._closed.set()
            self._leave()
            stream.cancel()
            raise
        if self._closed.is_set():
            return
        self._leave()
        await self._wait(error)

    async def _wait(self, error: TocsinError | None) -> None:
        try:
            wait_s = self._sharing.broken(error, random.random())
        except TocsinError:
            self._closed.set()
            raise
        if self._on_disconnect is not None:
            self._on_disconnect(error, wait_s)
        try:
            await asyncio.wait_for(self._closed.wait(), wait_s)
        except TimeoutError:
            return

    def _joined(self) -> tuple[AsyncStream[ConsumeResponse], Say]:
        if self._stream is None or self._said is None:
            self._said = _Said(self._sharing.start)
            self._stream = self._connect(self._said.requests(), wait_for_ready=True)
        return self._stream, self._said.say

    def _leave(self) -> None:
        if self._said is not None:
            self._said.end()
        self._stream = self._said = None
