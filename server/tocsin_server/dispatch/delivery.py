"""Delivering: claim, send and settle are three moments, each with its own record.

What the router has claimed is sent at once; what failed, was held or was left by a dead process is
claimed here when its turn comes (`domain/lanes.py`). An attempt is recorded as started before anything
is sent. What is claimed ahead of its place is in stock here until there is one; it goes back when its
receiver is held meanwhile, or when it has waited for long.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import structlog

from tocsin_server.dispatch.sending import Sender
from tocsin_server.dispatch.shared_lanes import SharedLanes
from tocsin_server.domain.delivery_ports import Book, Claimed, Outbox, Settled
from tocsin_server.domain.health import HEALTHY, Health
from tocsin_server.domain.lanes import Key, Want
from tocsin_server.domain.notifications import Delivery, Outcome, State
from tocsin_server.domain.ports import EndpointKind, Runtime
from tocsin_server.domain.settlement import RETRY_SCHEDULE_S, Plan
from tocsin_server.domain.verdicts import Verdict

log = structlog.get_logger("tocsin.delivery")
UNKNOWN_WAIT_US = 500_000  # until the configurations are read anew
STOP_GRACE_S = 20.0  # attempts under way may finish before their leases are given back
IDLE_S = 30.0  # the store is asked so often what waits, even if nobody was told of anything
UNKNOWN = "the configuration is not known here yet"
HELD = "not sent: its receiver is held since it was claimed"
LATE = "not sent: there was no place for it in time"
STOPPED = "not sent: the server was stopped"
STOCKED_MAX_S = 15.0  # with the longest attempt after it well within the lease
STOCK_LOOK_S = 5.0  # what is in stock for too long is looked for so often
FRAME_STOCKED_MAX = 4096  # bytes; larger events are read when they are sent
QUICK_US = 500_000  # a receiver that answers sooner has some claimed ahead


class Stocked(NamedTuple):
    """A claimed delivery with its stored event, if that is at hand, and since when (monotonic) it waits for a place."""

    row: Delivery
    frame: bytes | None
    since: float


class Deliverer:
    """Sends claimed deliveries, as many at a time as the lanes have places; none but tests when not enabled."""

    def __init__(
        self,
        outbox: Outbox,
        runtime: Runtime,
        kinds: Mapping[str, EndpointKind],
        book: Callable[[], Book],
        sender: Sender,
        enabled: bool = True,
    ) -> None:
        self._log = log.bind()  # made once: there is a record for every attempt
        self._outbox = outbox
        self._runtime = runtime
        self._kinds = kinds
        self._book = book
        self._sender = sender
        self._stock: dict[Key, deque[Stocked]] = {}  # none is empty
        self._sending: Counter[Key] = Counter()  # how many places of a lane are at work
        self._unrecorded: dict[str, Delivery] = {}  # by id: being sent, or sent and not yet settled
        self._work: set[asyncio.Task[None]] = set()
        self._holding: set[asyncio.Task[None]] = set()
        self._look_at = 0.0  # when the store is asked next what waits
        self._stock_look_at = 0.0  # when all of the stock is looked at next
        self.attempts: Counter[tuple[str, Verdict]] = Counter()  # that have ended, by kind and verdict
        self.lanes = SharedLanes()
        self.lanes.open = enabled
        self.reload_book: Callable[[], None] = lambda: None
        self.wake_in: Callable[[float], None] = lambda seconds: None

    @property
    def work(self) -> list[asyncio.Task[None]]:
        """What is under way and will end by itself."""
        return [*self._work, *self._holding]

    def look_anew(self) -> None:
        """Have the next step ask the store what waits."""
        self._look_at = 0.0

    def booked(self, book: Book) -> None:
        """Take over configurations and switches."""
        self.lanes.configure(book.configurations, book.switches)
        self._serve_all()
        self.wake_in(0.0)

    def start(self, row: Delivery, frame: bytes | None = None) -> None:
        """Send a claimed delivery when it has a place, with its stored event if that is at hand."""
        key = (row.account, row.configuration_id)
        claimed = Stocked(row, frame, self._runtime.monotonic())
        stock = self._stock.get(key)
        if not stock and self._has_place(key):
            self._begin(key, claimed)
            return
        if frame is not None and len(frame) > FRAME_STOCKED_MAX:
            claimed = claimed._replace(frame=None)
        if stock is None:
            stock = self._stock[key] = deque()
        stock.append(claimed)
        self._serve(key)

    def _has_place(self, key: Key) -> bool:
        """Tell whether a place of a lane is for what is in stock: one that was taken for it, or one that is free."""
        return self._sending[key] < self.lanes.lane(key).in_flight or self.lanes.proceed(key, self._runtime.now())

    def _begin(self, key: Key, claimed: Stocked) -> None:
        self._sending[key] += 1
        self._unrecorded[claimed.row.id] = claimed.row
        self._keep(asyncio.create_task(self._send_on(key, claimed)))

    def _keep(self, work: asyncio.Task[None]) -> None:
        self._work.add(work)
        work.add_done_callback(self._work.discard)

    def _serve(self, key: Key) -> None:
        """Begin with what is in stock as far as there are places; have it put back when it cannot stay."""
        stock = self._stock.get(key)
        while stock and self._has_place(key):
            self._begin(key, self._pop(key, stock))
        if stock and (why := self._must_leave(key, stock)):
            del self._stock[key]
            self._keep(asyncio.create_task(self._return([claimed.row for claimed in stock], key, why)))

    def _pop(self, key: Key, stock: deque[Stocked]) -> Stocked:
        claimed = stock.popleft()
        if not stock:
            del self._stock[key]
        return claimed

    def _must_leave(self, key: Key, stock: deque[Stocked]) -> str:
        """Say why what is in stock has to be put back; empty if it can stay."""
        if not self.lanes.lane(key).keeps_stock:
            return HELD
        return LATE if self._runtime.monotonic() - stock[0].since > STOCKED_MAX_S else ""

    async def step(self) -> bool:
        """Claim what has its turn and begin to send it; tell whether there may be more."""
        if not self.lanes.open:
            return False
        if self._runtime.monotonic() >= self._look_at:
            await self._look()
        if self._runtime.monotonic() >= self._stock_look_at:
            self._serve_all()
        wants = self.lanes.choose(self._runtime.now())
        for want in wants:
            self._serve(want.key)
        if wants:
            await self._claim([want for want in wants if want.count])
            return True
        next_at = self.lanes.next_at()
        wait_s = IDLE_S if next_at is None else (next_at - self._runtime.now()) / 1e6
        self.wake_in(min(max(wait_s, 0.001), STOCK_LOOK_S if self._stock else IDLE_S))
        return False

    def _serve_all(self) -> None:
        self._stock_look_at = self._runtime.monotonic() + STOCK_LOOK_S
        for key in list(self._stock):
            self._serve(key)

    async def _claim(self, wants: Sequence[Want]) -> None:
        for claimed in await self._claimed(wants) if wants else []:
            self.lanes.claimed(claimed.want, len(claimed.rows), claimed.next_due_at)
            for row, frame in zip(claimed.rows, claimed.frames, strict=True):
                self.start(row, frame)

    async def _claimed(self, wants: Sequence[Want]) -> list[Claimed]:
        try:
            return await self._outbox.claim(wants)
        except BaseException:
            for want in wants:  # none was claimed: the places are free, and the line is as it was
                self.lanes.claimed(want, 0, self._runtime.now())
            raise

    async def _look(self) -> None:
        self._look_at = self._runtime.monotonic() + IDLE_S
        for key, due_at in await self._outbox.waiting():
            self.lanes.wait(key, due_at)
        for key, health in self.lanes.paused():
            self._hold(key, health)

    def _hold(self, key: Key, health: Health) -> None:
        task = asyncio.create_task(self._outbox.hold(key, health))
        self._holding.add(task)
        task.add_done_callback(self._holding.discard)

    async def _send_on(self, key: Key, claimed: Stocked) -> None:
        """Send from one place a delivery, and what is in stock after it for as long as the place is its lane's."""
        following: Stocked | None = claimed
        while following is not None:
            row = following.row
            try:
                await self._deliver(key, row, following.frame)
            except Exception:
                log.exception("a delivery could not be settled; its lease will end", delivery_id=row.id)
                self._unrecorded.pop(row.id, None)
                self.lanes.ended(key, None)
            following = self._following(key)
        self._sending[key] -= 1
        if not self._sending[key]:
            del self._sending[key]
        self._go_on()

    def _following(self, key: Key) -> Stocked | None:
        stock = self._stock.get(key)
        if not stock or self._must_leave(key, stock) or not self.lanes.proceed(key, self._runtime.now()):
            return None
        following = self._pop(key, stock)
        self._unrecorded[following.row.id] = following.row
        if self.lanes.is_line:
            self._go_on()
        return following

    async def _deliver(self, key: Key, row: Delivery, frame: bytes | None) -> None:
        """Send a claimed delivery, record how that ended, and let the lane know."""
        configuration = self._book().configurations.get(key)
        if configuration is None:
            self.reload_book()
            due_at = self._runtime.now() + UNKNOWN_WAIT_US
            await self._put_back([row], key, due_at, UNKNOWN)
            self.lanes.ended(key, None)
            return
        sent = await self._sender.send(row, configuration, frame)
        verdict = sent.outcome.verdict
        self.attempts[row.kind, verdict] += 1
        plan = Plan(self._runtime.jitter(), configuration.options.retry_schedule or RETRY_SCHEDULE_S)
        if verdict is Verdict.DELIVERED and self.lanes.lane(key).health is HEALTHY:
            # It teaches the lane nothing new: the place is free before the record is made, for which nobody
            # waits then. It can share a commit.
            self.lanes.ended(key, verdict, quick=sent.duration_us < QUICK_US)
            self._outbox.settle_soon(row, sent, plan, partial(self._recorded, key, row, sent.outcome))
            return
        settled = await self._outbox.settle(row, sent, plan)
        self._unrecorded.pop(row.id, None)
        was_paused = self.lanes.lane(key).pauses
        self.lanes.ended(key, verdict, settled.health if settled is not None else None)
        self._learn(key, row, settled, was_paused)
        self._tell(row, sent.outcome, settled)

    def _recorded(
        self, key: Key, row: Delivery, outcome: Outcome, settled: Settled | None, error: Exception | None
    ) -> None:
        """Take over the record of an attempt whose place was free before it."""
        self._unrecorded.pop(row.id, None)
        if error is not None:
            log.error("a delivery could not be settled; its lease will end", delivery_id=row.id, exc_info=error)
            return
        if settled is None or settled.health is not HEALTHY:
            was_paused = self.lanes.lane(key).pauses
            if settled is not None:
                self.lanes.note(key, settled.health)
            self._learn(key, row, settled, was_paused)
            self._go_on()
        self._tell(row, outcome, settled)

    def _learn(self, key: Key, row: Delivery, settled: Settled | None, was_paused: bool) -> None:
        """See to what waits in a lane, as the record of an attempt says."""
        if settled is None:
            log.warning("stale attempt", delivery_id=row.id, attempt=row.attempt)
            return
        if settled.state in (State.RETRYING, State.PAUSED):
            self.lanes.wait(key, settled.due_at)
        if self.lanes.lane(key).pauses and not was_paused:
            self._hold(key, settled.health)
        self._serve(key)

    def _tell(self, row: Delivery, outcome: Outcome, settled: Settled | None) -> None:
        record = self._log.info if outcome.verdict is Verdict.DELIVERED else self._log.warning
        record(
            "delivery", delivery_id=row.id, account=row.account, configuration_id=row.configuration_id,
            kind=row.kind, attempt=row.attempt, verdict=str(outcome.verdict), status_code=outcome.status_code,
            error=outcome.error, state=str(settled and settled.state), correlation_id=row.correlation_id,
            request_id=row.request_id,
        )  # fmt: skip

    def _go_on(self) -> None:
        """Have a look at who is next, if anybody waits."""
        if self.lanes.is_line:
            self.wake_in(0.0)
        elif (next_at := self.lanes.next_at()) is not None:
            self.wake_in(max((next_at - self._runtime.now()) / 1e6, 0.0))

    async def _return(self, rows: Sequence[Delivery], key: Key, why: str) -> None:
        """Put back what was in stock."""
        try:
            await self._put_back(rows, key, 0, why)
        except Exception:
            log.exception("deliveries could not be put back; their leases will end", count=len(rows))
        for _ in rows:
            self.lanes.give_back(key)
        self._serve(key)
        self.wake_in(0.0)

    async def _put_back(self, rows: Sequence[Delivery], key: Key, due_at: int, why: str) -> None:
        """Put deliveries back that cannot be sent now: the store says how they wait, or that they are not wanted."""
        states = await self._outbox.put_back(rows, due_at, why)
        for row in rows:
            self._unrecorded.pop(row.id, None)
        if State.RETRYING in states:
            self.lanes.wait(key, max(due_at, min(row.due_at for row in rows)))
            if self.lanes.lane(key).pauses:  # they came after what waited there was paused
                self._hold(key, self.lanes.lane(key).health)

    async def stop(self) -> None:
        """Claim nothing more, let what is under way finish, give the rest back."""
        self.lanes.open = False
        stocked = [claimed.row for stock in self._stock.values() for claimed in stock]
        self._stock.clear()
        if stocked:
            await self._outbox.put_back(stocked, 0, STOPPED)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE_S):
                while self._work:
                    await asyncio.wait(self._work)
                await self._outbox.settled()
        left = list(self._work)
        for work in left:
            work.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._unrecorded:
            await self._outbox.release(list(self._unrecorded.values()))
        for holding in self._holding:
            holding.cancel()  # what is not paused yet is when the server is back
        await asyncio.gather(*self._holding, return_exceptions=True)
        for kind in self._kinds.values():
            await kind.close()
