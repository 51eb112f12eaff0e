"""Handing out the events of durable consumers: who holds what lives here, in memory, on one event loop.

A consumer that has streams has one reader, which follows the log like a subscriber and is held while
enough is ready; its streams take from it. What was settled is written every FLUSH_S, many consumers
in one commit. A crash forgets the leases: everything that was not written as settled comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

import structlog

from tocsin_server.domain.consumers import Change, Consumer, Handed, Nack
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import SUBSCRIBE_BATCH_BYTES, SUBSCRIBE_BATCH_EVENTS, Batch, Step
from tocsin_server.domain.ledger import Ledger, Taken, share
from tocsin_server.domain.ports import Runtime
from tocsin_server.store import consumers
from tocsin_server.store.database import Readers
from tocsin_server.store.following import Following
from tocsin_server.store.writer import Transaction, Writer

log = structlog.get_logger("tocsin.store")
IDLE_S = 3600.0  # the reader's own heartbeats say nothing to anybody
Key = tuple[str, str]


class ActiveConsumer:
    """One consumer with streams: its ledger, its reader, what is read ahead.

    `lock` is held around everything that is written of it, and while it is loaded.
    """

    def __init__(self, key: Key, writer: Writer, readers: Readers, following: Following, runtime: Runtime) -> None:
        self.key = key
        self.lock = asyncio.Lock()
        self.consumer: Consumer
        self.ledger: Ledger | None = None
        self.streams: list[Stream] = []
        self.opening = 0
        self.error: TocsinError | None = None
        self._writer = writer
        self._readers = readers
        self._following = following
        self._runtime = runtime
        self._frames: dict[int, bytes] = {}
        self._frames_bytes = 0
        self._hungry = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @property
    def book(self) -> Ledger:
        """The ledger of a consumer that is loaded."""
        assert self.ledger is not None
        return self.ledger

    @property
    def unsaved(self) -> bool:
        """Tell whether something is to be written."""
        return self.ledger is not None and self.ledger.unsaved

    async def load(self) -> None:
        """Read it from the store unless that is done, and start its reader."""
        async with self.lock:
            if self.ledger is not None:
                return
            # Through the writer: what was asked before is committed before it is read.
            self.consumer, progress, parked = await self._writer.run(lambda tx: consumers.load(tx, *self.key))
            # Above every lease of an earlier process: none gives a million leases a second.
            self.ledger = Ledger(self.consumer.settings, progress, parked, self._runtime.now())
            self._read_on()

    def _read_on(self) -> None:
        self._reader = asyncio.create_task(self._read(self.book.through), name="consumer reader")

    async def stop_reader(self) -> None:
        """End the reader, and forget what it has read ahead."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._frames.clear()
        self._frames_bytes = 0

    async def _read(self, after: int) -> None:
        """Follow the log for as long as somebody takes what comes."""
        # What retention has deleted counts as skipped: it is passed over in silence.
        steps = self._following.follow(self.consumer.filter, after, SUBSCRIBE_BATCH_EVENTS, IDLE_S, skips_expired=True)
        try:
            async with aclosing(cast(AsyncGenerator[Step, None], steps)):
                async for step in steps:
                    self._take_in(step)
                    await self._room()
        except TocsinError as error:
            self.end(error)
        except Exception:  # its streams are told; nobody else awaits this task
            log.exception("a consumer's reader failed", consumer=self.key[1])
            self.end(TocsinError(Reason.STORAGE_FAILED, "the log could not be read; try again", retry_s=1.0))

    def _take_in(self, step: Step) -> None:
        found = dict(step.events()) if isinstance(step, Batch) else {}
        self._frames |= found
        self._frames_bytes += sum(map(len, found.values()))
        self.book.offer(found, step.position)
        self.wake()

    async def _room(self) -> None:
        while (
            len(self._frames) >= SUBSCRIBE_BATCH_EVENTS
            or self._frames_bytes >= SUBSCRIBE_BATCH_BYTES
            or self.book.stall
        ):
            self._hungry.clear()
            await self._hungry.wait()

    def end(self, error: TocsinError) -> None:
        """Have every stream end with an error."""
        self.error = error
        for stream in self.streams:
            stream.woken.set()

    def wake(self) -> None:
        """Have streams look for events, and the reader for room."""
        self._hungry.set()
        if self.book.ready:
            for stream in self.streams:
                stream.woken.set()

    def room_of(self, stream: Stream) -> int:
        """Tell how many more events a stream may hold."""
        limit = stream.limit or max(1, self.book.settings.max_in_flight // len(self.streams))
        return limit - self.book.held(stream.number)

    async def take(self, stream: Stream) -> list[Handed]:
        """Lease events to a stream: its part of what is ready, as much as fits into a message."""
        part = share([self.room_of(other) for other in self.streams], self.book.ready)
        limit = min(self.room_of(stream), part, SUBSCRIBE_BATCH_EVENTS)
        taken: list[Taken] = []
        size = 0
        while len(taken) < limit and size < SUBSCRIBE_BATCH_BYTES:
            one = self.book.take(stream.number, 1, self._runtime.monotonic())
            if not one:
                break
            taken += one
            size += len(self._frames.get(one[0].position, b""))
        frames = {t.position: self._frames.pop(t.position) for t in taken if t.position in self._frames}
        self._frames_bytes -= sum(map(len, frames.values()))
        self._hungry.set()
        again = [t.position for t in taken if t.position not in frames]
        if again:
            frames |= await asyncio.wrap_future(self._readers.submit(lambda c: consumers.frames(c, again)))
            self.book.forget([p for p in again if p not in frames])  # deleted meanwhile
        # Leases may have ended while the store was read: what came then is not handed out.
        return [Handed(t.lease_id, t.attempt, frames[t.position]) for t in taken if self.book.holds(t.lease_id)]

    def forget(self, deleted: Sequence[int]) -> None:
        """Settle what is deleted."""
        if self.ledger is None:
            return
        for position in deleted:
            self._frames_bytes -= len(self._frames.pop(position, b""))
        self.ledger.forget(deleted)
        self.wake()

    def advance(self) -> None:
        """Let time pass: leases run out, delays end."""
        if self.ledger is not None:
            self.ledger.advance(self._runtime.monotonic())
            self.wake()

    async def flush(self) -> None:
        """Write what was settled, failed or parked since."""
        async with self.lock:
            if self.ledger is not None:
                await self.write()

    async def write(self) -> None:
        """Do the work of `flush`; the caller holds the lock."""
        change = self.book.change()
        if change is None:
            return
        try:
            parked = await self._writer.run(lambda tx: self._written(tx, change))
        except BaseException:
            self.book.not_written()
            raise
        self.book.written(change, parked)
        self._hungry.set()

    def _written(self, transaction: Transaction, change: Change) -> int:
        return consumers.write(transaction, self.consumer.id, change)

    async def seek(self, position: int) -> None:
        """Go on after a position; the caller holds the lock."""
        await self.write()  # what was parked stays parked
        await self._writer.run(lambda tx: consumers.seek(tx, *self.key, position))
        await self.stop_reader()
        self.error = None
        self.book.seek(position)
        self._read_on()

    def change_settings(self, consumer: Consumer) -> None:
        """Go on by other rules."""
        self.consumer = consumer
        self.book.change_settings(consumer.settings, self._runtime.monotonic())
        self.wake()

    def join(self, number: int, limit: int, user: str) -> Stream:
        """Add a stream."""
        stream = Stream(self, number, limit, user, self._runtime)
        self.streams.append(stream)
        self.wake()
        return stream

    def leave(self, stream: Stream, broken: bool) -> None:
        """Take a stream away, and give back what it holds."""
        self.streams.remove(stream)
        self.book.release(stream.number, broken, self._runtime.monotonic())
        self.wake()


class Stream:
    """One client of a consumer; see `domain.consumer_ports.ConsumerStream`."""

    def __init__(self, active: ActiveConsumer, number: int, limit: int, user: str, runtime: Runtime) -> None:
        self._active = active
        self.number = number
        self.limit = limit
        self.woken = asyncio.Event()
        self._user = user
        self._runtime = runtime
        self._open = True

    @property
    def consumer(self) -> Consumer:
        """The consumer with its settings as they are now."""
        return self._active.consumer

    @property
    def floor(self) -> int:
        """Every matching event up to here is settled or parked."""
        return self._active.book.floor

    async def next(self, timeout_s: float) -> Sequence[Handed]:
        """Wait for events and lease some; none when the time went by."""
        due = self._runtime.monotonic() + timeout_s
        while True:
            self.woken.clear()
            if self._active.error is not None:
                raise self._active.error
            handed = await self._active.take(self)
            if handed:
                return handed
            try:
                async with asyncio.timeout(due - self._runtime.monotonic()):
                    await self.woken.wait()
            except TimeoutError:
                return ()

    def ack(self, lease_ids: Sequence[int]) -> None:
        """Settle events."""
        self._active.book.ack(lease_ids)
        self._active.wake()

    def nack(self, lease_ids: Sequence[int], action: Nack, reason: str) -> None:
        """Refuse events."""
        self._active.book.nack(lease_ids, action, reason, self._user, self._runtime.monotonic())
        self._active.wake()

    async def finish(self) -> int:
        """Store what was settled; tell how many events are held."""
        await self._active.flush()
        return self._active.book.held(self.number)

    def close(self, *, broken: bool) -> None:
        """Give back what is held."""
        if self._open:
            self._open = False
            # What the server itself has ended is nobody's failure.
            self._active.leave(self, broken and self._active.error is None)
