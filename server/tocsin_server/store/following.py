"""Following the log: one code path for history and for what comes.

A follower holds a position. It takes what comes after it from a view of the tail that it shares with
all followers of the same filter, or, when it is further behind, a page from the store. There is no
queue per follower: one that does not read costs nobody anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import (
    CHECKPOINT_EVENTS,
    SUBSCRIBE_BATCH_BYTES,
    Batch,
    CaughtUp,
    Checkpoint,
    Step,
)
from tocsin_server.domain.ports import Runtime
from tocsin_server.domain.selection import EventFilter
from tocsin_server.store.event_log import EventReads
from tocsin_server.store.tail import RING_EVENTS_MAX, Tail

TICK_S = 0.5  # how often idle followers are looked at; the granularity of heartbeats


@dataclass(slots=True, eq=False)
class _Waiter:
    """A follower that has nothing to read: woken by a match, by much scanning, or when a heartbeat is due."""

    future: asyncio.Future[None]
    position: int
    due: float


class View:
    """The tail through one filter, shared by its followers; each event is tested once."""

    def __init__(self, tail: Tail, event_filter: EventFilter) -> None:
        self._tail = tail
        self._matches = event_filter.matcher()
        self._matched: deque[tuple[int, bytes]] = deque()
        self._joined: tuple[tuple[int, int, int], Batch] | None = None
        self.waiters: dict[_Waiter, None] = {}  # in order, and each left at once
        self.followers = 0
        self.floor = self.scanned = tail.head  # one read: the writer's thread moves it

    def advance(self) -> None:
        """Look through what came, and wake followers that have something to read."""
        found = False
        while fresh := self._tail.after(self.scanned, RING_EVENTS_MAX):
            for event in fresh:
                if self._matches(event.head, event.frame):
                    self._matched.append((event.position, event.frame))
                    found = True
            self.scanned = fresh[-1].position
        if fresh is None:  # more came at once than the ring holds: followers read it from the store
            self._matched.clear()
            self.floor = self.scanned = self._tail.head
            found = True
        self._trim()
        for waiter in self.waiters:
            if (found or self.scanned - waiter.position >= CHECKPOINT_EVENTS) and not waiter.future.done():
                waiter.future.set_result(None)

    def _trim(self) -> None:
        self.floor = max(self.floor, self._tail.floor)
        while self._matched and self._matched[0][0] <= self.floor:
            self._matched.popleft()

    def forget(self, deleted: Sequence[int]) -> None:
        """Drop deleted events."""
        gone = set(deleted)
        self._matched = deque(entry for entry in self._matched if entry[0] not in gone)
        self._joined = None

    def take(self, position: int, batch_max: int) -> Batch | None:
        """Give what follows a position, or None when the view does not reach back to it."""
        if position < self.floor:
            return None
        key = (position, self.scanned, batch_max)
        if self._joined is not None and self._joined[0] == key:
            return self._joined[1]
        newer: list[tuple[int, bytes]] = []
        for entry in reversed(self._matched):
            if entry[0] <= position:
                break
            newer.append(entry)
        newer.reverse()
        batch = _join(newer, batch_max, max(position, self.scanned))
        self._joined = (key, batch)
        return batch

    def tick(self, now: float) -> None:
        """Wake the followers whose heartbeat is due."""
        for waiter in self.waiters:
            if now >= waiter.due and not waiter.future.done():
                waiter.future.set_result(None)

    async def wait(self, position: int, due: float) -> None:
        """Wait until there is something to read after a position, or a heartbeat is due."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), position, due)
        self.waiters[waiter] = None
        try:
            await waiter.future
        finally:
            del self.waiters[waiter]


def _join(entries: list[tuple[int, bytes]], batch_max: int, through: int) -> Batch:
    size = 0
    for index, (position, frame) in enumerate(entries, 1):
        size += len(frame)
        if (index == batch_max or size >= SUBSCRIBE_BATCH_BYTES) and index < len(entries):
            return Batch.of(entries[:index], position)
    return Batch.of(entries, through)


