"""The log as one object: `domain.ports.EventLogStore` over writer, reads and followers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from tocsin_server.domain.event_log import Append, Appended, Step
from tocsin_server.domain.selection import EventFilter
from tocsin_server.store import event_log, wire
from tocsin_server.store.event_log import EventReads
from tocsin_server.store.following import Following
from tocsin_server.store.writer import Writer


class LogStore:
    """Appending, reading, following and deleting; see the port for what each does."""

    def __init__(self, writer: Writer, reads: EventReads, following: Following) -> None:
        self._writer = writer
        self._reads = reads
        self.following = following
        self.get = reads.get
        self.get_at = reads.get_at
        self.page = reads.page
        self.count = reads.count
        self.status = reads.status
        self.position_before = reads.position_before
        self.batch = reads.batch
        self.decode = wire.decode
        self.refuse = writer.refuse
        self.reused = reads.reused
        self.standing = reads.standing
        self.total = reads.total
        self.summarize = reads.summarize
        self.nudge_router: Callable[[], None] = lambda: None

    @property
    def head(self) -> int:
        """The newest position of the log."""
        return self.following.head

    async def routed(self, position: int) -> None:
        """Wait until the router has passed a position."""
        self.nudge_router()
        await self._reads.routed(position)

    def append(self, append: Append) -> Awaitable[list[Appended]]:
        """Store events, all or none; durable when this returns."""
        return self._writer.append(append)

    def follow(
        self, event_filter: EventFilter, after: int | None, batch_max: int, heartbeat_s: float
    ) -> AsyncIterator[Step]:
        """Tell what matches after a position, or (None) from the oldest event on, without end."""
        return self.following.follow(event_filter, after, batch_max, heartbeat_s)

    async def delete(self, account: str, event_id: str, upto: int) -> None:
        """Delete one event that stood at a position."""
        await self._writer.run(lambda tx: event_log.delete_one(tx, account, event_id, upto))

    async def delete_step(self, event_filter: EventFilter, after: int, upto: int, limit: int) -> tuple[list[str], int]:
        """Delete some of the matching events."""
        if event_filter.where:  # asked on a reader: the writer does not wait for it
            named, reached = await self._reads.matching(event_filter, after, upto, limit)
            return await self._writer.run(lambda tx: event_log.delete_named(tx, named)), reached
        return await self._writer.run(lambda tx: event_log.delete_step(tx, event_filter, after, upto, limit))
