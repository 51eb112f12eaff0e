"""Delivering: claim, send and settle are three moments, each with its own record.

What the router has claimed is sent at once; what failed, was held or was left by a dead process is
claimed here when it is due. An attempt is recorded as started before anything is sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.event_log import Event
from tocsin_server.domain.notifications import (
    IN_FLIGHT_MAX,
    Attempt,
    Delivery,
    EndpointConfiguration,
    Message,
    Outcome,
    Room,
    Settlement,
    State,
    Verdict,
    settle,
)
from tocsin_server.domain.ports import Book, EndpointKind, Outbox, Runtime

log = structlog.get_logger("tocsin.delivery")
UNKNOWN_WAIT_US = 500_000  # until the configurations are read anew
STOP_GRACE_S = 20.0  # attempts under way may finish before their leases are given back
IDLE_S = 30.0


class Deliverer:
    """Sends claimed deliveries, at most IN_FLIGHT_MAX at a time; none but tests when not enabled."""

    def __init__(
        self,
        outbox: Outbox,
        runtime: Runtime,
        kinds: Mapping[str, EndpointKind],
        book: Callable[[], Book],
        ui_url: str,
        enabled: bool = True,
    ) -> None:
        self._outbox = outbox
        self._runtime = runtime
        self._kinds = kinds
        self._book = book
        self._ui_url = ui_url
        self._sending: dict[asyncio.Task[None], Delivery] = {}
        self._stopping = not enabled
        self._waiting = False  # something is due that had no place
        self.reload_book: Callable[[], None] = lambda: None
        self.wake_in: Callable[[float], None] = lambda seconds: None

    def room(self) -> Room:
        """Tell how many more deliveries may be sent now, in all and to each configuration."""
        left = 0 if self._stopping else IN_FLIGHT_MAX - len(self._sending)
        return Room(left, Counter((row.account, row.configuration_id) for row in self._sending.values()))

    def start(self, row: Delivery, event: Event | None = None) -> None:
        """Begin to send a claimed delivery."""
        task = asyncio.create_task(self._deliver(row, event))
        self._sending[task] = row
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        if self._waiting:
            self.wake_in(0.0)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a delivery could not be settled; its lease will end", exc_info=error)

    async def step(self) -> bool:
        """Claim what is due and begin to send it; tell whether there may be more."""
        room = self.room()
        self._waiting = room.left <= 0
        if self._waiting:
            return False
        due = await self._outbox.next_due()
        if due is None or due > self._runtime.now():
            if due is not None:
                self.wake_in(min((due - self._runtime.now()) / 1e6, IDLE_S))
            return False
        claimed = await self._outbox.claim(room)
        for row in claimed:
            self.start(row)
        # Something is due: either it is claimed now, or it waits until a place is free.
        self._waiting = True
        return bool(claimed)

    async def _deliver(self, row: Delivery, event: Event | None) -> None:
        configuration = self._book().configurations.get((row.account, row.configuration_id))
        if configuration is None:
            await self._unknown(row)
            return
        outcome, duration_us = await self._send(row, configuration, event)
        settlement = settle(outcome, row.scheduled, row.attempt, self._runtime.now(), self._runtime.jitter())
        state = await self._outbox.settle(row, outcome, settlement, duration_us)
        if state is None:
            log.warning("stale attempt", delivery_id=row.id, attempt=row.attempt)
        elif state is State.RETRYING:
            self.wake_in((settlement.due_at - self._runtime.now()) / 1e6)
        record = log.info if outcome.verdict is Verdict.DELIVERED else log.warning
        record(
            "delivery", delivery_id=row.id, account=row.account, configuration_id=row.configuration_id,
            kind=row.kind, attempt=row.attempt, verdict=str(outcome.verdict), status_code=outcome.status_code,
            error=outcome.error, state=str(state), correlation_id=row.correlation_id, request_id=row.request_id,
        )  # fmt: skip

    async def _unknown(self, row: Delivery) -> None:
        """Put a delivery back whose configuration is not known here: the store says whether it is deleted or new."""
        self.reload_book()
        again = Settlement(State.RETRYING, "", self._runtime.now() + UNKNOWN_WAIT_US, row.scheduled)
        state = await self._outbox.settle(row, Outcome(Verdict.RETRY, error="the configuration is not known"), again, 0)
        if state is State.RETRYING:
            self.wake_in(UNKNOWN_WAIT_US / 1e6)

    async def _send(
        self, row: Delivery, configuration: EndpointConfiguration, event: Event | None
    ) -> tuple[Outcome, int]:
        """Send once; whatever goes wrong in making the message ends this delivery and no other."""
        began = self._runtime.monotonic()
        try:
            if event is None and row.event_position:
                event = await self._outbox.event_at(row.event_position)
            message = Message(
                delivery_id=row.id,
                sent_at=self._runtime.now(),
                event=event,
                params=row.content,
                subject=row.subject,
                done_recipients=row.recipients,
                ui_url=self._ui_url,
                options=configuration.options,
            )
            self._runtime.moment("sending")
            outcome = await self._kinds[configuration.kind].send(message, configuration.connection)
            self._runtime.moment("sent")
        except TocsinError as error:  # the event is damaged or gone: no repeat brings it back
            outcome = Outcome(Verdict.PERMANENT, error=f"RENDER: {error.message}", reason="RENDER")
        except Exception as error:
            log.exception("an attempt failed in a way that no kind of endpoint foresaw", delivery_id=row.id)
            outcome = Outcome(Verdict.RETRY, error=f"INTERNAL: {type(error).__name__}")
        return outcome, int((self._runtime.monotonic() - began) * 1e6)

    async def test(self, configuration: EndpointConfiguration, stored: bool) -> tuple[Delivery, Attempt]:
        """Send one test message, once; a stored configuration gets a delivery of its own."""
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
        ended = settle(outcome, 0, 1, self._runtime.now(), 0.5)
        if ended.state is State.RETRYING:  # a test is tried once
            ended = Settlement(State.EXHAUSTED, "ATTEMPTS", self._runtime.now(), 1)
        if stored:
            await self._outbox.settle(row, outcome, ended, duration_us)
        attempt = Attempt(
            1, now, duration_us, outcome.verdict, outcome.status_code, outcome.response_excerpt, outcome.error, 0
        )
        return replace(row, state=ended.state, reason=ended.reason, recipients=outcome.recipients), attempt

    async def stop(self) -> None:
        """Claim nothing more, let what is under way finish, give the rest back."""
        self._stopping = True
        if self._sending:
            await asyncio.wait(list(self._sending), timeout=STOP_GRACE_S)
        left = dict(self._sending)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            await self._outbox.release(list(left.values()))
