"""All durable consumers of this process: `domain.consumer_ports.ConsumerStore` over writer, reads and the active ones.

A consumer is active while it has streams; what is asked of it then happens in its memory and in the
store under its lock, else in the store alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from tocsin_server.domain.consumers import FLUSH_S, Choice, Consumer, ConsumerStatus, Parked, Standing
from tocsin_server.domain.errors import Reason, TocsinError, not_found
from tocsin_server.domain.ledger import Ledger
from tocsin_server.domain.ports import Runtime
from tocsin_server.store import consumers
from tocsin_server.store.consuming import ActiveConsumer, Key, Stream
from tocsin_server.store.database import Readers
from tocsin_server.store.following import Following
from tocsin_server.store.writer import Transaction, Writer

log = structlog.get_logger("tocsin.store")
T = TypeVar("T")


class Consumers:
    """See the port for what each method does; lives on the event loop of the API."""

    def __init__(self, writer: Writer, readers: Readers, following: Following, runtime: Runtime) -> None:
        self._writer = writer
        self._readers = readers
        self._following = following
        self._runtime = runtime
        self._active: dict[Key, ActiveConsumer] = {}
        self._streams = 0
        self._some = asyncio.Event()
        self._draining = False
        self._clock: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to let time pass for the active consumers."""
        self._following.deleted = self._forget
        self._clock = asyncio.create_task(self._tick_forever(), name="consumers")

    async def drain(self) -> None:
        """Have every stream end with SERVER_DRAINING, and store what was settled."""
        self._draining = True
        for active in self._active.values():
            active.end(_draining())
        await self._flush_all()

    async def stop(self) -> None:
        """Store what is left, and end all readers."""
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)
        await self._flush_all()
        for active in self._active.values():
            await active.stop_reader()

    async def _tick_forever(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(FLUSH_S)
            for active in self._active.values():
                active.advance()
            await self._flush_all()
            for active in list(self._active.values()):
                await self._retire(active)
            if not self._active:
                self._some.clear()

    async def _flush_all(self) -> None:
        active = list(self._active.values())
        results = await asyncio.gather(*(one.flush() for one in active), return_exceptions=True)
        for one, result in zip(active, results, strict=True):
            if isinstance(result, Exception):  # it is tried again; the disk may be full
                log.error("the progress of a consumer could not be stored", consumer=one.key[1], error=str(result))

    async def _retire(self, active: ActiveConsumer) -> None:
        """Let a consumer go that nobody uses and of which everything is stored."""
        async with active.lock:
            idle = not active.streams and not active.opening
            if idle and not active.unsaved and self._active.get(active.key) is active:
                del self._active[active.key]
                await active.stop_reader()

    def _forget(self, deleted: Sequence[int]) -> None:
        for active in self._active.values():
            active.forget(deleted)

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def _change(self, key: Key, unit: Callable[[Transaction], T], told: Callable[[ActiveConsumer, T], None]) -> T:
        """Run a unit of work about a consumer; when it is active, with all stored before and told after."""
        active = self._active.get(key)
        if active is None:
            return await self._writer.run(unit)
        async with active.lock:
            if active.ledger is not None:
                await active.write()
            result = await self._writer.run(unit)
            if active.ledger is not None:
                told(active, result)
            return result

    async def create(self, draft: Consumer, position: int, request_id: str, digest: bytes) -> Consumer:
        """Store a consumer, or answer the one that this request id has made."""
        return await self._writer.run(lambda tx: consumers.create(tx, draft, position, request_id, digest))

    async def get(self, account: str, name: str) -> Consumer:
        """Read one consumer."""
        return await self._read(lambda c: consumers.get(c, account, name))

    async def page(self, account: str, after: str, size: int) -> list[Consumer]:
        """Read consumers with a name after the given one."""
        return await self._read(lambda c: consumers.page(c, account, after, size))

    async def status(self, account: str, name: str) -> tuple[Consumer, ConsumerStatus]:
        """Read one consumer and how far it is."""
        active = self._active.get((account, name))
        streams = len(active.streams) if active is not None else 0
        # What is in memory is looked at here, on its own event loop.
        standing = active.ledger.standing() if active is not None and active.ledger is not None else None
        head = self._following.head

        def read(connection: sqlite3.Connection) -> tuple[Consumer, ConsumerStatus]:
            consumer = consumers.get(connection, account, name)
            now = standing or _standing(connection, consumer)
            lag = consumers.lag(connection, consumer.filter, now.fresh_after, head, self._runtime.monotonic)
            return consumer, ConsumerStatus(now, lag, streams)

        return await self._read(read)

    async def update(self, account: str, name: str, change: Callable[[Consumer], Consumer]) -> Consumer:
        """Change a consumer's settings in one transaction."""

        def unit(transaction: Transaction) -> Consumer:
            old = consumers.get(transaction.connection, account, name)
            return consumers.update(transaction, old, change(old).settings)

        return await self._change((account, name), unit, lambda active, new: active.change_settings(new))

    async def seek(self, account: str, name: str, position: int) -> None:
        """Go on after a position; what is open is forgotten."""
        active = self._active.get((account, name))
        if active is not None:
            async with active.lock:
                if active.ledger is not None:
                    await active.seek(position)
                    return
        await self._writer.run(lambda tx: consumers.seek(tx, account, name, position))

    async def delete(self, account: str, name: str) -> None:
        """Delete a consumer; its streams end with NOT_FOUND."""

        def unit(transaction: Transaction) -> None:
            consumers.delete(transaction, account, name)

        def told(active: ActiveConsumer, _: None) -> None:
            del self._active[active.key]  # a new one of the same name is another one
            active.end(not_found("consumer", name))

        active = self._active.get((account, name))
        await self._change((account, name), unit, told)
        if active is not None:
            await active.stop_reader()

    async def parked(self, account: str, name: str, after: int, size: int) -> list[Parked]:
        """Read parked events with a position after the given one."""
        active = self._active.get((account, name))
        if active is not None:
            await active.flush()
        return await self._read(lambda c: consumers.parked(c, account, name, after, size))

    async def replay(self, account: str, name: str, choice: Choice) -> int:
        """Hand out parked events anew."""

        def told(active: ActiveConsumer, positions: list[int]) -> None:
            active.book.reopen(positions)
            active.wake()

        def unit(transaction: Transaction) -> list[int]:
            return consumers.replay(transaction, account, name, choice)

        positions = await self._change((account, name), unit, told)
        return len(positions)

    async def purge(self, account: str, name: str, choice: Choice) -> int:
        """Forget parked events."""

        def told(active: ActiveConsumer, count: int) -> None:
            active.book.unpark(count)
            active.wake()

        return await self._change((account, name), lambda tx: consumers.purge(tx, account, name, choice), told)

    async def open(self, account: str, name: str, limit: int, user: str) -> Stream:
        """Add a client that holds at most `limit` events."""
        if self._draining:
            raise _draining()
        key = (account, name)
        active = self._active.get(key)
        if active is None:
            active = self._active[key] = ActiveConsumer(
                key, self._writer, self._readers, self._following, self._runtime
            )
        self._some.set()
        active.opening += 1
        try:
            await active.load()
        finally:
            active.opening -= 1
            if active.ledger is None and not active.opening and self._active.get(key) is active:
                del self._active[key]
        if active.error is not None:
            raise active.error
        self._streams += 1
        return active.join(self._streams, limit, user)


def _standing(connection: sqlite3.Connection, consumer: Consumer) -> Standing:
    """Tell how far a consumer is that is not active: as if it were loaded now."""
    parked = consumers.parked_count(connection, consumer.id)
    return Ledger(consumer.settings, consumers.progress(connection, consumer), parked, 0).standing()


def _draining() -> TocsinError:
    return TocsinError(Reason.SERVER_DRAINING, "the server is stopping; connect again", retry_s=0.2)
