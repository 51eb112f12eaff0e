"""Kill -9 while alerts run: each instance begins once, each message is one delivery (XE5, trap 6)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2
from tocsin.v1.alerting_pb2_grpc import AlertingStub
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub

from tests.support.alerts import alert, struct
from tests.support.processes import ServerProcess
from tests.support.receivers import SECRET, WebhookReceiver

pytestmark = pytest.mark.faults
KILLS = 12
RUN_S = 1.3  # a little more than the interval: kills fall before, into and after a run
SEED = 4


@asynccontextmanager
async def process(data: Path) -> AsyncIterator[grpc.aio.Channel]:
    """Run a server in a process of its own, and kill it when the block ends."""
    server = ServerProcess(data)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield channel
    finally:
        await server.kill()


async def begin(channel: grpc.aio.Channel, url: str) -> str:
    hook = notifications_pb2.EndpointConfiguration(
        name="hook", webhook=notifications_pb2.WebhookConnection(url=url, secret=SECRET)
    )
    request = notifications_pb2.CreateEndpointConfigurationRequest(configuration=hook)
    answer = await NotificationsStub(channel).CreateEndpointConfiguration(request)
    params = {"window": "1h", "threshold": 1, "group_by": ["resource_id"]}
    wanted = alert(
        schedule=pb.Schedule(interval="1s"),
        throttle="1d",
        params=struct(params),
        actions=[pb.Action(id=answer.configuration.id, params=struct({"body": "{{alertInstanceId}}"}))],
    )
    created = await AlertingStub(channel).CreateAlert(pb.CreateAlertRequest(alert=wanted))
    return created.alert.id


async def append(channel: grpc.aio.Channel, resource: str) -> None:
    event = log_pb.Event(type="user.thing.failed", resource=log_pb.EventResource(type="thing", id=resource))
    await EventLogStub(channel).AppendEvent(log_pb.AppendEventRequest(event=event))


async def transitions(channel: grpc.aio.Channel) -> list[tuple[str, str]]:
    request = log_pb.ListEventsRequest(filter=log_pb.EventFilter(types=["system.alerting.*"]), page_size=1000)
    events = (await EventLogStub(channel).ListEvents(request)).events
    return [
        (event.type.removeprefix("system.alerting."), json_format.MessageToDict(event.details)["instance_id"])
        for event in events
        if "instance_id" in event.details.struct_value.fields
    ]


async def test_alerts_survive_kill_nine(tmp_path: Path, hook: WebhookReceiver) -> None:
    chance = random.Random(SEED)
    resources = [f"r{number}" for number in range(KILLS)]
    alert_id = ""
    for resource in resources:
        async with process(tmp_path) as channel:
            alert_id = alert_id or await begin(channel, hook.url)
            await append(channel, resource)
            await asyncio.sleep(chance.uniform(0, RUN_S))
    async with process(tmp_path) as channel:
        async with asyncio.timeout(20):
            while len({posted.body for posted in hook.posted}) < KILLS:
                await hook.until(len(hook.posted) + 1)
        state = await AlertingStub(channel).GetAlertState(pb.GetAlertStateRequest(id=alert_id))
        assert sorted(state.alert_instances) == sorted(resources)
        assert Counter(await transitions(channel)) == Counter(("new_instance", r) for r in resources)
        request = notifications_pb2.ListDeliveriesRequest(alert_id=alert_id, page_size=1000)
        deliveries = (await NotificationsStub(channel).ListDeliveries(request)).deliveries
        assert sorted(d.alert.instance_id for d in deliveries) == sorted(resources)
        # A repeat of a message carries the id of its delivery.
        assert {posted.id for posted in hook.posted} == {d.id for d in deliveries}
