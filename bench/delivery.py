"""From append to webhook: how much later than its acknowledgement an event reaches a receiver."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from aiohttp import web
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub

from bench.events import sample_event
from bench.results import Figure, figure
from bench.server import ServerProcess

if TYPE_CHECKING:
    from tocsin.v1.event_log_pb2_grpc import EventLogAsyncStub

EVENTS = 600
RATE = 200.0  # events per second, open loop
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ANYTHING = pb.Selector(scope="account", level="*", type="*", resource_type="*")


def latency(folder: Path) -> list[Figure]:
    """Measure with one webhook configuration, at a steady rate."""
    with ServerProcess(folder) as server:
        before = server.cpu_s()
        acknowledged, received = asyncio.run(_measure(server.address))
        cpu_us = (server.cpu_s() - before) / EVENTS * 1e6
    ack, arrival = statistics.median(acknowledged), statistics.median(received)
    return [
        figure("append to webhook, median, 200/s", arrival * 1e3, "ms", cpu_us=cpu_us),
        figure("append acknowledged, median, 200/s", ack * 1e3, "ms"),
        figure("append to webhook / acknowledged", arrival / ack, "ratio", 1.25, "lower"),
    ]


async def _measure(address: str) -> tuple[list[float], list[float]]:
    arrived: dict[str, float] = {}
    complete = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        now = time.perf_counter()
        arrived[json.loads(await request.read())["data"]["id"]] = now
        if len(arrived) == EVENTS:
            complete.set()
        return web.Response()

    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with grpc.aio.insecure_channel(address) as channel:
        connection = pb.WebhookConnection(url=url, secret=SECRET)
        configuration = pb.EndpointConfiguration(name="bench", webhook=connection, selectors=[ANYTHING])
        await NotificationsStub(channel).CreateEndpointConfiguration(
            pb.CreateEndpointConfigurationRequest(configuration=configuration)
        )
        sent, acknowledged = await _produce(EventLogStub(channel))
        async with asyncio.timeout(60):
            await complete.wait()
    await runner.cleanup()
    return acknowledged, [arrived[name] - began for name, began in sent.items()]


async def _produce(stub: EventLogAsyncStub) -> tuple[dict[str, float], list[float]]:
    """Append at a steady rate whatever the answers take."""
    sent: dict[str, float] = {}
    acknowledged: list[float] = []

    async def one(number: int) -> None:
        event = sample_event()
        event.id = f"e-{number}"
        sent[event.id] = began = time.perf_counter()
        await stub.AppendEvent(log_pb.AppendEventRequest(event=event))
        acknowledged.append(time.perf_counter() - began)

    tasks = []
    start = time.perf_counter()
    for number in range(EVENTS):
        await asyncio.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return sent, acknowledged
