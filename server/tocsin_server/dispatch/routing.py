"""Routing: a fenced tailer of the log that turns events into deliveries.

Deliveries and the cursor move in one transaction. Where nothing matches, the cursor is written a
moment later, so that an event that nobody wants costs no commit. Routing again after a crash is
harmless: a delivery is unique by its route key.

When the router is abreast of the log, a few events are routed in the very transaction that appends them
(`join`, on the store's thread): one commit instead of two, and nobody waits for the second. Whatever
stands against that - the router is behind, many events, many receivers, a condition that takes its time,
configurations that have changed - leaves the events to the tailer, which reads the log. Both take turns
and never route at the same time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import structlog

from tocsin_server.domain.delivery_ports import Book, Outbox, Routed, Step, Trace
from tocsin_server.domain.event_log import Stored
from tocsin_server.domain.explanation import is_about
from tocsin_server.domain.grouping import group_of
from tocsin_server.domain.lanes import Lanes
from tocsin_server.domain.notifications import Delivery, EndpointConfiguration, State
from tocsin_server.domain.ports import Runtime
from tocsin_server.domain.selection import SelectorIndex
from tocsin_server.domain.silences import Silence

log = structlog.get_logger("tocsin.routing")
EVENTS_PER_STEP = 256
WAITING = (State.PENDING, State.PAUSED)
JOIN_EVENTS_MAX = 16  # routed by the store's thread, for which every append waits
JOIN_ROWS_MAX = 32
IDLE_CURSOR_S = 0.1  # how late the cursor may be written when nothing matched


class Router:
    """Routes events; `book` is what it and the deliverer know of configurations."""

    def __init__(
        self,
        outbox: Outbox,
        runtime: Runtime,
        lanes: Lanes,
        start: Callable[[Delivery, bytes | None], None],
        booked: Callable[[Book], None] = lambda book: None,
    ) -> None:
        self._outbox = outbox
        self._runtime = runtime
        self._lanes = lanes
        self._start = start
        self._booked = booked
        self._index = SelectorIndex()
        self._cursor = 0  # as it is stored
        self._position = 0  # as far as it has looked
        self._flush: asyncio.TimerHandle | None = None
        self._flushing = False
        self._stale = False
        self._routing = threading.Lock()  # whose turn it is to route: never waited for
        self._missed = False  # a step came while it was not its turn
        self._loop: asyncio.AbstractEventLoop | None = None
        self.has_selectors = True
        self.book = Book(0, {}, {})
        self.wake: Callable[[], None] = lambda: None
        self.queued: Callable[[], None] = lambda: None  # told when deliveries wait for their turn, or places are free

    async def begin(self) -> None:
        """Take over the cursor and read the configurations."""
        self._loop = asyncio.get_running_loop()
        self._cursor = self._position = await self._outbox.begin()
        await self.reload()

    @property
    def is_behind(self) -> bool:
        """Whether there is something to look at, or to write of what was looked at; called from any thread."""
        looked_at = self._position > self._cursor and self._flush is None
        return self.has_selectors and (looked_at or self._position < self._outbox.head)

    @property
    def position(self) -> int:
        """The position of the newest event that it has looked at."""
        return self._position

    def stale(self) -> None:
        """Have the configurations read anew before the next step."""
        self._stale = True

    async def reload(self) -> None:
        """Read the configurations anew, and look again at what the old ones have passed over."""
        self._stale = False
        self._position = self._cursor
        self.has_selectors = True
        self.book = await self._outbox.book()
        index = SelectorIndex()
        for configuration in self.book.configurations.values():
            for selector in configuration.selectors:
                index.add(configuration.account, configuration.id, selector)
        self._index = index
        self.has_selectors = bool(index)
        self._booked(self.book)

    async def step(self) -> bool:
        """Route the next events; tell whether there may be more."""
        self._missed = True  # noted first: whoever has the turn looks at this after giving it back
        if not self._routing.acquire(blocking=False):
            return False
        self._missed = False
        try:
            return await self._step()
        finally:
            self._routing.release()

    async def _step(self) -> bool:
        if self._stale:
            await self.reload()
        if not self.has_selectors:
            # Nobody wants anything: the cursor goes along without a look at the events.
            self._position = self._outbox.head
            if self._position > self._cursor:
                await self._commit(self._position, [])
            return False
        head = self._outbox.head
        events = await self._outbox.stored(self._position, EVENTS_PER_STEP)
        if not events:
            self._position = max(head, self._position)  # what stood up to the head is deleted, or was looked at
            if self._position > self._cursor:
                if self._flushing:
                    await self._commit(self._position, [])
                else:
                    self._flush_later()
            self._flushing = False
            return False
        through = events[-1].position
        rows, frames = self._rows(events)
        if rows:
            await self._commit(through, rows, frames)
        else:
            self._position = through
            self._flush_later()
        return True

    def join(self, before: int, events: Sequence[Stored]) -> Step | None:
        """Route events in the transaction that appends them, if that is quick; on the store's thread."""
        if len(events) > JOIN_EVENTS_MAX or self._stale or not self.has_selectors:
            return None
        if not self._routing.acquire(blocking=False):
            return None
        step = None
        try:
            if self._position == before and not self._stale and self._is_quick(events):
                rows, frames = self._rows(events)
                step = Step(self._cursor, events[-1].position, self.book.generation, rows, frames)
        except Exception:
            log.exception("events could not be routed as they were appended")
        finally:
            if step is None:
                self._give_turn_back()
        return step

    def _give_turn_back(self) -> None:
        self._routing.release()
        if self._missed and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake_again)

    def _wake_again(self) -> None:
        self._missed = False
        self.wake()

    def _is_quick(self, events: Sequence[Stored]) -> bool:
        """Tell whether few selectors and silences are to be asked about the events, and only about their heads."""
        left = JOIN_ROWS_MAX
        for event in events:
            asked = self._index.quick_count(event.head)
            if asked is None or asked > left:
                return False
            left -= asked
            quick = self.book.silences.are_quick
            if not all(quick(account, event.created_at) for account in self._index.accounts(event.head)):
                return False
        return True

    def joined(self, step: Step, routed: Routed | None, committed: bool) -> None:
        """Take over what has become of a step; on the store's thread, before anybody hears of its events."""
        if routed is not None:
            self._position = step.through
            if step.rows:
                self._cursor = step.through
                self._runtime.moment("routed")
        elif committed:
            self._stale = True
        self._give_turn_back()
        if self._loop is not None and step.rows:
            self._loop.call_soon_threadsafe(self._begin, step, routed)

    def _flush_later(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(IDLE_CURSOR_S, self._flush_now)

    def _flush_now(self) -> None:
        self._flush, self._flushing = None, True
        self.wake()

    async def _commit(self, through: int, rows: Sequence[Delivery], frames: Sequence[bytes] = ()) -> None:
        """Write deliveries and cursor; when the configurations have changed meanwhile, begin anew with them."""
        step = Step(self._cursor, through, self.book.generation, rows, frames)
        try:
            routed = await self._outbox.route(step)
        except BaseException:
            self._give_back(rows)
            raise
        if routed is None:
            self._stale = True
        else:
            self._runtime.moment("routed")
            self._cursor = self._position = through
            self._flushing = False
        self._begin(step, routed)

    def _begin(self, step: Step, routed: Routed | None) -> None:
        """Begin with what is routed, or have it routed anew."""
        rows = step.rows
        if routed is None:
            self._give_back(rows)
            self.wake()
            return
        for row, frame, is_new in zip(rows, step.frames, routed.new, strict=True):
            if row.state in WAITING:
                self._lanes.wait((row.account, row.configuration_id), row.due_at)
            elif row.state is not State.SENDING:
                continue
            elif is_new:
                self._start(row, frame)
            else:
                self._give_back([row])
        for key, due_at in routed.gathered:
            self._lanes.wait(key, due_at)
        if routed.gathered or any(row.state in WAITING for row in rows):
            self.queued()

    def _give_back(self, rows: Sequence[Delivery]) -> None:
        """Give back what was claimed for deliveries that are not made; whoever waits for it is looked for."""
        for row in rows:
            if row.state is State.SENDING:
                self._lanes.give_back((row.account, row.configuration_id))
        if rows and self._loop is not None:
            self._loop.call_soon_threadsafe(self.queued)

    def _rows(self, events: Sequence[Stored]) -> tuple[list[Delivery], list[bytes]]:
        rows: list[Delivery] = []
        frames: list[bytes] = []
        now = self._runtime.now()
        try:
            for stored in events:
                receivers = self._receivers(stored)
                trace = self._trace(stored) if receivers else None
                if trace is None:
                    continue
                for configuration in receivers:
                    rows.append(self._row(stored, trace, configuration, now))
                    frames.append(stored.frame)
        except BaseException:
            self._give_back(rows)
            raise
        return rows, frames

    def _trace(self, stored: Stored) -> Trace | None:
        """Read what deliveries carry of an event; one that cannot be read holds up none of those behind it."""
        try:
            return self._outbox.trace(stored.frame)
        except Exception:
            log.exception("an event cannot be read and is told to nobody", position=stored.position)
            return None

    def _receivers(self, stored: Stored) -> list[EndpointConfiguration]:
        if not stored.frame:
            return []  # damaged: it cannot be told
        keys = self._index.matching(stored.position, stored.head, stored.frame)
        found = [self.book.configurations[key] for key in keys]
        # An event about a configuration is never routed to it: it would tell a dead one of its death.
        return [configuration for configuration in found if not is_about(stored.head, configuration)]

    def _row(self, stored: Stored, trace: Trace, configuration: EndpointConfiguration, now: int) -> Delivery:
        silence = self.book.silences.silencing(configuration.account, stored.created_at, stored.head, stored.frame)
        rules = configuration.options.grouping if silence is None else None
        state, reason = (State.SILENCED, "SILENCE") if silence is not None else (State.GROUPED, "")
        if silence is None and rules is None:
            state, reason = self._turn(configuration, now)
        return Delivery(
            account=configuration.account,
            id=self._runtime.new_id(),
            route_key=f"event/{stored.position}/{configuration.id}/-",
            configuration_id=configuration.id,
            kind=configuration.kind,
            state=state,
            reason=reason,
            created_at=now,
            due_at=now,
            event_position=stored.position,
            event_id=stored.id,
            attempt=1 if state is State.SENDING else 0,
            ended_at=now if silence is not None else 0,
            subject={"event_id": stored.id, "position": stored.position} | _silenced(silence),
            correlation_id=trace.correlation_id,
            request_id=trace.request_id,
            traceparent=trace.traceparent,
            group=group_of(rules, stored.head) if rules is not None else None,
        )

    def _turn(self, configuration: EndpointConfiguration, now: int) -> tuple[State, str]:
        """Say how a delivery begins that goes on its own: at once if it may, and its place is taken then."""
        if not self.book.is_on(configuration):
            return State.PAUSED, "DISABLED"
        key = (configuration.account, configuration.id)
        paused = self._lanes.lane(key).health.pauses
        if paused:
            return State.PAUSED, paused
        return (State.SENDING if self._lanes.take(key, now) else State.PENDING), ""


def _silenced(silence: Silence | None) -> dict[str, str]:
    return {"silence_id": silence.id} if silence is not None else {}
