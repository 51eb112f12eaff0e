"""Delivering: claim, send and settle are three moments, each with its own record.

What the router has claimed needs no claim; what failed, was held or was left by a dead process is
claimed here when its turn comes (`domain/lanes.py`). An attempt is recorded as started before anything
is sent. What is claimed ahead of its place is in stock here until there is one; it goes back when its
receiver is held meanwhile, or when it has waited for long.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import structlog

from tocsin_server.dispatch.sending import Sender
from tocsin_server.dispatch.shared_lanes import SharedLanes
from tocsin_server.dispatch.stock import AgeLimits, Stock, Stocked
from tocsin_server.domain.delivery_ports import Book, Claimed, Outbox, Sent, Settled
from tocsin_server.domain.health import Health
from tocsin_server.domain.lane import Key
from tocsin_server.domain.lanes import Want
from tocsin_server.domain.notifications import Delivery, Outcome, State
from tocsin_server.domain.ports import EndpointKind, Runtime
from tocsin_server.domain.settlement import RETRY_SCHEDULE_S, Plan
from tocsin_server.domain.verdicts import Verdict

log = structlog.get_logger("tocsin.delivery")
UNKNOWN_WAIT_US = 500_000  # until the configurations are read anew
STOP_GRACE_S = 20.0  # attempts under way may finish before their leases are given back
SETTLE_GRACE_S = 2.0  # and their records be made
IDLE_S = 30.0  # the store is asked so often what waits, even if nobody was told of anything
UNKNOWN = "the configuration is not known here yet"
HELD = "not sent: its receiver is held since it was claimed"
PACED = "not sent: its receiver has a rate since it was claimed"
LATE = "not sent: there was no place for it in time"
STOPPED = "not sent: the server was stopped"
STOCK_LOOK_S = 5.0  # what is in stock for too long is looked for so often
NEVER = 2**63
QUICK_US = 500_000  # a receiver that answers sooner has some claimed ahead


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
        self._stock = Stock()
        self._sending: Counter[Key] = Counter()  # how many places of a lane are at work
        self._unrecorded: dict[str, Delivery] = {}  # by id: being sent, or sent and not yet settled
        self._work: set[asyncio.Task[None]] = set()
        self._holding: set[asyncio.Task[None]] = set()
        self._step_at = NEVER  # when the next step is due, as far as lanes go
        self._look_at = 0.0  # when the store is asked next what waits
        self._stock_look_at = 0.0  # when all of the stock is looked at next
        self.attempts: Counter[tuple[str, Verdict]] = Counter()  # that have ended, by kind and verdict
        self._limits = {kind.kind: AgeLimits.of(kind) for kind in kinds.values()}
        self.lanes = SharedLanes([kind for kind, limits in self._limits.items() if limits.in_stock_us <= 0])
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
        """Send a delivery that was made as a claimed one when it has a place, with its event if that is at hand."""
        key = (row.account, row.configuration_id)
        self._take_in(key, Stocked(row, frame, row.created_at))
        self._serve(key)
        self._go_on()

    def _take_in(self, key: Key, claimed: Stocked) -> None:
        """Begin with what was claimed if it has a place and nothing comes before it; else it is in stock."""
        if key in self._stock:
            self._stock.add(key, claimed)
        elif not self._is_late(key, claimed) and self._has_place(key):
            self._begin(key, claimed)
        else:
            self._stock.add(key, claimed)
            self.wake_in(STOCK_LOOK_S)

    def _is_late(self, key: Key, claimed: Stocked) -> bool:
        """Tell whether a claim was so long under way that its lease may end before the attempt."""
        configuration = self._book().configurations.get(key)
        at_begin_us = self._limits[configuration.kind].at_begin_us if configuration is not None else 0
        return configuration is not None and self._runtime.now() - claimed.claimed_at > at_begin_us

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
        if why := self._must_leave(key):
            rows = self._stock.take(key)
            if why == LATE:
                self.lanes.late(key)
            self.lanes.give_back(key, len(rows))
            self._keep(asyncio.create_task(self._return(rows, key, why)))
        while key in self._stock and self._has_place(key):
            self._begin(key, self._stock.pop(key))

    def _must_leave(self, key: Key) -> str:
        """Say why what is in stock has to be put back; empty if it can stay, or there is nothing."""
        if key not in self._stock:
            return ""
        lane = self.lanes.lane(key)
        if not lane.is_open:
            return HELD
        if lane.interval_us:
            return PACED
        configuration = self._book().configurations.get(key)
        if configuration is None:
            return UNKNOWN
        age_us = self._runtime.now() - self._stock.oldest_at(key)
        return LATE if age_us > self._limits[configuration.kind].in_stock_us else ""

    async def step(self) -> bool:
        """Claim what has its turn and begin to send it; tell whether there may be more."""
        if not self.lanes.open:
            return False
        self._step_at = NEVER
        if self._runtime.monotonic() >= self._look_at:
            await self._look()
        if self._runtime.monotonic() >= self._stock_look_at:
            self._serve_all()
        wants = self.lanes.choose(self._runtime.now())
        for want in wants:
            self._serve(want.key)
        asked = [want for want in wants if want.count]
        if asked:
            claiming = asyncio.create_task(self._claim(asked))
            self._keep(claiming)  # a stop does not break it off: what is claimed is known here
            await asyncio.shield(claiming)
        if wants:
            return True
        next_at = self.lanes.next_at()
        self._step_at = NEVER if next_at is None else next_at
        wait_s = IDLE_S if next_at is None else (next_at - self._runtime.now()) / 1e6
        self.wake_in(min(max(wait_s, 0.001), STOCK_LOOK_S if self._stock else IDLE_S))
        return False

    def _serve_all(self) -> None:
        self._stock_look_at = self._runtime.monotonic() + STOCK_LOOK_S
        for key in self._stock.keys:
            self._serve(key)

    async def _claim(self, wants: Sequence[Want]) -> None:
        claimed_at = self._runtime.now()
        for claimed in await self._claimed(wants):
            key = claimed.want.key
            self.lanes.claimed(claimed.want, len(claimed.rows), claimed.next_due_at)
            for row, frame in zip(claimed.rows, claimed.frames, strict=True):
                self._take_in(key, Stocked(row, frame, claimed_at))
            self._serve(key)
        self._go_on()

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
        try:
            while following is not None:
                await self._deliver(key, following.row, following.frame)
                following = self._following(key)
        finally:
            self._sending[key] -= 1
            if not self._sending[key]:
                del self._sending[key]
            self._go_on()

    def _following(self, key: Key) -> Stocked | None:
        if key not in self._stock:
            return None
        if self._must_leave(key):
            self._serve(key)
            return None
        if not self.lanes.proceed(key, self._runtime.now()):
            return None
        following = self._stock.pop(key)
        self._unrecorded[following.row.id] = following.row
        if self.lanes.is_line:
            self._go_on()
        return following

    async def _deliver(self, key: Key, row: Delivery, frame: bytes | None) -> None:
        """Send a claimed delivery, record how that ended, and let the lane know."""
        try:
            made = await self._attempt(key, row, frame)
        except Exception:
            log.exception("a delivery could not be sent or put back; its lease will end", delivery_id=row.id)
            made = None
        if made is None:
            self._unrecorded.pop(row.id, None)
            self.lanes.ended(key, None)
            return
        sent, plan = made
        verdict = sent.outcome.verdict
        self.attempts[row.kind, verdict] += 1
        if verdict is Verdict.DELIVERED and self.lanes.lane(key).health.is_well:
            # It teaches the lane nothing new: the place is free before the record is made, for which nobody
            # waits then. It can share a commit.
            self.lanes.ended(key, verdict, quick=sent.duration_us < QUICK_US)
            self._outbox.record(row, sent, plan, partial(self._recorded, key, row, sent.outcome, None), patient=True)
            return
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.record(row, sent, plan, partial(self._recorded, key, row, sent.outcome, recorded), patient=False)
        await recorded

    async def _attempt(self, key: Key, row: Delivery, frame: bytes | None) -> tuple[Sent, Plan] | None:
        configuration = self._book().configurations.get(key)
        if configuration is None:
            await self._put_back([row], key, UNKNOWN)
            return None
        plan = Plan(self._runtime.jitter(), configuration.options.retry_schedule or RETRY_SCHEDULE_S)
        return await self._sender.send(row, configuration, frame), plan

    def _recorded(
        self,
        key: Key,
        row: Delivery,
        outcome: Outcome,
        in_place: asyncio.Future[None] | None,
        settled: Settled | None,
        error: Exception | None,
    ) -> None:
        """Take over the record of an attempt, for which its place has waited or not; in the order of the records."""
        self._unrecorded.pop(row.id, None)
        lane = self.lanes.lane(key)
        if in_place is None and settled is not None and settled.health.is_well and lane.health.is_well:
            self._tell(row, outcome, settled)  # the rule
            return
        was_paused = lane.pauses
        if in_place is not None:
            verdict = outcome.verdict if error is None else None
            self.lanes.ended(key, verdict, settled.health if settled is not None else None)
            if not in_place.done():
                in_place.set_result(None)
        elif settled is not None:
            self.lanes.note(key, settled.health)
        if error is not None:
            log.error("a delivery could not be settled; its lease will end", delivery_id=row.id, exc_info=error)
            return
        if settled is None:
            log.warning("stale attempt", delivery_id=row.id, attempt=row.attempt)
        else:
            self._learn(key, settled, was_paused)
        self._go_on()
        self._tell(row, outcome, settled)

    def _learn(self, key: Key, settled: Settled, was_paused: bool) -> None:
        """See to what waits in a lane, as the record of an attempt says."""
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
        elif (next_at := self.lanes.next_at()) is not None and next_at < self._step_at:
            self._step_at = next_at
            self.wake_in(max((next_at - self._runtime.now()) / 1e6, 0.0))

    async def _return(self, rows: Sequence[Delivery], key: Key, why: str) -> None:
        """Put back what was in stock."""
        try:
            await self._put_back(rows, key, why)
        except Exception:
            log.exception("deliveries could not be put back; their leases will end", count=len(rows))
            self.look_anew()
        self.wake_in(0.0)

    async def _put_back(self, rows: Sequence[Delivery], key: Key, why: str) -> None:
        """Put deliveries back that cannot be sent now: the store says how they wait, or that they are not wanted."""
        due_at = 0
        if why == UNKNOWN:
            self.reload_book()
            due_at = self._runtime.now() + UNKNOWN_WAIT_US
        states = await self._outbox.put_back(rows, due_at, why)
        if State.RETRYING in states:
            self.lanes.wait(key, max(due_at, min(row.due_at for row in rows)))
            if self.lanes.lane(key).pauses:  # they came after what waited there was paused
                self._hold(key, self.lanes.lane(key).health)

    async def stop(self) -> None:
        """Claim nothing more, let what is under way finish, give the rest back."""
        self.lanes.open = False
        await self._empty()
        await self._finish(STOP_GRACE_S)
        left = list(self._work)
        for work in left:
            work.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._empty()  # with what was being claimed
        await self._finish(SETTLE_GRACE_S)
        try:
            await self._outbox.release(list(self._unrecorded.values()))
        except Exception:
            log.exception("leases could not be given back; the next start takes them up", count=len(self._unrecorded))
        for holding in self._holding:
            holding.cancel()  # what is not paused yet is when the server is back
        await asyncio.gather(*self._holding, return_exceptions=True)
        for kind in self._kinds.values():
            await kind.close()

    async def _finish(self, within_s: float) -> None:
        """Let what is under way and its records come to an end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._work:
                    await asyncio.wait(self._work)
                await self._outbox.settled()

    async def _empty(self) -> None:
        """Put back all that is in stock."""
        stocked = [row for key in self._stock.keys for row in self._stock.take(key)]
        try:
            await self._outbox.put_back(stocked, 0, STOPPED)
        except Exception:
            log.exception("deliveries could not be put back; the next start takes them up", count=len(stocked))
