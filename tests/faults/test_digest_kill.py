"""Kill -9 at random while events are gathered into digests: each event is told in exactly one.

A digest that comes twice comes under the same id and with the same events (XD1, XD2, XD3, P3).
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.notifications_pb2_grpc import NotificationsStub

from tests.faults.test_delivery_kill import Unreliable, append, sums
from tests.service.test_notifications import webhook
from tests.support.processes import ServerProcess
from tests.support.receivers import WebhookReceiver

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
KILLS = int(os.environ.get("TOCSIN_DIGEST_KILLS", "20"))
EVENTS = 250 * KILLS
UPTIME_S = (0.3, 1.2)  # between a start and the kill


async def test_each_event_is_told_in_exactly_one_digest(tmp_path: Path, hook: WebhookReceiver) -> None:
    receiver = Unreliable(os.environ.get("TOCSIN_KILL_SEED", "1"))
    hook.answer = receiver
    server = ServerProcess(tmp_path / "data")
    await server.start()
    wanted = webhook(hook.url)
    wanted.options.retry_schedule[:] = [1] * 20
    second = Duration(seconds=1)
    wanted.options.grouping.CopyFrom(pb.Grouping(by=["type"], wait=second, interval=second, max_items=40))
    async with grpc.aio.insecure_channel(server.address) as channel:
        await NotificationsStub(channel).CreateEndpointConfiguration(
            pb.CreateEndpointConfigurationRequest(configuration=wanted)
        )
    chance = random.Random(os.environ.get("TOCSIN_KILL_SEED", "1"))
    appending = asyncio.create_task(append(server, EVENTS))
    for _ in range(KILLS):
        # The moment of the crash is what varies: this wait is the fault, not a wait for an outcome.
        await asyncio.sleep(chance.uniform(*UPTIME_S))
        await server.kill()
        await server.start()
        await sums(server)
    await appending
    async with asyncio.timeout(300):
        while (found := await sums(server)).open or found.delivered < EVENTS:
            await asyncio.sleep(0.2)
    told: dict[str, tuple[str, ...]] = {}
    for posted in hook.posted:
        payload = posted.verified_as_of_then()
        if payload["type"] == "system.notifications.digest":
            events = tuple(event["id"] for event in payload["data"]["events"])
            # A repeat is the same digest; what was refused may come again, and so may what was in doubt.
            assert told.setdefault(posted.id, events) == events
    everything = [event for events in told.values() for event in events]
    assert len(everything) == len(set(everything)) == EVENTS
    assert set(everything) == {f"e{n}" for n in range(EVENTS)}
    assert max(len(events) for events in told.values()) <= 40
    await server.stop()
