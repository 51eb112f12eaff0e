"""Sharing a durable consumer with a blocking iterator that survives disconnects."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Self

from tocsin.channel import Stream
from tocsin.consumers import Delivery, Sharing, merged
from tocsin.errors import TocsinError
from tocsin.subscription import OnDisconnect
from tocsin.v1.event_log_pb2 import Consumer, ConsumeRequest, ConsumeResponse

CLOSE_S = 5.0
"""How long `close` waits for the server to say that everything is stored."""

Join = Callable[..., Stream[ConsumeResponse]]
"""Opens a stream, given what this side says."""


class _Said:
    """What this side of one stream says: filled by any thread, read by a thread of gRPC's."""

    def __init__(self, start: ConsumeRequest) -> None:
        self._waiting = deque([start])
        self._ended = False
        self._changed = threading.Condition()

    def say(self, request: ConsumeRequest) -> None:
        """Send a message; after the end it is dropped, for its lease has ended too."""
        with self._changed:
            if not self._ended:
                self._waiting.append(request)
                self._changed.notify()

    def end(self) -> None:
        """End this side, after what was said."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def __iter__(self) -> Iterator[ConsumeRequest]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                request = merged(self._waiting.popleft(), self._waiting)
            yield request


class Consumption:
    """Deliveries of a consumer, across any number of connections.

    Iterate over it, and `ack` or `nack` each delivery, from any thread. One thread iterates; `close`
    may be called from any and ends the iteration: it waits until the server has stored what was
    settled, and gives the rest back. A server that is away is waited for without end. Raises what a
    new connection cannot mend: NotFound, InvalidField, Unauthenticated, PermissionDenied.
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
        self._stream: Stream[ConsumeResponse] | None = None
        self._said: _Said | None = None
        self._reading = threading.Lock()
        self._closed = threading.Event()

    @property
    def consumer(self) -> Consumer | None:
        """The consumer as the server described it last; None before the first connection."""
        return self._sharing.consumer

    @property
    def connections(self) -> int:
        """How many times the server has let this client join; more than 1 after a disconnect."""
        return self._sharing.connections

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delivery:
        while not self._closed.is_set():
            if (delivery := self._sharing.next()) is not None:
                return delivery
            self._receive()
        raise StopIteration

    def close(self) -> None:
        """Leave: what was settled is stored, the rest goes to others. May be called again."""
        self._closed.set()
        stream, said = self._stream, self._said
        if stream is None or said is None:
            return
        said.end()
        late = threading.Timer(CLOSE_S, stream.cancel)
        late.start()
        with self._reading:
            _read_out(stream)
        late.cancel()
        stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self) -> None:
        error: TocsinError | None = None
        stream, say = self._joined()
        try:
            with self._reading:
                self._sharing.take(next(stream), say)
            return
        except StopIteration:
            pass
        except TocsinError as failure:
            error = failure
        if self._closed.is_set():
            return
        self._leave()
        try:
            wait_s = self._sharing.broken(error, random.random())
        except TocsinError:
            self._closed.set()
            raise
        if self._on_disconnect is not None:
            self._on_disconnect(error, wait_s)
        self._closed.wait(wait_s)

    def _joined(self) -> tuple[Stream[ConsumeResponse], Callable[[ConsumeRequest], None]]:
        if self._stream is None or self._said is None:
            self._said = _Said(self._sharing.start)
            self._stream = self._connect(iter(self._said), wait_for_ready=True)
            # close() from another thread may have looked before there was anything to end.
            if self._closed.is_set():
                self._leave_quickly(self._stream, self._said)
        return self._stream, self._said.say

    @staticmethod
    def _leave_quickly(stream: Stream[ConsumeResponse], said: _Said) -> None:
        said.end()
        stream.cancel()

    def _leave(self) -> None:
        if self._said is not None:
            self._said.end()  # gRPC's thread waits for it
        self._stream = self._said = None


def _read_out(stream: Stream[ConsumeResponse]) -> None:
    """Read what still comes after this side has ended."""
    try:
        for _ in stream:
            pass
    except TocsinError:
        return  # it is over either way; what was not stored comes again
