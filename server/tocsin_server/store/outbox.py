"""Routing and deliveries for the dispatch thread: `domain.ports.Outbox` over writer, reads and tail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from tocsin_server.domain.delivery_ports import Book, Claimed, Companion, Routed, Sent, Settled, Step, Told
from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.event_log import KEY_KEPT_US, Event, Stored
from tocsin_server.domain.health import Health
from tocsin_server.domain.lane import Key
from tocsin_server.domain.lanes import Want
from tocsin_server.domain.notifications import Delivery, State
from tocsin_server.domain.settlement import Plan
from tocsin_server.domain.silences import Silences
from tocsin_server.store import (
    claims,
    delivery_rows,
    digests,
    event_log,
    executions,
    holds,
    purging,
    settling,
    silences,
    wire,
)
from tocsin_server.store.database import Readers
from tocsin_server.store.event_log import ROUTER, EventReads, cursor_position
from tocsin_server.store.generation import GENERATION
from tocsin_server.store.notifications import Notifications
from tocsin_server.store.tail import Tail
from tocsin_server.store.writer import Company, Transaction, Writer

log = structlog.get_logger("tocsin.store")
T = TypeVar("T")
ENDED_KEPT_US = 30 * 24 * 3600 * 1_000_000
SETTLED_MAX = 256  # attempts of one unit of work
PUT_BACK_STEP = 128  # deliveries of one unit of work
PURGE_STEPS = 100  # of a thousand rows, at one sweep


class Fenced(Exception):
    """Another router has taken over; this one has to stop."""


class _Ending(NamedTuple):
    """An attempt to be settled, whether that may wait for a commit, and who is told of it."""

    ended: settling.Ended
    patient: bool
    told: Told


class StoreOutbox:
    """See the port for what each method does."""

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        tail: Tail,
        notifications: Notifications,
        ended_max_age_us: int = ENDED_KEPT_US,
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._tail = tail
        self._reads = EventReads(readers)
        self._notifications = notifications
        self._epoch = 0
        self._ended_max_age_us = ended_max_age_us
        self._sweep_place = 0
        self._purge_place = 0
        self._endings: list[_Ending] = []
        self._settling: asyncio.Task[None] | None = None
        self.decode = wire.decode
        self.trace = wire.trace

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
            claims.release_all(transaction)
            row = transaction.connection.execute("SELECT position, epoch FROM cursors WHERE name = ?", (ROUTER,))
            position, epoch = row.fetchone()
            return int(position), int(epoch)

        position, self._epoch = await self._writer.run(unit)
        return position

    async def book(self) -> Book:
        """Read all configurations, switches and silences; the generation first."""
        generation, configurations, switches = await self._notifications.book()
        held = Silences(await self._read(silences.every))
        return Book(generation, {(c.account, c.id): c for c in configurations}, switches, held)

    async def route(self, step: Step) -> Routed | None:
        """Insert deliveries, gather digests and move the cursor in one transaction."""
        return await self._writer.run(lambda tx: self._route(tx, step))

    def _route(self, transaction: Transaction, step: Step) -> Routed | None:
        if cursor_position(transaction.connection, GENERATION) != step.generation:
            return None
        moved = transaction.connection.execute(
            "UPDATE cursors SET position = ? WHERE name = ? AND position = ? AND epoch = ?",
            (step.through, ROUTER, step.cursor, self._epoch),
        )
        if moved.rowcount != 1:
            raise Fenced(f"the router's cursor is not at {step.cursor} in epoch {self._epoch} any more")
        new = delivery_rows.insert(transaction, step.rows)
        gathered = [
            digests.gather(transaction, row, row.group)
            for row, is_new in zip(step.rows, new, strict=True)
            if is_new and row.group is not None
        ]
        return Routed(new, gathered)

    async def accompany(self, companion: Companion | None) -> None:
        """Have appended events routed in their own transaction: a commit less for each, and for whoever waits."""

        def company(before: int, events: Sequence[Stored]) -> Company | None:
            step = companion.join(before, events) if companion is not None else None
            if companion is None or step is None:
                return None

            def ended(committed: bool, routed: Routed | None) -> None:
                done = routed if step.rows else Routed(())
                companion.joined(step, done if committed else None, committed)

            return Company((lambda tx: self._route(tx, step)) if step.rows else None, ended)

        self._writer.accompany = company
        # One more transaction, and none from before is under way; that it may fail changes nothing of it.
        with suppress(Exception):
            await self._writer.passed()

    async def stored(self, after: int, limit: int) -> list[Stored]:
        """Give the events after a position, from memory or from the store."""
        recent = self._tail.after(after, limit)
        return await self._reads.stored(after, limit) if recent is None else recent

    async def event_at(self, position: int) -> Event:
        """Read the event of a delivery, hidden or not."""
        return wire.decode(await self._reads.get_at(position))

    async def events_of(self, account: str, digest_id: str) -> tuple[list[Event], int]:
        """Read the events that a digest tells, hidden or not, and count those that cannot be read."""
        events: list[Event] = []
        positions = await self._read(lambda c: digests.positions(c, account, digest_id))
        for position in positions:
            try:
                events.append(await self.event_at(position))
            except TocsinError as error:
                log.error(
                    "a digest is told without an event", digest_id=digest_id, position=position, error=error.message
                )
        return events, len(positions) - len(events)

    async def insert(self, row: Delivery) -> None:
        """Insert one delivery that is not routed."""
        await self._writer.run(lambda tx: delivery_rows.insert(tx, [row]))

    async def waiting(self) -> list[tuple[Key, int]]:
        """Take ended leases back, then read which lanes have something that waits."""
        await self._writer.run(claims.take_ended_leases)
        return await self._read(claims.waiting)

    async def claim(self, wants: Sequence[Want]) -> list[Claimed]:
        """Lease due deliveries of each lane."""
        return await self._writer.run(lambda tx: claims.claim(tx, wants, self._tail.frame_at))

    async def settle(self, row: Delivery, sent: Sent, plan: Plan) -> Settled | None:
        """Record how an attempt ended."""
        waiter: asyncio.Future[Settled | None] = asyncio.get_running_loop().create_future()

        def told(settled: Settled | None, error: Exception | None) -> None:
            if waiter.done():
                return
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(settled)

        self.record(row, sent, plan, told, patient=False)
        return await waiter

    def record(self, row: Delivery, sent: Sent, plan: Plan, told: Told, patient: bool) -> None:
        """Record how an attempt ended, together with those that end while the store is busy."""
        self._endings.append(_Ending(settling.Ended(row, sent, plan), patient, told))
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle_endings())
        if not patient:
            self._writer.hurry()  # what is under way is in front of this one

    async def settled(self) -> None:
        """Wait until all that was to be settled is."""
        while self._settling is not None:
            await asyncio.wait([self._settling])

    async def _settle_endings(self) -> None:
        """Settle what has ended, as much as there is in one unit of work, until nothing is left."""
        try:
            await self._settle_all()
        finally:
            self._settling = None

    async def _settle_all(self) -> None:
        loop, max_age_us = asyncio.get_running_loop(), self._notifications.paused_max_age_us
        while self._endings:
            taken, self._endings = self._endings[:SETTLED_MAX], self._endings[SETTLED_MAX:]
            ended = [ending.ended for ending in taken]
            patient = all(ending.patient for ending in taken)
            settled: Sequence[Settled | None] = [None] * len(taken)
            error = None
            try:
                settled = await self._writer.run(
                    partial(settling.settle, ended=ended, paused_max_age_us=max_age_us), patient
                )
            except Exception as failure:
                error = failure
            for ending, one in zip(taken, settled, strict=True):
                loop.call_soon(ending.told, one, error)  # none of them can disturb another

    async def put_back(self, rows: Sequence[Delivery], due_at: int, why: str) -> list[State | None]:
        """End attempts that were not made, in steps."""
        states: list[State | None] = []
        for first in range(0, len(rows), PUT_BACK_STEP):
            step = partial(claims.put_back, rows=rows[first : first + PUT_BACK_STEP], due_at=due_at, why=why)
            states += await self._writer.run(step)
        return states

    async def hold(self, key: Key, health: Health) -> None:
        """Pause or cancel what waits for a configuration, in steps."""
        while not await self._writer.run(lambda tx: holds.hold(tx, key, health)):
            pass

    async def release(self, rows: Sequence[Delivery]) -> None:
        """Give claimed deliveries back."""
        await self._writer.run(lambda tx: claims.release(tx, rows))

    async def sweep(self) -> None:
        """Forget what need not be kept any longer; end what has been open for too long."""

        def unit(transaction: Transaction) -> None:
            holds.expire(transaction)
            digests.sweep(transaction)
            kept_until = transaction.log.created_at - KEY_KEPT_US
            self._sweep_place = event_log.sweep(transaction, kept_until, self._sweep_place)

        await self._writer.run(unit)
        await self._purge()
        for _ in range(PURGE_STEPS):
            if await self._writer.run(executions.purge):
                break

    async def _purge(self) -> None:
        """Forget deliveries that ended long ago, in steps, a bounded number at a time."""
        for _ in range(PURGE_STEPS):
            self._purge_place = await self._writer.run(
                lambda tx: purging.purge(tx, tx.log.created_at - self._ended_max_age_us, self._purge_place)
            )
            if not self._purge_place:
                break

    async def _read(self, read: Callable[..., T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))