class Following:
    """All followers of this process; lives on one event loop."""

    def __init__(self, tail: Tail, reads: EventReads, runtime: Runtime) -> None:
        self._tail = tail
        self._reads = reads
        self._runtime = runtime
        self._views: dict[EventFilter, View] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._draining = False
        self.deleted: Callable[[Sequence[int]], None] = lambda positions: None

    def start(self) -> None:
        """Begin to listen to the tail; called on the event loop of the followers."""
        self._tail.listen(asyncio.get_running_loop(), self._woken, lambda: bool(self._views))
        self._ticker = asyncio.create_task(self._tick_forever(), name="heartbeats")

    async def stop(self) -> None:
        """End the timer of heartbeats."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    def drain(self) -> None:
        """Have every follower end with SERVER_DRAINING and the position to resume after."""
        self._draining = True
        for view in self._views.values():
            view.tick(float("inf"))

    @property
    def head(self) -> int:
        """The newest position of the log."""
        return self._tail.head

    def _woken(self, deleted: Sequence[int]) -> None:
        for view in self._views.values():
            view.advance()
            if deleted:
                view.forget(deleted)
        if deleted:
            self.deleted(deleted)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._runtime.monotonic()
            for view in self._views.values():
                view.tick(now)

    async def follow(
        self,
        event_filter: EventFilter,
        after: int | None,
        batch_max: int,
        heartbeat_s: float,
        skips_expired: bool = False,
    ) -> AsyncIterator[Step]:
        """Tell what matches after a position, or (None) from the oldest event on, without end.

        With `skips_expired` what retention has deleted is passed over, else it is an error.
        """
        # One generator for all of it: there are thousands that wait, and each generator takes half a kilobyte.
        view = self._joined(event_filter)
        try:
            # Retention works where the log begins: who begins there is moved along until it has its first event.
            at_beginning = after is None
            position = self._tail.horizon(event_filter.account) - 1 if after is None else after
            told, behind = position, True
            due = self._runtime.monotonic() + heartbeat_s
            while True:
                if self._draining:
                    raise _draining(position)
                batch = view.take(position, batch_max)
                if batch is None:
                    behind = True
                    batch = await self._from_store(event_filter, position, batch_max)
                oldest = self._tail.horizon(event_filter.account)
                if position < oldest - 1 and not skips_expired:
                    if not at_beginning:
                        raise _expired(position, oldest)
                    position = oldest - 1
                    continue
                moved, position = batch.position > position, batch.position
                if batch.frames:
                    at_beginning = False
                    yield batch
                elif behind and not moved:
                    behind = False
                    yield CaughtUp(position)
                elif position - told >= CHECKPOINT_EVENTS or self._runtime.monotonic() >= due:
                    yield Checkpoint(position)
                else:
                    if not moved:
                        await view.wait(position, due)
                    continue
                told, due = position, self._runtime.monotonic() + heartbeat_s
        finally:
            self._leave(view, event_filter)

    def _joined(self, event_filter: EventFilter) -> View:
        """Give the view of a filter, with one follower more."""
        view = self._views.get(event_filter)
        if view is None:
            view = self._views[event_filter] = View(self._tail, event_filter)
            view.advance()  # what was committed while nobody was listening
        view.followers += 1
        return view

    def _leave(self, view: View, event_filter: EventFilter) -> None:
        view.followers -= 1
        if not view.followers:
            self._views.pop(event_filter, None)

    async def _from_store(self, event_filter: EventFilter, position: int, batch_max: int) -> Batch:
        upto = min(position + CHECKPOINT_EVENTS, self._tail.head)
        page = await self._reads.scan(event_filter, position, upto, batch_max, SUBSCRIBE_BATCH_BYTES)
        return Batch.of(page.events, page.through)


def _draining(position: int) -> TocsinError:
    return TocsinError(
        Reason.SERVER_DRAINING,
        "the server is stopping; resume after the position",
        metadata={"position": str(position)},
        retry_s=0.2,
    )


def _expired(position: int, oldest: int) -> TocsinError:
    """Say that retention has deleted what follows a position, or is about to."""
    return TocsinError(
        Reason.POSITION_EXPIRED,
        f"events after position {position} are not kept any more: the oldest is at {oldest}",
        metadata={"oldest": str(oldest), "position": str(position)},
    )
