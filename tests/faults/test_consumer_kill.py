"""Kill -9 while clients share a durable consumer: no event is lost, and what stays open comes again.

What a client has settled more than the flush interval before the kill does not come again; what it
settled later may (XA1, XA2, XB4).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub

from tests.support.processes import ServerProcess

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
CYCLES = int(os.environ.get("TOCSIN_CONSUMER_KILL_CYCLES", "15"))
CLIENTS = 4
EVENTS = 300  # per life of the server
UPTIME_S = (0.05, 0.6)
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
PARKED_EVERY = 50


class Sharers:
    """Clients of one consumer: settle what they get, one in so many by parking it."""

    def __init__(self, address: str) -> None:
        self.seen: Counter[int] = Counter()
        self.parked: set[int] = set()
        self._channels = [grpc.aio.insecure_channel(address, options=CHANNEL) for _ in range(CLIENTS)]
        self._tasks = [asyncio.create_task(self._client(channel)) for channel in self._channels]

    async def _client(self, channel: grpc.aio.Channel) -> None:
        while True:
            try:
                await self._stream(channel)
            except grpc.aio.AioRpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error
                # The server is being killed and started: this is the wait of any client that connects again.
                await asyncio.sleep(0.02)

    async def _stream(self, channel: grpc.aio.Channel) -> None:
        said: asyncio.Queue[pb.ConsumeRequest] = asyncio.Queue()
        said.put_nowait(pb.ConsumeRequest(start=pb.ConsumeRequest.Start(name="shared")))

        async def requests() -> AsyncIterator[pb.ConsumeRequest]:
            while True:
                yield await said.get()

        async for message in EventLogStub(channel).Consume(requests(), wait_for_ready=True):
            for one in message.batch.deliveries:
                self._handle(one, said)

    def _handle(self, one: pb.ConsumeResponse.Delivery, said: asyncio.Queue[pb.ConsumeRequest]) -> None:
        self.seen[one.event.position] += 1
        if one.event.position % PARKED_EVERY == 0:
            self.parked.add(one.event.position)
            nack = pb.ConsumeRequest.Nack(lease_ids=[one.lease_id], action=pb.NACK_ACTION_PARK)
            said.put_nowait(pb.ConsumeRequest(nack=nack))
        else:
            said.put_nowait(pb.ConsumeRequest(ack=pb.ConsumeRequest.Ack(lease_ids=[one.lease_id])))

    async def close(self) -> None:
        """Leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()


async def append(address: str, count: int) -> None:
    async with grpc.aio.insecure_channel(address, options=CHANNEL) as channel:
        batch = pb.AppendEventsRequest(events=[pb.Event(type="t") for _ in range(count)])
        await EventLogStub(channel).AppendEvents(batch, wait_for_ready=True)


async def settled(address: str, head: int) -> pb.ConsumerStatus:
    """Wait until a consumer has settled everything."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(60):
        while True:
            answer = await EventLogStub(channel).GetConsumer(pb.GetConsumerRequest(name="shared"))
            if answer.status.floor == head:
                return answer.status
            await asyncio.sleep(0.05)


async def test_a_kill_loses_no_event_of_a_consumer(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        consumer = pb.Consumer(name="shared", max_retries=1000)
        consumer.retry_delay.SetInParent()
        await EventLogStub(channel).CreateConsumer(pb.CreateConsumerRequest(consumer=consumer))
    sharers = Sharers(server.address)
    chance = random.Random(os.environ.get("TOCSIN_KILL_SEED", "1"))
    try:
        for _ in range(CYCLES):
            await append(server.address, EVENTS)
            # The moment of the crash is what varies: this wait is the fault, not a wait for an outcome.
            await asyncio.sleep(chance.uniform(*UPTIME_S))
            await server.kill()
            await server.start()
        found = await settled(server.address, CYCLES * EVENTS)
    finally:
        await sharers.close()
        await server.stop()
    assert sorted(sharers.seen) == list(range(1, CYCLES * EVENTS + 1))
    assert (found.lag, found.waiting, found.in_flight) == (0, 0, 0)
    assert found.parked == len(sharers.parked) == CYCLES * EVENTS // PARKED_EVERY
    # A crash repeats what was settled in the last moments, not what was settled long before.
    assert max(sharers.seen.values()) <= CYCLES
    assert sum(sharers.seen.values()) <= 2 * CYCLES * EVENTS
