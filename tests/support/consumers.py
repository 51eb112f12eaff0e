"""Clients of durable consumers that a test steers: what they got, what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from tocsin.v1 import event_log_pb2 as pb

from tests.support.servers import Api, Metadata, Refusal

BEGINNING = pb.SubscribeRequest.Beginning()
RETRY, PARK, SKIP = pb.NACK_ACTION_RETRY, pb.NACK_ACTION_PARK, pb.NACK_ACTION_SKIP


def millis(count: int) -> Duration:
    """Give a duration."""
    return Duration(seconds=count // 1000, nanos=count % 1000 * 1_000_000)


async def create(api: Api, name: str = "c", start: str = "beginning", **settings: Any) -> pb.Consumer:
    """Create a consumer; it begins at the beginning, or with what is new."""
    request = pb.CreateConsumerRequest(consumer=pb.Consumer(name=name, **settings))
    if start == "beginning":
        request.beginning.SetInParent()
    return (await api.events.CreateConsumer(request)).consumer


async def status(api: Api, name: str = "c") -> pb.ConsumerStatus:
    """Ask how far a consumer is."""
    return (await api.events.GetConsumer(pb.GetConsumerRequest(name=name))).status


async def parked(api: Api, name: str = "c") -> list[pb.ParkedEvent]:
    """Ask for the first page of what is parked."""
    return list((await api.events.ListParked(pb.ListParkedRequest(name=name))).parked)


class Client:
    """Reads one stream of a consumer in the background and lets a test await what it is told."""

    def __init__(
        self, api: Api, name: str = "c", metadata: Metadata = (), start: bool = True, acks: bool = False, **fields: Any
    ) -> None:
        self.call = api.events.Consume(metadata=metadata)
        self.acks = acks  # acknowledges each event as it comes
        self.got: list[pb.ConsumeResponse.Delivery] = []
        self.told: list[str] = []
        self.started: pb.ConsumeResponse.Started | None = None
        self.returned = -1
        self.error: Refusal | None = None
        self._changed = asyncio.Condition()
        self._tasks = [asyncio.create_task(self._read())]
        if start:
            self.say(start=pb.ConsumeRequest.Start(name=name, **fields))

    def say(self, **message: Any) -> None:
        """Send a message, after those before it."""
        before = self._tasks[-1]
        self._tasks.append(asyncio.create_task(self._write(before, pb.ConsumeRequest(**message))))

    async def _write(self, before: asyncio.Task[None], message: pb.ConsumeRequest) -> None:
        if before is not self._tasks[0]:
            await before
        await self.call.write(message)

    def ack(self, *positions: int) -> None:
        """Acknowledge events, all that came without an argument."""
        self.say(ack=pb.ConsumeRequest.Ack(lease_ids=self.leases(*positions)))

    def nack(self, action: pb.NackAction.ValueType, *positions: int, reason: str = "") -> None:
        """Refuse events."""
        self.say(nack=pb.ConsumeRequest.Nack(lease_ids=self.leases(*positions), action=action, reason=reason))

    def leases(self, *positions: int) -> list[int]:
        """Give the newest leases of events by their positions."""
        newest = {one.event.position: one.lease_id for one in self.got}
        return [lease for position, lease in newest.items() if not positions or position in positions]

    async def _read(self) -> None:
        try:
            async for message in self.call:
                await self._take(message)
        except grpc.aio.AioRpcError as error:
            self.error = Refusal(error)
        except asyncio.CancelledError:
            if not self.call.cancelled():
                raise
        async with self._changed:
            self.told.append("end")
            self._changed.notify_all()

    async def _take(self, message: pb.ConsumeResponse) -> None:
        kind = message.WhichOneof("message") or ""
        async with self._changed:
            self.told.append(kind)
            self.got.extend(message.batch.deliveries)
            if self.acks and message.batch.deliveries:
                leases = [one.lease_id for one in message.batch.deliveries]
                self.say(ack=pb.ConsumeRequest.Ack(lease_ids=leases))
            if kind == "started":
                self.started = message.started
            elif kind == "done":
                self.returned = message.done.returned_count
            self._changed.notify_all()

    async def until(self, count: int = 0, told: str = "", that: Callable[[], bool] = lambda: True) -> None:
        """Wait until so many events have come, and such a message, and something holds."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(self.got) >= count and (not told or told in self.told) and that())

    @property
    def positions(self) -> list[int]:
        """The positions of the events that have come."""
        return [one.event.position for one in self.got]

    @property
    def attempts(self) -> list[tuple[int, int]]:
        """Position and attempt of what has come."""
        return [(one.event.position, one.attempt) for one in self.got]

    async def half_close(self) -> None:
        """End the client's side, and wait for the end of the stream."""
        await self._tasks[-1]
        await self.call.done_writing()
        await self.until(told="end")

    async def close(self) -> None:
        """Break the stream off."""
        self.call.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def until_status(api: Api, holds: Callable[[pb.ConsumerStatus], bool], name: str = "c") -> pb.ConsumerStatus:
    """Ask until something holds of a consumer: what settles in the server is not told to anybody."""
    async with asyncio.timeout(20):
        while True:
            found = await status(api, name)
            if holds(found):
                return found
            await asyncio.sleep(0.01)
