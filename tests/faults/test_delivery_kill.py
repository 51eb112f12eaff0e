"""Kill -9 at random while thousands of deliveries go to receivers of which every tenth answer is a fault.

None is lost; one comes twice only if an attempt was in doubt, and then under the same id; the sums of
promise P3 hold after each start (XD1, XD2, XD3, P3).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from aiohttp import web
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub

from tests.service.test_notifications import webhook
from tests.support.processes import ServerProcess
from tests.support.receivers import Posted, WebhookReceiver

if TYPE_CHECKING:
    from tocsin.v1.notifications_pb2_grpc import NotificationsAsyncStub

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
KILLS = int(os.environ.get("TOCSIN_DELIVERY_KILLS", "50"))
DELIVERIES = int(os.environ.get("TOCSIN_DELIVERIES", "20000"))
CONFIGURATIONS = 4
UPTIME_S = (0.2, 1.0)  # between a start and the kill
FAULTS = (500, 503, 408, 429, "abort")
BATCH = 250


class Unreliable:
    """Answers every tenth request with a fault; counts what it has taken, by delivery."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)
        self.taken: Counter[str] = Counter()
        self.faults = 0

    def __call__(self, posted: Posted) -> Any:
        if self._chance.random() < 0.1:
            self.faults += 1
            return self._fault(self._chance.choice(FAULTS))
        self.taken[posted.id] += 1
        return 200

    async def _fault(self, fault: int | str) -> web.StreamResponse:
        if isinstance(fault, str):
            raise ConnectionResetError  # aiohttp closes the connection without an answer
        return web.Response(status=fault, headers={"retry-after": "1"} if fault == 429 else {})


async def test_nothing_routed_is_lost_or_doubled_without_doubt(tmp_path: Path, hook: WebhookReceiver) -> None:
    receiver = Unreliable(os.environ.get("TOCSIN_KILL_SEED", "1"))
    hook.answer = receiver
    server = ServerProcess(tmp_path / "data")
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        await configure(NotificationsStub(channel), hook.url)
    chance = random.Random(os.environ.get("TOCSIN_KILL_SEED", "1"))
    appending = asyncio.create_task(append(server, DELIVERIES // CONFIGURATIONS))
    for _ in range(KILLS):
        # The moment of the crash is what varies: this wait is the fault, not a wait for an outcome.
        await asyncio.sleep(chance.uniform(*UPTIME_S))
        await server.kill()
        await server.start()
        await sums(server)
    await appending
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            await finished(NotificationsStub(channel))
            await check(NotificationsStub(channel), receiver)
    finally:
        await server.stop()


async def configure(stub: NotificationsAsyncStub, url: str) -> None:
    for number in range(CONFIGURATIONS):
        wanted = webhook(url.replace("/hook", f"/{number}"), name=f"n{number}")
        wanted.options.retry_schedule[:] = [1] * 20
        await stub.CreateEndpointConfiguration(pb.CreateEndpointConfigurationRequest(configuration=wanted))


async def append(server: ServerProcess, count: int) -> None:
    """Append in batches, repeating what was not answered."""
    for first in range(0, count, BATCH):
        events = [log_pb.Event(id=f"e{first + n}", type="user.t") for n in range(min(BATCH, count - first))]
        while True:
            try:
                async with grpc.aio.insecure_channel(server.address) as channel:
                    await EventLogStub(channel).AppendEvents(log_pb.AppendEventsRequest(events=events), timeout=10)
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


async def sums(server: ServerProcess) -> pb.GetDeliveryStatisticsResponse:
    """Read the sums of promise P3; they hold."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        request = pb.GetDeliveryStatisticsRequest(all_accounts=True)
        found = await NotificationsStub(channel).GetDeliveryStatistics(request, wait_for_ready=True)
    assert found.routed == found.delivered + found.exhausted + found.cancelled + found.silenced + found.open
    return found


async def finished(stub: NotificationsAsyncStub) -> None:
    """Wait until nothing is open."""
    async with asyncio.timeout(600):
        while True:
            found = await stub.GetDeliveryStatistics(pb.GetDeliveryStatisticsRequest())
            if found.open == 0 and found.routed >= DELIVERIES:
                return
            await asyncio.sleep(0.2)


async def check(stub: NotificationsAsyncStub, receiver: Unreliable) -> None:
    """Each event went to each configuration, under one id; doubles are of attempts in doubt."""
    deliveries: list[pb.Delivery] = []
    request = pb.ListDeliveriesRequest(page_size=1000)
    while True:
        page = await stub.ListDeliveries(request)
        deliveries.extend(d for d in page.deliveries if d.event.id.startswith("e"))
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    pairs = {(d.event.id, d.configuration_id) for d in deliveries}
    assert len(pairs) == len(deliveries) == DELIVERIES
    assert {d.state for d in deliveries} == {pb.DELIVERY_STATE_DELIVERED}
    assert {d.id for d in deliveries} <= set(receiver.taken)
    assert receiver.faults > DELIVERIES // 20
    for twice in [d for d in deliveries if receiver.taken[d.id] > 1]:
        full = (await stub.GetDelivery(pb.GetDeliveryRequest(id=twice.id))).delivery
        doubts = [a for a in full.attempts if a.error_class == pb.ERROR_CLASS_INTERRUPTED]
        assert receiver.taken[twice.id] <= 1 + len(doubts)
