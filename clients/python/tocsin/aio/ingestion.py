"""Feeding events with an asynchronous iterator over what becomes of them, which survives disconnects."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Self

from tocsin.aio.channel import AsyncStream
from tocsin.errors import TocsinError
from tocsin.ingesting import Flow, Outcome
from tocsin.subscription import OnDisconnect
from tocsin.v1.event_log_pb2 import Event, IngestRequest, IngestResponse

Pour = Callable[..., AsyncStream[IngestResponse]]
"""Opens a stream, given what this side says."""


class AsyncIngestion:
    """Outcomes of events, in the order in which the events were fed, across any number of connections.

    Iterate over it to have the events stored. They are read by a task of its own, as fast as they are
    acknowledged; a batch is what has come by then, so an event that comes alone is sent at once. A server
    that is away is waited for without end. Raises what a new connection cannot mend (Unauthenticated,
    PermissionDenied), and what reading the events raised, after the outcomes of those before.
    """

    def __init__(
        self,
        connect: Pour,
        flow: Flow,
        events: AsyncIterable[Event] | Iterable[Event],
        on_disconnect: OnDisconnect | None = None,
    ) -> None:
        self._connect = connect
        self._flow = flow
        self._events = events
        self._on_disconnect = on_disconnect
        self._stream: AsyncStream[IngestResponse] | None = None
        self._generation = 0
        self._failure: Exception | None = None
        self._changed = asyncio.Condition()
        self._closed = asyncio.Event()
        self._feeder: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many streams there were; more than 1 after a disconnect."""
        return self._flow.connections

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        if self._feeder is None:
            self._feeder = asyncio.create_task(self._feed())
        while not self._closed.is_set():
            if (outcome := self._flow.next()) is not None:
                return outcome
            if self._flow.done:
                await self.close()
                if self._failure is not None:
                    raise self._failure
            else:
                await self._receive()
        raise StopAsyncIteration

    async def close(self) -> None:
        """End it. Events without an outcome may be stored or not. May be called again, and from another task."""
        self._closed.set()
        if self._feeder is not None:
            self._feeder.cancel()
        await self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _feed(self) -> None:
        try:
            async for event in _each(self._events):
                async with self._changed:
                    await self._changed.wait_for(lambda: self._flow.hungry)
                    self._flow.feed(event)
                    self._changed.notify_all()
        except Exception as failure:
            self._failure = failure
        async with self._changed:
            self._flow.ended = True
            self._changed.notify_all()

    async def _requests(self, generation: int) -> AsyncIterator[IngestRequest]:
        """Give the batches of one stream, until there are no more or another stream has begun."""
        while True:
            async with self._changed:
                request = None
                while generation == self._generation and (request := self._flow.request()) is None:
                    if self._flow.complete:
                        return
                    await self._changed.wait()
                if request is None:
                    return
                self._changed.notify_all()
            yield request

    async def _receive(self) -> None:
        error: TocsinError | None = None
        if self._stream is None:
            self._flow.connected()
            self._stream = self._connect(self._requests(self._generation), wait_for_ready=True)
        try:
            self._flow.take(await anext(self._stream))
            async with self._changed:
                self._changed.notify_all()
            return
        except StopAsyncIteration:
            pass
        except TocsinError as failure:
            error = failure
        except asyncio.CancelledError:
            # A task that is being cancelled ends; its stream is not left open.
            if not self._closed.is_set():
                await self.close()
                raise
        if self._closed.is_set():
            return
        await self._leave()
        if not self._flow.complete:
            await self._wait(error)

    async def _wait(self, error: TocsinError | None) -> None:
        try:
            wait_s = self._flow.broken(error, random.random())
        except TocsinError:
            await self.close()
            raise
        if self._on_disconnect is not None:
            self._on_disconnect(error, wait_s)
        try:
            await asyncio.wait_for(self._closed.wait(), wait_s)
        except TimeoutError:
            return

    async def _leave(self) -> None:
        """Leave a stream: whoever gives it batches has to end."""
        stream, self._stream = self._stream, None
        self._generation += 1
        if stream is not None:
            stream.cancel()
        async with self._changed:
            self._changed.notify_all()


async def _each(events: AsyncIterable[Event] | Iterable[Event]) -> AsyncIterator[Event]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event
