"""Following the log with a blocking iterator that survives disconnects."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Self

from tocsin.channel import Stream, Streaming
from tocsin.errors import TocsinError
from tocsin.following import After, Item, Progress
from tocsin.v1.event_log_pb2 import Event, SubscribeRequest, SubscribeResponse

OnDisconnect = Callable[[TocsinError | None, float], None]
"""Told about each break: the error (None: the server ended the stream) and the wait in seconds."""


class Subscription:
    """Events in the order of their positions, each once, across any number of connections.

    Iterate over it for the events, or over `items()` to hear of catching up too. One thread iterates;
    `close` may be called from any and ends the iteration. A server that is away is waited for without
    end. Raises what a new connection cannot mend: LogChanged, PositionAhead, InvalidField,
    Unauthenticated, PermissionDenied.
    """

    def __init__(
        self,
        connect: Streaming[SubscribeRequest, SubscribeResponse],
        progress: Progress,
        on_disconnect: OnDisconnect | None = None,
    ) -> None:
        self._connect = connect
        self._progress = progress
        self._on_disconnect = on_disconnect
        self._stream: Stream[SubscribeResponse] | None = None
        self._closed = threading.Event()

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

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while (item := self._next_item()) is not None:
            if isinstance(item, Event):
                return item
        raise StopIteration

    def items(self) -> Iterator[Item]:
        """Hand out the events and a `CaughtUp` each time that nothing is left to read."""
        while (item := self._next_item()) is not None:
            yield item

    def close(self) -> None:
        """End the subscription. May be called again, and from another thread."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_item(self) -> Item | None:
        while not self._closed.is_set():
            if (item := self._progress.next()) is not None:
                return item
            if self._progress.done:
                self.close()
            else:
                self._receive()
        return None

    def _receive(self) -> None:
        error: TocsinError | None = None
        try:
            self._progress.take(next(self._connected()))
            return
        except StopIteration:
            pass
        except TocsinError as failure:
            error = failure
        if self._closed.is_set():
            return
        self._stream = None
        try:
            wait_s = self._progress.broken(error, random.random())
        except TocsinError:
            self.close()
            raise
        if self._on_disconnect is not None:
            self._on_disconnect(error, wait_s)
        self._closed.wait(wait_s)

    def _connected(self) -> Stream[SubscribeResponse]:
        if self._stream is None:
            self._stream = self._connect(self._progress.request(), wait_for_ready=True)
            # close() from another thread may have looked before there was anything to cancel.
            if self._closed.is_set():
                self._stream.cancel()
        return self._stream
