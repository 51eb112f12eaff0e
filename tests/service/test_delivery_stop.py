"""Stopping while deliveries are under way: nothing is lost, and what is broken off uses up no attempt."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub

from tests.service.test_notifications import webhook
from tests.support.processes import ServerProcess
from tests.support.receivers import WebhookReceiver


async def test_a_stop_lets_attempts_finish_and_claims_nothing_more(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XD31: SIGTERM in the midst of attempts; exit code 0, every attempt under way is answered and recorded."""
    let_go = asyncio.Event()

    async def slow() -> int:
        await let_go.wait()
        return 200

    hook.answer = lambda posted: slow()
    server = ServerProcess(tmp_path / "data")
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        request = pb.CreateEndpointConfigurationRequest(configuration=webhook(hook.url))
        await NotificationsStub(channel).CreateEndpointConfiguration(request)
        events = [log_pb.Event(type="user.t") for _ in range(100)]
        await EventLogStub(channel).AppendEvents(log_pb.AppendEventsRequest(events=events))
        await hook.until(8)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.5)  # the stop is under way; only then are the attempts answered
    under_way = len(hook.posted)
    let_go.set()
    status, said = await stopping
    assert (status, said) == (0, "")
    assert len(hook.posted) == under_way
    await server.start()
    await hook.until(100)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = NotificationsStub(channel)
        async with asyncio.timeout(20):
            while (found := await stub.GetDeliveryStatistics(pb.GetDeliveryStatisticsRequest())).open:
                await asyncio.sleep(0.02)
        listed = await stub.ListDeliveries(pb.ListDeliveriesRequest(page_size=1000))
    assert (found.routed, found.delivered) == (100, 100)
    assert {d.attempt_count for d in listed.deliveries} == {1}
    assert len({posted.id for posted in hook.posted}) == len(hook.posted) == 100
    await server.stop()
