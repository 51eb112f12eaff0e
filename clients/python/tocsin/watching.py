"""Watching deliveries with a blocking iterator that survives disconnects."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Self

from tocsin.channel import Stream, Streaming
from tocsin.errors import TocsinError
from tocsin.following import may_pass
from tocsin.retries import Backoff
from tocsin.subscription import OnDisconnect
from tocsin.v1.notifications_pb2 import WatchDeliveriesRequest, WatchDeliveriesResponse


@dataclass(slots=True)
class Connectivity:
    """How often a watch was connected, and how it bears its breaks. Pure; both watches have one."""

    backoff: Backoff
    connections: int = 0
    failures: int = 0
    greeted: bool = False

    def took(self) -> None:
        """Take note of a message; the first one of a connection greets."""
        self.connections += not self.greeted
        self.greeted, self.failures = True, 0

    def broken(self, error: TocsinError | None, chance: float) -> float:
        """Answer how long to wait before connecting again; raises `error` when that cannot help."""
        self.greeted = False
        self.failures += 1
        if error is not None and not may_pass(error, self.failures):
            raise error
        asked_s = error.retry_after_s if error is not None else None
        return max(self.backoff.wait_s(self.failures, chance), asked_s or 0.0)


class DeliveryWatch:
    """Deliveries as they change, across any number of connections.

    The first message of each connection is empty: nothing is missed from then on. What changed before it, and
    while the server was away, is to be listed then. One thread iterates; `close` may be called from any and ends
    the iteration. A server that is away is waited for without end. Raises what a new connection cannot mend:
    InvalidField, Unauthenticated, PermissionDenied.
    """

    def __init__(
        self,
        connect: Streaming[WatchDeliveriesRequest, WatchDeliveriesResponse],
        request: WatchDeliveriesRequest,
        backoff: Backoff,
        on_disconnect: OnDisconnect | None = None,
    ) -> None:
        self._connect = connect
        self._request = request
        self._connectivity = Connectivity(backoff)
        self._on_disconnect = on_disconnect
        self._stream: Stream[WatchDeliveriesResponse] | None = None
        self._closed = threading.Event()

    @property
    def connections(self) -> int:
        """How many times the server has begun to tell; more than 1 after a disconnect."""
        return self._connectivity.connections

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchDeliveriesResponse:
        while not self._closed.is_set():
            error: TocsinError | None = None
            try:
                message = next(self._connected())
                self._connectivity.took()
                return message
            except StopIteration:
                pass
            except TocsinError as failure:
                error = failure
            if not self._closed.is_set():
                self._wait(error)
        raise StopIteration

    def close(self) -> None:
        """End the watch. May be called again, and from another thread."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, error: TocsinError | None) -> None:
        self._stream = None
        try:
            wait_s = self._connectivity.broken(error, random.random())
        except TocsinError:
            self.close()
            raise
        if self._on_disconnect is not None:
            self._on_disconnect(error, wait_s)
        self._closed.wait(wait_s)

    def _connected(self) -> Stream[WatchDeliveriesResponse]:
        if self._stream is None:
            self._stream = self._connect(self._request, wait_for_ready=True)
            # close() from another thread may have looked before there was anything to cancel.
            if self._closed.is_set():
                self._stream.cancel()
        return self._stream
