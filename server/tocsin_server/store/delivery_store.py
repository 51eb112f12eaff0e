"""Deliveries for the network's way in: `domain.delivery_ports.DeliveryStore` over writer, reads and watch."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from tocsin_server.domain.deliveries import DeliveryLine, DeliveryPage, DeliveryQuery, DeliverySums, Recovered
from tocsin_server.domain.notifications import Attempt, Delivery
from tocsin_server.store import delivery_lists, recovery
from tocsin_server.store.database import Readers
from tocsin_server.store.watching import DeliveryWatch
from tocsin_server.store.writer import Transaction, Writer

T = TypeVar("T")


class Deliveries:
    """See the port for what each method does."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self.watch = DeliveryWatch(writer, readers)
        self.queued: Callable[[], None] = lambda: None  # told when deliveries wait to be sent

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def _write(self, unit: Callable[[Transaction], T]) -> T:
        result = await self._writer.run(unit)
        self.queued()
        return result

    async def page(self, query: DeliveryQuery, after: tuple[int, str] | None, size: int) -> DeliveryPage:
        """Read deliveries, newest first."""
        return await self._read(lambda c: delivery_lists.page(c, query, after, size))

    async def get(self, account: str, delivery_id: str) -> tuple[Delivery, list[Attempt]]:
        """Read one delivery with every attempt."""
        return await self._read(lambda c: delivery_lists.get(c, account, delivery_id))

    async def retry(self, account: str, delivery_id: str) -> Delivery:
        """Have a delivery tried now."""
        return await self._write(lambda tx: recovery.retry(tx, account, delivery_id))

    async def cancel(self, account: str, delivery_id: str) -> Delivery:
        """End a delivery that waits."""
        return await self._write(lambda tx: recovery.cancel(tx, account, delivery_id))

    async def recover(self, query: DeliveryQuery) -> Recovered:
        """Have what has ended undelivered begin anew, in steps."""
        count = 0
        while True:
            step = await self._write(lambda tx: recovery.step(tx, query))
            count += step
            done = recovery.bounded(count, step)
            if done is not None:
                return done

    async def sums(self, account: str | None) -> DeliverySums:
        """Read the sums of promise P3."""
        return await self._read(lambda c: delivery_lists.sums(c, account))

    async def sums_and_line(self, now: int) -> tuple[DeliverySums, DeliveryLine]:
        """Read the sums of all accounts, and how long the line of what waits is at a time."""
        return await self._read(lambda c: (delivery_lists.sums(c, None), delivery_lists.line(c, now)))

    def follow(self, query: DeliveryQuery) -> AsyncGenerator[list[Delivery], None]:
        """Tell of deliveries as they change."""
        return self.watch.follow(query)
