"""Kill -9 while 64 clients append and a webhook receives.

Every acknowledged event is there once, in order; every routed delivery ends delivered, and a repeat
carries the same delivery id (P1, P3, P4; XA1, XA2, XA3, XD1, XD2, XD3).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub

from tests.service.test_notifications import webhook
from tests.support.processes import ServerProcess
from tests.support.receivers import WebhookReceiver

if TYPE_CHECKING:
    from tocsin.v1.event_log_pb2_grpc import EventLogAsyncStub
    from tocsin.v1.notifications_pb2_grpc import NotificationsAsyncStub

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
CYCLES = int(os.environ.get("TOCSIN_KILL_CYCLES", "50"))
CLIENTS = 64
UPTIME_S = (0.1, 0.7)  # between a start and the kill
ERRORS_ONLY = pb.Selector(scope="account", level="error", type="*", resource_type="*")
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]


class Producers:
    """Clients that append, each one event after the other, repeating what was not answered."""

    def __init__(self, address: str) -> None:
        self.acknowledged: dict[str, int] = {}
        self._channels = [grpc.aio.insecure_channel(address, options=CHANNEL) for _ in range(4)]
        self._stopping = False

    async def run(self) -> None:
        """Append until `stop`."""
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))
        for channel in self._channels:
            await channel.close()

    def stop(self) -> None:
        """Let every client finish its event."""
        self._stopping = True

    async def _client(self, number: int) -> None:
        stub = EventLogStub(self._channels[number % len(self._channels)])
        count = 0
        while not self._stopping:
            count += 1
            level = log_pb.LEVEL_ERROR if count % 10 == 0 else log_pb.LEVEL_INFO
            event = log_pb.Event(id=f"c{number}-{count}", type="user.image.analysis", level=level)
            self.acknowledged[event.id] = await self._append(stub, event)

    async def _append(self, stub: EventLogAsyncStub, event: log_pb.Event) -> int:
        while True:
            try:
                answer = await stub.AppendEvent(log_pb.AppendEventRequest(event=event), wait_for_ready=True)
                assert not answer.deleted
                return answer.event.position
            except grpc.aio.AioRpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error


async def test_nothing_acknowledged_and_nothing_routed_is_lost(tmp_path: Path, hook: WebhookReceiver) -> None:
    server = ServerProcess(tmp_path / "data")
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        await NotificationsStub(channel).CreateEndpointConfiguration(
            pb.CreateEndpointConfigurationRequest(configuration=webhook(hook.url, ERRORS_ONLY))
        )
    producers = Producers(server.address)
    producing = asyncio.create_task(producers.run())
    chance = random.Random(os.environ.get("TOCSIN_KILL_SEED", "1"))
    for _ in range(CYCLES):
        # The moment of the crash is what varies: this wait is the fault, not a wait for an outcome.
        await asyncio.sleep(chance.uniform(*UPTIME_S))
        await server.kill()
        await server.start()
    producers.stop()
    await producing
    try:
        events = await every_event(server.address)
        check_log(events, producers.acknowledged)
        errors = {event.id for event in events if event.level == log_pb.LEVEL_ERROR}
        await check_deliveries(server.address, errors, hook)
    finally:
        await server.stop()


async def every_event(address: str) -> list[log_pb.Event]:
    """Read the whole log in its order."""
    events: list[log_pb.Event] = []
    async with grpc.aio.insecure_channel(address) as channel:
        request = log_pb.SubscribeRequest(beginning=log_pb.SubscribeRequest.Beginning(), stop_when_caught_up=True)
        async for message in EventLogStub(channel).Subscribe(request):
            events.extend(message.batch.events)
    return events


def check_log(events: list[log_pb.Event], acknowledged: dict[str, int]) -> None:
    """Every acknowledged event is there once, at its place; no place is missing or out of order."""
    assert len(acknowledged) > CYCLES * 10
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    stored = {event.id: event.position for event in events}
    assert len(stored) == len(events)
    assert {event_id: stored.get(event_id) for event_id in acknowledged} == acknowledged
    stamps = [event.created_at.ToMicroseconds() for event in events]
    assert stamps == sorted(stamps)
    for number in range(CLIENTS):  # each client's events are in the order in which it sent them
        own = [int(e.id.partition("-")[2]) for e in events if e.id.startswith(f"c{number}-")]
        assert own == sorted(own)


async def check_deliveries(address: str, errors: set[str], hook: WebhookReceiver) -> None:
    """Each error was routed once, every delivery ends delivered, and repeats carry its id."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = NotificationsStub(channel)
        deliveries = await settled_deliveries(stub, len(errors))
    assert {d.event.id for d in deliveries} == errors
    assert len(deliveries) == len(errors)
    assert {d.state for d in deliveries} == {pb.DELIVERY_STATE_DELIVERED}
    by_event: dict[str, set[str]] = defaultdict(set)
    for posted in hook.posted:
        by_event[posted.verified_as_of_then()["data"]["id"]].add(posted.id)
    assert by_event == {d.event.id: {d.id} for d in deliveries}


async def settled_deliveries(stub: NotificationsAsyncStub, count: int) -> list[pb.Delivery]:
    """Wait until all deliveries have ended, and give them."""
    async with asyncio.timeout(300):
        while True:
            found: list[pb.Delivery] = []
            request = pb.ListDeliveriesRequest(page_size=1000)
            while True:
                page = await stub.ListDeliveries(request)
                found.extend(page.deliveries)
                request.page_token = page.next_page_token
                if not page.next_page_token:
                    break
            if len(found) >= count and all(d.HasField("end_time") for d in found):
                return found
            await asyncio.sleep(0.2)
