"""Ingest: batches as they come, each acknowledged once it is durable.

A stream has two tasks: one reads batches and hands them to the writer, the other tells what became of
them, in their order, as many as are known in one message. What is unacknowledged is bounded; beyond it
nothing is read, and HTTP/2 holds the client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial

from tocsin.v1 import annotations_pb2
from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.appends import drafted, encoded_results, refuse_large
from tocsin_server.api.auth import Caller
from tocsin_server.api.errors import bad_indexes
from tocsin_server.api.event_drafts import Drafts
from tocsin_server.api.server import Receive, Send, Service
from tocsin_server.domain.encoding import varint, wire_bytes
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import Append, Appended
from tocsin_server.domain.ports import EventLogStore, Runtime

BATCHES_MAX = 256  # unacknowledged batches of one stream
BYTES_MAX = 8 * 1024 * 1024  # and their size
MESSAGE_BATCHES_MAX = 64  # batches told in one message: a thousand results each stay below 4 MiB
IDLE_S = 300.0  # a client that says nothing for so long is gone
VIOLATIONS_MAX = 100  # told in full; `bad_indexes` names every bad event
BATCH_TAG = b"\x0a"  # IngestResponse.batches
SEQUENCE_TAG = b"\x08"  # Batch.sequence
RESULTS_TAG = b"\x12"  # Batch.results


class IngestService(Service):
    """The call of EventLog that stores a stream of batches."""

    descriptor = pb.DESCRIPTOR.services_by_name["EventLog"]

    def __init__(
        self, log: EventLogStore, drafts: Drafts, runtime: Runtime, log_id: str, draining: asyncio.Event, idle_s: float
    ) -> None:
        self._log = log
        self._drafts = drafts
        self._runtime = runtime
        self._end = pb.IngestResponse(log_id=log_id).SerializeToString()
        self._draining = draining
        self._idle_s = idle_s

    async def ingest(self, receive: Receive, caller: Caller, send: Send) -> None:
        """Store what comes and acknowledge it, until the client ends its side."""
        stream = _Stream(self._log, self._drafts, self._runtime, caller, self._end)
        reading = asyncio.create_task(stream.read(receive))
        telling = asyncio.create_task(stream.acknowledge(send))
        draining = asyncio.create_task(self._draining.wait())
        try:
            over = await self._until_over(stream, reading, telling, draining)
            reading.cancel()
            await asyncio.wait({reading})
            stream.end()
            await telling
        finally:
            for task in (reading, telling, draining):
                task.cancel()
            await asyncio.gather(reading, telling, draining, return_exceptions=True)
        if over is not None:
            raise over

    async def _until_over(
        self, stream: _Stream, reading: asyncio.Task[None], telling: asyncio.Task[None], draining: asyncio.Task[bool]
    ) -> BaseException | None:
        """Wait until nothing more is read, and say why: None when the client has ended its side."""
        while True:
            await asyncio.wait({reading, telling, draining}, timeout=self._idle_s, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.exception()
            if telling.done():
                return telling.exception()
            if draining.done():
                text = "the server is stopping: send what is not acknowledged to another, or again"
                return TocsinError(Reason.SERVER_DRAINING, text, retry_s=0.2)
            if self._runtime.monotonic() - stream.last_read >= self._idle_s:
                return TocsinError(Reason.DEADLINE_EXCEEDED, f"nothing was sent for {self._idle_s:g} s")


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch that is on its way: `outcome` is what is told of it, but for its number, once that is known."""

    size: int
    outcome: asyncio.Future[bytes]


class _Stream:
    """The batches of one stream that are not acknowledged yet, in their order."""

    def __init__(self, log: EventLogStore, drafts: Drafts, runtime: Runtime, caller: Caller, end: bytes) -> None:
        self._log = log
        self._drafts = drafts
        self._runtime = runtime
        self._caller = caller
        self._end = end
        self._waiting: deque[_Batch] = deque()
        self._bytes = 0
        self._sequence = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self.last_read = runtime.monotonic()

    async def read(self, receive: Receive) -> None:
        """Hand every batch to the writer, until the client ends its side."""
        while (batch := await self._next(receive)) is not None:
            self.last_read = self._runtime.monotonic()
            self._waiting.append(batch)
            self._bytes += batch.size
            self._arrived.set()
            while len(self._waiting) >= BATCHES_MAX or self._bytes >= BYTES_MAX:
                self._room.clear()
                await self._room.wait()

    async def _next(self, receive: Receive) -> _Batch | None:
        """Read a batch and hand it to the writer. One that is refused does not end the stream."""
        size = 0
        outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            request: pb.IngestRequest | None = await receive()
            if request is None:
                return None
            size = request.ByteSize()
            refuse_large(request)
            append = await drafted(self._log, self._drafts, self._caller, request)
            stored = asyncio.ensure_future(self._log.append(append))
            stored.add_done_callback(partial(_settle, outcome, append))
        except TocsinError as error:
            if error.reason is Reason.UNDECODABLE:
                raise  # what follows cannot be trusted either
            outcome.set_result(_refused(error))
        return _Batch(size, outcome)

    def end(self) -> None:
        """Say that no more batches come."""
        self._ended = True
        self._arrived.set()

    async def acknowledge(self, send: Send) -> None:
        """Tell what became of the batches, until there are no more."""
        while await self._first():
            encoded: list[bytes] = []
            while (
                self._waiting
                and len(encoded) < MESSAGE_BATCHES_MAX
                and (not encoded or self._waiting[0].outcome.done())
            ):
                batch = self._waiting[0]
                self._sequence += 1
                place = SEQUENCE_TAG + varint(self._sequence)
                encoded.append(wire_bytes(BATCH_TAG, place + await batch.outcome))
                self._waiting.popleft()
                self._bytes -= batch.size
            self._room.set()
            await send(b"".join((*encoded, self._end)))

    async def _first(self) -> bool:
        """Wait for a batch; False when none will come."""
        while not self._waiting:
            if self._ended:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return True


def _settle(outcome: asyncio.Future[bytes], append: Append, stored: asyncio.Future[list[Appended]]) -> None:
    """Keep of a batch that is stored or refused what is told of it: its events would take several times the memory."""
    if outcome.done() or stored.cancelled():  # nobody waits any more
        return
    error = stored.exception()
    if error is None:
        outcome.set_result(encoded_results(stored.result(), append, RESULTS_TAG))
    elif isinstance(error, TocsinError):
        outcome.set_result(_refused(error))
    else:
        outcome.set_exception(error)


def _refused(error: TocsinError) -> bytes:
    """Encode why a batch was refused, as the rest of a Batch."""
    violations = [
        pb.IngestResponse.Violation(field=violation.path, description=violation.description)
        for violation in error.violations[:VIOLATIONS_MAX]
    ]
    refusal = pb.IngestResponse.Refusal(
        reason=annotations_pb2.ErrorReason.Value(f"ERROR_REASON_{error.reason}"),
        message=error.message,
        metadata={**error.metadata, **bad_indexes(error.violations)},
        violations=violations,
    )
    return pb.IngestResponse.Batch(refusal=refusal).SerializeToString()
