"""Feeding events with a blocking iterator over what becomes of them, which survives disconnects."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from tocsin.channel import Stream
from tocsin.errors import TocsinError
from tocsin.ingesting import Flow, Outcome
from tocsin.subscription import OnDisconnect
from tocsin.v1.event_log_pb2 import Event, IngestRequest, IngestResponse

Pour = Callable[..., Stream[IngestResponse]]
"""Opens a stream, given what this side says."""


class Ingestion:
    """Outcomes of events, in the order in which the events were fed, across any number of connections.

    Iterate over it to have the events stored. They are read by a thread of its own, as fast as they are
    acknowledged; a batch is what has come by then, so an event that comes alone is sent at once. A server
    that is away is waited for without end. Raises what a new connection cannot mend (Unauthenticated,
    PermissionDenied), and what reading the events raised, after the outcomes of those before.
    """

    def __init__(
        self, connect: Pour, flow: Flow, events: Iterable[Event], on_disconnect: OnDisconnect | None = None
    ) -> None:
        self._connect = connect
        self._flow = flow
        self._events = events
        self._on_disconnect = on_disconnect
        self._stream: Stream[IngestResponse] | None = None
        self._generation = 0
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._feeder: threading.Thread | None = None

    @property
    def connections(self) -> int:
        """How many streams there were; more than 1 after a disconnect."""
        return self._flow.connections

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        if self._feeder is None:
            # A daemon: a source that never answers must not hold up the end of the process.
            self._feeder = threading.Thread(target=self._feed, daemon=True)
            self._feeder.start()
        while not self._closed.is_set():
            with self._changed:
                outcome, done = self._flow.next(), self._flow.done
            if outcome is not None:
                return outcome
            if done:
                self.close()
                if self._failure is not None:
                    raise self._failure
            else:
                self._receive()
        raise StopIteration

    def close(self) -> None:
        """End it. Events without an outcome may be stored or not. May be called again, and from another thread."""
        self._closed.set()
        with self._changed:
            self._generation += 1
            self._changed.notify_all()
        if self._stream is not None:
            self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _feed(self) -> None:
        try:
            for event in self._events:
                with self._changed:
                    self._changed.wait_for(lambda: self._flow.hungry or self._closed.is_set())
                    if self._closed.is_set():
                        return
                    self._flow.feed(event)
                    self._changed.notify_all()
        except BaseException as failure:
            self._failure = failure
        finally:
            with self._changed:
                self._flow.ended = True
                self._changed.notify_all()

    def _requests(self, generation: int) -> Iterator[IngestRequest]:
        """Give the batches of one stream, until there are no more or another stream has begun."""
        while True:
            with self._changed:
                request = None
                while generation == self._generation and (request := self._flow.request()) is None:
                    if self._flow.complete:
                        return
                    self._changed.wait()
                if request is None:
                    return
                self._changed.notify_all()
            yield request

    def _receive(self) -> None:
        error: TocsinError | None = None
        try:
            response = next(self._connected())
            with self._changed:
                self._flow.take(response)
                self._changed.notify_all()
            return
        except StopIteration:
            pass
        except TocsinError as failure:
            error = failure
        if self._closed.is_set():
            return
        self._leave()
        with self._changed:
            if self._flow.complete:
                return
            try:
                wait_s = self._flow.broken(error, random.random())
            except TocsinError:
                self._closed.set()
                raise
        if self._on_disconnect is not None:
            self._on_disconnect(error, wait_s)
        self._closed.wait(wait_s)

    def _connected(self) -> Stream[IngestResponse]:
        if self._stream is None:
            with self._changed:
                self._flow.connected()
                generation = self._generation
            self._stream = self._connect(self._requests(generation), wait_for_ready=True)
            # close() from another thread may have looked before there was anything to cancel.
            if self._closed.is_set():
                self._stream.cancel()
        return self._stream

    def _leave(self) -> None:
        """Leave a broken stream: gRPC's thread that reads the requests has to end."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()
        if self._stream is not None:
            self._stream.cancel()
        self._stream = None
