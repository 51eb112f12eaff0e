"""Watching deliveries with an asynchronous iterator that survives disconnects."""

from __future__ import annotations

import asyncio
import random
from typing import Self

from tocsin.aio.channel import AsyncStream, AsyncStreaming
from tocsin.aio.subscription import is_being_cancelled
from tocsin.errors import TocsinError
from tocsin.retries import Backoff
from tocsin.subscription import OnDisconnect
from tocsin.v1.notifications_pb2 import WatchDeliveriesRequest, WatchDeliveriesResponse
from tocsin.watching import Connectivity


class AsyncDeliveryWatch:
    """Deliveries as they change, across any number of connections.

    The first message of each connection is empty: nothing is missed from then on. What changed before it, and
    while the server was away, is to be listed then. One task iterates; `close` may be called from another and ends
    the iteration. A server that is away is waited for without end. Raises what a new connection cannot mend:
    InvalidField, Unauthenticated, PermissionDenied.
    """

    def __init__(
        self,
        connect: AsyncStreaming[WatchDeliveriesRequest, WatchDeliveriesResponse],
        request: WatchDeliveriesRequest,
        backoff: Backoff,
        on_disconnect: OnDisconnect | None = None,
    ) -> None:
        self._connect = connect
        self._request = request
        self._connectivity = Connectivity(backoff)
        self._on_disconnect = on_disconnect
        self._stream: AsyncStream[WatchDeliveriesResponse] | None = None
        self._closed = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many times the server has begun to tell; more than 1 after a disconnect."""
        return self._connectivity.connections

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchDeliveriesResponse:
        while not self._closed.is_set():
            error: TocsinError | None = None
            if self._stream is None:
                self._stream = self._connect(self._request, wait_for_ready=True)
            try:
                message = await anext(self._stream)
                self._connectivity.took()
                return message
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
            if not self._closed.is_set():
                await self._wait(error)
        raise StopAsyncIteration

    def close(self) -> None:
        """End the watch. May be called again, and from another task."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _wait(self, error: TocsinError | None) -> None:
        self._stream = None
        try:
            wait_s = self._connectivity.broken(error, random.random())
        except TocsinError:
            self.close()
            raise
        if self._on_disconnect is not None:
            self._on_disconnect(error, wait_s)
        try:
            await asyncio.wait_for(self._closed.wait(), wait_s)
        except TimeoutError:
            return
