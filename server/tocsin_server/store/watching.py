"""Watching deliveries: who watches is told of each change of a state after its commit.

While somebody watches, the writer's connection has a trigger of its own (it is not in the file) that
names every delivery whose state changes, whatever statement changes it. A watcher keeps the names until
it reads the rows: one that falls behind sees the newest state of each, and nothing grows without bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from tocsin_server.domain.deliveries import DeliveryQuery
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.notifications import Delivery
from tocsin_server.store import delivery_lists
from tocsin_server.store.database import Readers
from tocsin_server.store.writer import Transaction, Writer

BATCH = 100  # deliveries of one message
BEHIND_MAX = 20_000  # changed deliveries that a watcher has not read: beyond it the watcher is ended
FUNCTION = "tocsin_delivery_changed"
EVENTS = {"made": "INSERT", "changed": "UPDATE OF state"}
Name = tuple[str, str]  # account and id of a delivery


class Watcher:
    """One reader: the names of deliveries that have changed since it looked, each once."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.loop = asyncio.get_running_loop()
        self.names: dict[str, None] = {}
        self.woken = asyncio.Event()
        self.ended: TocsinError | None = None

    def tell(self, ids: Sequence[str]) -> None:
        """Take names over; called on the watcher's event loop."""
        self.names.update(dict.fromkeys(ids))
        if len(self.names) > BEHIND_MAX:
            self.end(TocsinError(Reason.SLOW_CONSUMER, f"{BEHIND_MAX} changes were not read: watch anew, then list"))
        self.woken.set()

    def end(self, error: TocsinError) -> None:
        """Have the reader end; called on the watcher's event loop."""
        self.names.clear()
        self.ended = error
        self.woken.set()

    async def next(self) -> list[str]:
        """Wait for changes and take some of their names."""
        while not self.names and self.ended is None:
            self.woken.clear()
            await self.woken.wait()
        if self.ended is not None:
            raise self.ended
        taken = list(self.names)[:BATCH]
        for name in taken:
            del self.names[name]
        return taken


class DeliveryWatch:
    """All watchers; told by the writer."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self._watchers: set[Watcher] = set()
        self._changed: list[Name] = []  # of the open transaction; on the writer's thread only
        self._lock = asyncio.Lock()
        writer.after_commit = self._committed

    async def follow(self, query: DeliveryQuery) -> AsyncGenerator[list[Delivery], None]:
        """Tell of deliveries as they change, those that are meant; an empty list first."""
        watcher = Watcher(query.account)
        await self._enter(watcher)
        try:
            yield []
            while True:
                ids = await watcher.next()
                found = await asyncio.wrap_future(
                    self._readers.submit(lambda c, ids=ids: delivery_lists.meant(c, query, ids))  # type: ignore[misc]
                )
                if found:
                    yield found
        finally:
            await asyncio.shield(self._leave(watcher))

    def drain(self) -> None:
        """End every watcher: the server stops."""
        for watcher in self._watchers:
            watcher.end(TocsinError(Reason.SERVER_DRAINING, "the server stops: watch anew elsewhere", retry_s=0.2))

    async def _enter(self, watcher: Watcher) -> None:
        async with self._lock:
            if not self._watchers:
                await self._writer.run(self._switch_on)
            self._watchers.add(watcher)

    async def _leave(self, watcher: Watcher) -> None:
        async with self._lock:
            self._watchers.discard(watcher)
            if not self._watchers:
                await self._writer.run(_switch_off)

    def _switch_on(self, transaction: Transaction) -> None:
        connection = transaction.connection
        connection.create_function(FUNCTION, 2, lambda account, name: self._changed.append((account, name)))
        for word, event in EVENTS.items():
            connection.execute(
                f"CREATE TEMP TRIGGER IF NOT EXISTS watched_{word} AFTER {event} ON main.deliveries BEGIN"
                f" SELECT {FUNCTION}(NEW.account, NEW.id); END"
            )

    def _committed(self) -> None:
        """Hand the names of a transaction over; those of a unit that was undone do no harm."""
        if not self._changed:
            return
        changed, self._changed = self._changed, []
        by_account: dict[str, list[str]] = {}
        for account, name in changed:
            by_account.setdefault(account, []).append(name)
        for watcher in tuple(self._watchers):
            ids = by_account.get(watcher.account)
            if ids and not watcher.loop.is_closed():
                watcher.loop.call_soon_threadsafe(watcher.tell, ids)


def _switch_off(transaction: Transaction) -> None:
    for word in EVENTS:
        transaction.connection.execute(f"DROP TRIGGER IF EXISTS temp.watched_{word}")
