"""Router and deliverer over a real store, to be stepped by hand: the order of things is the test's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.api.auth import Caller
from tocsin_server.api.event_drafts import Drafts
from tocsin_server.api.event_redaction import EventRedaction
from tocsin_server.dispatch.delivery import Deliverer
from tocsin_server.dispatch.endpoint_tests import EndpointTests
from tocsin_server.dispatch.routing import Router
from tocsin_server.dispatch.sending import Sender
from tocsin_server.domain.deliveries import DeliverySums
from tocsin_server.domain.event_log import Appended
from tocsin_server.domain.health import Health
from tocsin_server.domain.notifications import Delivery, EndpointConfiguration
from tocsin_server.domain.options import DEFAULT, DeliveryOptions
from tocsin_server.domain.redaction import SecretKeys
from tocsin_server.domain.selection import Selector
from tocsin_server.endpoints import discover
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.http import HttpDoor
from tocsin_server.runtime import system_runtime
from tocsin_server.store import delivery_lists
from tocsin_server.store.database import Readers, log_status, open_store
from tocsin_server.store.event_log import EventReads
from tocsin_server.store.following import Following
from tocsin_server.store.notifications import ConfigurationCodec, Notifications
from tocsin_server.store.outbox import StoreOutbox
from tocsin_server.store.secrets import SecretCipher
from tocsin_server.store.tail import Tail
from tocsin_server.store.writer import Writer

from tests.support.receivers import SECRET

DEADLINE_S = 1.0  # of an attempt: so that a receiver that hangs does not hold a test up


@dataclass
class Clock:
    """A clock that moves when it is told to."""

    time: int = 1_800_000_000_000_000

    def pass_s(self, seconds: float) -> None:
        self.time += int(seconds * 1_000_000)


class DispatchHouse:
    """The parts of a server that route and deliver, without the loops and without the network's way in."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.runtime = system_runtime()
        if clock is not None:
            self.runtime = replace(self.runtime, now=lambda: clock.time, jitter=lambda: 0.5)
        self.store = open_store(f"sqlite:///{path}", self.runtime.new_id)
        self.readers = Readers(self.store)
        self.tail = Tail(self.readers.submit(lambda c: log_status(c, None)).result().head)
        self.writer = Writer(self.store, self.runtime, self.tail.commit)
        self.writer.start()
        self.reads = EventReads(self.readers)
        self.following = Following(self.tail, self.reads, self.runtime)
        codec = ConfigurationCodec(SecretCipher(b"k" * 32), {"webhook": ("secret",), "email": ("password",)})
        self.notifications = Notifications(self.writer, self.readers, codec, 86_400_000_000)
        self.outbox = StoreOutbox(self.writer, self.readers, self.tail, self.notifications)
        self.door = HttpDoor(Egress(["127.0.0.0/8"]), DEADLINE_S)
        self.kinds = discover(self.door)
        sender = Sender(self.outbox, self.runtime, self.kinds, ui_url="", docs_url="")
        self.tests = EndpointTests(self.outbox, self.runtime, sender)
        self.deliverer = Deliverer(self.outbox, self.runtime, self.kinds, lambda: self.router.book, sender)
        self.router = Router(self.outbox, self.runtime, self.deliverer.lanes, self._not_sent, self.deliverer.booked)
        self.sends_at_once = False
        self._drafts = Drafts(self.runtime, b"d" * 32, EventRedaction(SecretKeys(())))

    def _not_sent(self, row: Delivery, frame: bytes | None) -> None:
        """Take a delivery from the router and send it to nobody, or send it: as the test wants it."""
        if self.sends_at_once:
            self.deliverer.start(row, frame)
        else:
            self.deliverer.lanes.give_back((row.account, row.configuration_id))

    async def append(self, *events: str | pb.Event, account: str = "admin") -> list[Appended]:
        """Append events, given whole or by their types."""
        whole = [event if isinstance(event, pb.Event) else pb.Event(type=event) for event in events]
        return await self.writer.append(
            self._drafts.append(Caller(account, "admin", False), pb.AppendEventsRequest(events=whole))
        )

    async def configure(
        self, url: str, event_type: str = "user.*", account: str = "admin", options: DeliveryOptions = DEFAULT
    ) -> EndpointConfiguration:
        """Create a webhook configuration; the router is not told."""
        selector = Selector("account", "*", event_type, "*")
        connection = {"url": url, "secret": SECRET}
        draft = EndpointConfiguration("", account, "webhook", "n", "", True, connection, (selector,), options)
        return await self.notifications.create(draft, "", b"")

    async def deliver(self) -> None:
        """Step the deliverer until nothing is due, and wait for what it has begun."""
        self.deliverer.look_anew()
        while await self.deliverer.step() or self.deliverer.work or self.deliverer._unrecorded:
            await self.settled()

    async def settled(self) -> None:
        """Wait for every attempt under way."""
        while work := self.deliverer.work:
            await asyncio.wait(work)
        await self.outbox.settled()

    async def route(self) -> None:
        """Have the router read the configurations and look at everything."""
        await self.router.reload()
        while await self.router.step():
            pass

    async def deliver_all(self) -> None:
        """Route and deliver, what follows from deliveries too, until nothing is due."""
        head = -1
        while head != self.tail.head:
            head = self.tail.head
            await self.route()
            await self.deliver()

    async def health(self, configuration: EndpointConfiguration) -> Health:
        """Read the health of a configuration's receiver."""
        return (await self.notifications.get(configuration.account, configuration.id)).health

    def sums(self) -> DeliverySums:
        """Read the sums of promise P3 over all accounts; they hold."""
        found = self.readers.submit(lambda c: delivery_lists.sums(c, None)).result()
        ended = found.delivered + found.exhausted + found.cancelled + found.silenced
        assert found.routed == ended + found.open
        return found

    def told(self) -> list[str]:
        """Give the types of the events that tocsin has written, without their prefix."""
        rows = self.sql("SELECT type FROM events WHERE service = 'tocsin' ORDER BY position")
        return [name.removeprefix("system.notifications.") for (name,) in rows]

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Look into the store."""
        return self.readers.submit(lambda c: c.execute(statement, values).fetchall()).result()

    def change(self, statement: str, *values: Any) -> None:
        """Change the store behind everybody's back."""
        self.writer.run_sync(lambda tx: tx.connection.execute(statement, values).rowcount)

    async def close(self) -> None:
        """Stop every part."""
        await self.deliverer.stop()
        await self.door.close()
        self.writer.stop()
        self.readers.close()
        self.store.close()
