"""Routing and deliveries for the dispatch thread: `domain.ports.Outbox` over writer, reads and tail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from tocsin_server.domain.event_log import KEY_KEPT_US, Event, Stored
from tocsin_server.domain.notifications import Delivery, Outcome, Room, Settlement, State
from tocsin_server.domain.ports import Book
from tocsin_server.store import deliveries, event_log, wire
from tocsin_server.store.database import Readers
from tocsin_server.store.event_log import ROUTER, EventReads, cursor_position
from tocsin_server.store.notifications import GENERATION, Notifications
from tocsin_server.store.tail import Tail
from tocsin_server.store.writer import Transaction, Writer

T = TypeVar("T")


class Fenced(Exception):
    """Another router has taken over; this one has to stop."""


class StoreOutbox:
    """See the port for what each method does."""

    def __init__(self, writer: Writer, readers: Readers, tail: Tail, notifications: Notifications) -> None:
        self._writer = writer
        self._readers = readers
        self._tail = tail
        self._reads = EventReads(readers)
        self._notifications = notifications
        self._epoch = 0
        self.decode = wire.decode

    @property
    def head(self) -> int:
        """The newest position of the log."""
        return self._tail.head

    async def begin(self) -> int:
        """Take over from a process that is gone."""

        def unit(transaction: Transaction) -> tuple[int, int]:
            transaction.connection.execute(
                "INSERT INTO cursors (name, position, epoch) VALUES (?, 0, 1)"
                " ON CONFLICT (name) DO UPDATE SET epoch = epoch + 1",
                (ROUTER,),
            )
            deliveries.release_all(transaction)
            row = transaction.connection.execute("SELECT position, epoch FROM cursors WHERE name = ?", (ROUTER,))
            position, epoch = row.fetchone()
            return int(position), int(epoch)

        position, self._epoch = await self._writer.run(unit)
        return position

    async def book(self) -> Book:
        """Read all configurations and switches."""
        generation, configurations, switches = await self._notifications.book()
        return Book(generation, {(c.account, c.id): c for c in configurations}, switches)

    async def route(self, cursor: int, through: int, generation: int, rows: Sequence[Delivery]) -> list[bool] | None:
        """Insert deliveries and move the cursor in one transaction."""

        def unit(transaction: Transaction) -> list[bool] | None:
            if cursor_position(transaction.connection, GENERATION) != generation:
                return None
            moved = transaction.connection.execute(
                "UPDATE cursors SET position = ? WHERE name = ? AND position = ? AND epoch = ?",
                (through, ROUTER, cursor, self._epoch),
            )
            if moved.rowcount != 1:
                raise Fenced(f"the router's cursor is not at {cursor} in epoch {self._epoch} any more")
            return deliveries.insert(transaction, rows)

        return await self._writer.run(unit)

    async def stored(self, after: int, limit: int) -> list[Stored]:
        """Give the events after a position, from memory or from the store."""
        recent = self._tail.after(after, limit)
        return await self._reads.stored(after, limit) if recent is None else recent

    async def event_at(self, position: int) -> Event:
        """Read the event of a delivery, hidden or not."""
        return wire.decode(await self._reads.get_at(position))

    async def insert(self, row: Delivery) -> None:
        """Insert one delivery that is not routed."""
        await self._writer.run(lambda tx: deliveries.insert(tx, [row]))

    async def claim(self, room: Room) -> list[Delivery]:
        """Lease due deliveries that have a place."""
        return await self._writer.run(lambda tx: deliveries.claim(tx, room))

    async def settle(self, row: Delivery, outcome: Outcome, settlement: Settlement, duration_us: int) -> State | None:
        """Record how an attempt ended."""
        return await self._writer.run(lambda tx: deliveries.settle(tx, row, outcome, settlement, duration_us))

    async def release(self, rows: Sequence[Delivery]) -> None:
        """Give claimed deliveries back."""
        await self._writer.run(lambda tx: deliveries.release(tx, rows))

    async def next_due(self) -> int | None:
        """Read when the next delivery is due."""
        return await self._read(deliveries.next_due)

    async def sweep(self) -> None:
        """Forget what need not be kept any longer; end what has been open for too long."""

        def unit(transaction: Transaction) -> None:
            deliveries.expire(transaction)
            event_log.sweep(transaction, transaction.log.created_at - KEY_KEPT_US)

        await self._writer.run(unit)

    async def _read(self, read: Callable[..., T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))
