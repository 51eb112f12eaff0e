"""Delivering: claim, send and settle are three moments, each with its own record.

What the router has claimed is sent at once; what failed, was held or was left by a dead process is
claimed here when its turn comes (`domain/lanes.py`). An attempt is recorded as started before anything
is sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from tocsin_server.dispatch.shared_lanes import SharedLanes
from tocsin_server.domain.answers import of_no_answer, unmade
from tocsin_server.domain.delivery_ports import Book, Claimed, Outbox, Settled
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import Event
from tocsin_server.domain.health import HEALTHY, Health
from tocsin_server.domain.lanes import WINDOW_MAX, Key, Want
from tocsin_server.domain.message_templates import templated
from tocsin_server.domain.notifications import Attempt, Delivery, EndpointConfiguration, Message, Outcome, State
from tocsin_server.domain.ports import EndpointKind, Runtime
from tocsin_server.domain.settlement import RETRY_SCHEDULE_S, Plan
from tocsin_server.domain.templates import RenderError, TemplateError
from tocsin_server.domain.verdicts import ErrorClass, Verdict

log = structlog.get_logger("tocsin.delivery")
UNKNOWN_WAIT_US = 500_000  # until the configurations are read anew
STOP_GRACE_S = 20.0  # attempts under way may finish before their leases are given back
IDLE_S = 30.0  # the store is asked so often what waits, even if nobody was told of anything
UNKNOWN = "the configuration is not known here yet"
HELD = "not sent: its receiver is held since it was claimed"
QUICK_US = 500_000  # a receiver that answers sooner has some claimed ahead
TEST_PLAN = Plan(0.5)
TESTS_MAX = 4  # of one account at a time: each may hang for the whole deadline


class Deliverer:
    """Sends claimed deliveries, as many at a time as the lanes have places; none but tests when not enabled."""

    def __init__(
        self,
        outbox: Outbox,
        runtime: Runtime,
        kinds: Mapping[str, EndpointKind],
        book: Callable[[], Book],
        ui_url: str,
        enabled: bool = True,
    ) -> None:
        self._log = log.bind()  # made once: there is a record for every attempt
        self._outbox = outbox
        self._runtime = runtime
        self._kinds = kinds
        self._book = book
        self._ui_url = ui_url
        self.docs_url = ""
        self._sending: dict[asyncio.Task[None], Delivery] = {}
        self._turns: dict[Key, asyncio.Semaphore] = {}
        self._placeless: set[str] = set()  # those of them that have been taken, and have only to be settled
        self._testing: Counter[str] = Counter()
        self._holding: set[asyncio.Task[None]] = set()
        self._look_at = 0.0  # when the store is asked next what waits
        self.attempts: Counter[tuple[str, Verdict]] = Counter()  # that have ended, by kind and verdict
        self.lanes = SharedLanes()
        self.lanes.open = enabled
        self.reload_book: Callable[[], None] = lambda: None
        self.wake_in: Callable[[float], None] = lambda seconds: None

    def look_anew(self) -> None:
        """Have the next step ask the store what waits."""
        self._look_at = 0.0

    def booked(self, book: Book) -> None:
        """Take over configurations and switches."""
        self.lanes.configure(book.configurations, book.switches)
        for key in self._turns.keys() - book.configurations.keys():
            del self._turns[key]
        self.wake_in(0.0)

    def start(self, row: Delivery, frame: bytes | None = None) -> None:
        """Begin to send a claimed delivery, whose place is taken, with its stored event if that is at hand."""
        task = asyncio.create_task(self._deliver(row, frame))
        self._sending[task] = row
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        row = self._sending.pop(task)
        has_place = row.id not in self._placeless
        self._placeless.discard(row.id)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("a delivery could not be settled; its lease will end", exc_info=error)
        if has_place:
            self.lanes.give_back((row.account, row.configuration_id))

    async def step(self) -> bool:
        """Claim what has its turn and begin to send it; tell whether there may be more."""
        if not self.lanes.open:
            return False
        if self._runtime.monotonic() >= self._look_at:
            await self._look()
        wants = self.lanes.choose(self._runtime.now())
        if wants:
            for claimed in await self._claimed(wants):
                self.lanes.claimed(claimed.want, len(claimed.rows), claimed.next_due_at)
                for row, frame in zip(claimed.rows, claimed.frames, strict=True):
                    self.start(row, frame)
            return True
        next_at = self.lanes.next_at()
        wait_s = IDLE_S if next_at is None else (next_at - self._runtime.now()) / 1e6
        self.wake_in(min(max(wait_s, 0.001), IDLE_S))
        return False

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

    async def _deliver(self, row: Delivery, frame: bytes | None) -> None:
        """Send a claimed delivery when it has its turn, unless its receiver is held by then."""
        key = (row.account, row.configuration_id)
        turns = self._turns.get(key) or self._turns.setdefault(key, asyncio.Semaphore(WINDOW_MAX))
        was_ahead = turns.locked()
        async with turns:
            configuration = self._book().configurations.get(key)
            if configuration is None or (was_ahead and not self.lanes.lane(key).is_open):
                sent = None
            else:
                sent = await self._send(row, configuration, frame)
                if sent[0].verdict is not Verdict.DELIVERED:  # whoever is next has to know what this one has shown
                    await self._settle(row, configuration, *sent)
        if sent is None or configuration is None:
            await self._put_back(row, key, configuration is not None)
        elif sent[0].verdict is Verdict.DELIVERED:
            await self._settle(row, configuration, *sent)

    async def _settle(
        self, row: Delivery, configuration: EndpointConfiguration, outcome: Outcome, duration_us: int
    ) -> None:
        """Record how an attempt ended, and let the lane know."""
        key = (row.account, row.configuration_id)
        self.attempts[row.kind, outcome.verdict] += 1
        plan = Plan(self._runtime.jitter(), configuration.options.retry_schedule or RETRY_SCHEDULE_S)
        # What was taken by a receiver that is well teaches its lane nothing new: the place is free before the
        # record is made, for which nobody waits then. It can share a commit.
        quick = outcome.verdict is Verdict.DELIVERED and self.lanes.lane(key).health is HEALTHY
        if quick:
            self._placeless.add(row.id)
            self.lanes.ended(key, outcome.verdict, quick=duration_us < QUICK_US)
            self._go_on()
        settled = await self._outbox.settle(row, outcome, plan, duration_us, patient=quick)
        if not quick or settled is None or settled.health is not HEALTHY:
            self._learn(row, key, outcome, settled)
        record = self._log.info if outcome.verdict is Verdict.DELIVERED else self._log.warning
        record(
            "delivery", delivery_id=row.id, account=row.account, configuration_id=row.configuration_id,
            kind=row.kind, attempt=row.attempt, verdict=str(outcome.verdict), status_code=outcome.status_code,
            error=outcome.error, state=str(settled and settled.state), correlation_id=row.correlation_id,
            request_id=row.request_id,
        )  # fmt: skip

    def _learn(self, row: Delivery, key: Key, outcome: Outcome, settled: Settled | None) -> None:
        """Give the place back, and let the lane know what the attempt has shown."""
        was_paused = self.lanes.lane(key).pauses
        health = settled.health if settled is not None else None
        if row.id not in self._placeless:
            self.lanes.ended(key, outcome.verdict, health)
        elif health is not None:
            self.lanes.note(key, health)
        if settled is None:
            log.warning("stale attempt", delivery_id=row.id, attempt=row.attempt)
        else:
            if settled.state in (State.RETRYING, State.PAUSED):
                self.lanes.wait(key, settled.due_at)
            if self.lanes.lane(key).pauses and not was_paused:
                self._hold(key, settled.health)
        self._go_on()

    def _go_on(self) -> None:
        """Have a look at who is next, if anybody waits."""
        if self.lanes.is_line:
            self.wake_in(0.0)

    async def _put_back(self, row: Delivery, key: Key, is_known: bool) -> None:
        """Put a delivery back that cannot be sent now: the store says how it waits, or whether it is still wanted."""
        if not is_known:
            self.reload_book()
        due_at = self._runtime.now() + (0 if is_known else UNKNOWN_WAIT_US)
        state = await self._outbox.put_back(row, due_at, HELD if is_known else UNKNOWN)
        self.lanes.ended(key, None)
        if state is State.RETRYING:
            self.lanes.wait(key, due_at)
            if self.lanes.lane(key).pauses:  # it came after what waited there was paused
                self._hold(key, self.lanes.lane(key).health)
        self.wake_in(0.0)

    async def _send(
        self, row: Delivery, configuration: EndpointConfiguration, frame: bytes | None
    ) -> tuple[Outcome, int]:
        """Send once; whatever goes wrong in making the message ends this delivery and no other."""
        began = self._runtime.monotonic()
        outcome = await self._attempt(row, configuration, frame)
        return outcome, int((self._runtime.monotonic() - began) * 1e6)

    async def _attempt(self, row: Delivery, configuration: EndpointConfiguration, frame: bytes | None) -> Outcome:
        try:
            event = await self._event(row, frame)
            events, missing = await self._events(row)
        except TocsinError as error:  # the event is damaged or gone: no repeat brings it back
            return unmade(error.message)
        except Exception as error:
            log.exception("the events of a delivery could not be read", delivery_id=row.id)
            return of_no_answer(ErrorClass.INTERNAL, type(error).__name__)
        message = Message(
            delivery_id=row.id,
            sent_at=self._runtime.now(),
            event=event,
            events=tuple(events),
            missing=missing,
            params=row.content,
            subject=row.subject,
            done_recipients=row.recipients,
            ui_url=self._ui_url,
            docs_url=self.docs_url,
            options=configuration.options,
        )
        kind = self._kinds[configuration.kind]
        try:
            message, _ = templated(message, configuration, kind.default_escape)
        except (RenderError, TemplateError) as error:
            return unmade(str(error))
        except Exception as error:  # a fault of ours in the message would come again with each repeat
            log.exception("a message could not be made", delivery_id=row.id)
            return unmade(f"INTERNAL: {type(error).__name__}")
        self._runtime.moment("sending")
        try:
            outcome = await kind.send(message, configuration.connection)
        except Exception as error:
            log.exception("an attempt failed in a way that no kind of endpoint foresaw", delivery_id=row.id)
            text = f"INTERNAL: {type(error).__name__}"
            outcome = Outcome(Verdict.RETRY, error=text, error_class=ErrorClass.INTERNAL)
        self._runtime.moment("sent")
        return outcome

    async def _events(self, row: Delivery) -> tuple[list[Event], int]:
        """Read what a digest tells; one that has lost all its events has nothing to tell."""
        if "digest" not in row.subject:
            return [], 0
        events, missing = await self._outbox.events_of(row.account, row.id)
        if not events:
            raise TocsinError(Reason.EVENT_CORRUPT, f"none of the digest's {missing} events can be read")
        return events, missing

    async def _event(self, row: Delivery, frame: bytes | None) -> Event | None:
        if frame is not None:
            return self._outbox.decode(frame)
        return await self._outbox.event_at(row.event_position) if row.event_position else None

    async def test(self, configuration: EndpointConfiguration, stored: bool) -> tuple[Delivery, Attempt]:
        """Send one test message, once; a stored configuration gets a delivery of its own."""
        if self._testing[configuration.account] >= TESTS_MAX:
            text = f"{TESTS_MAX} tests of the account are under way: wait for one of them"
            raise TocsinError(Reason.TOO_MANY_TESTS, text, retry_s=1.0)
        self._testing[configuration.account] += 1
        try:
            return await self._test(configuration, stored)
        finally:
            self._testing[configuration.account] -= 1

    async def _test(self, configuration: EndpointConfiguration, stored: bool) -> tuple[Delivery, Attempt]:
        now = self._runtime.now()
        delivery_id = self._runtime.new_id()
        row = Delivery(
            account=configuration.account,
            id=delivery_id,
            route_key=f"test/{delivery_id}",
            configuration_id=configuration.id,
            kind=configuration.kind,
            state=State.SENDING,
            created_at=now,
            due_at=now,
            attempt=1,
            subject={"test": True},
        )
        if stored:
            await self._outbox.insert(row)
        outcome, duration_us = await self._send(row, configuration, None)
        if stored:
            await self._outbox.settle(row, outcome, TEST_PLAN, duration_us)
            if outcome.verdict is Verdict.DELIVERED:
                self.reload_book()  # it may be enabled again
        attempt = Attempt(
            1, now, duration_us, outcome.verdict, outcome.status_code, outcome.response_excerpt, outcome.error, 0,
            outcome.error_class,
        )  # fmt: skip
        return replace(row, recipients=outcome.recipients), attempt

    async def stop(self) -> None:
        """Claim nothing more, let what is under way finish, give the rest back."""
        self.lanes.open = False
        if self._sending:
            await asyncio.wait(list(self._sending), timeout=STOP_GRACE_S)
        left = dict(self._sending)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            await self._outbox.release(list(left.values()))
        for holding in self._holding:
            holding.cancel()  # what is not paused yet is when the server is back
        await asyncio.gather(*self._holding, return_exceptions=True)
        for kind in self._kinds.values():
            await kind.close()
