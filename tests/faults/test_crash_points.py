"""Kill -9 at every named moment, under load: nothing acknowledged is lost, no position is missing or out of order.

XA1 (before COMMIT), XA2 (after COMMIT, before the answer), XA3 (inside a group), XA24 (retention), P1, P4. Clients
append one by one, in batches and by Ingest, and repeat what was not answered; a webhook receives.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1 import notifications_pb2
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub
from tocsin_server.store.checking import check

from tests.service.test_notifications import webhook
from tests.support.crashing import MOMENTS
from tests.support.receivers import WebhookReceiver

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
CYCLES = int(os.environ.get("TOCSIN_CRASH_CYCLES", "500"))
CLIENTS = 12
BATCH = 10
ERRORS_ONLY = notifications_pb2.Selector(scope="account", level="error", type="*", resource_type="*")
KEPT = 5000  # far more than one life appends
LIFE_S = 20.0  # a moment that does not come is a fault of the test
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Lives:
    """A server that lives and dies again and again, on one store."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._process: asyncio.subprocess.Process | None = None
        self._stdin: asyncio.StreamWriter
        self._stdout: asyncio.StreamReader
        self._life = 0
        self._status: int | None = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.crashing", str(self._data),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        return self

    async def begin(self, moment: str = "never", count: int = 0, keep: int = KEPT) -> str:
        """Start a life that ends when `moment` has come `count` times; give its address, empty if it is over."""
        self._stdin.write(f"{count} {keep} {moment}\n".encode())
        said = await self._line()
        if said[0] == "ended":
            self._status = int(said[1])
            return ""
        assert said[0] == "serving" and len(said) == 3, said
        self._status, self._life = None, int(said[2])
        return f"127.0.0.1:{said[1]}"

    async def ended(self) -> int:
        """Wait for the end of the life; give its exit status."""
        if self._status is None:
            self._status = int((await self._line())[1])
        return self._status

    async def stop(self) -> int:
        """Have the life end as it should."""
        os.kill(self._life, signal.SIGTERM)
        return await self.ended()

    async def _line(self) -> list[str]:
        async with asyncio.timeout(LIFE_S):
            line = await self._stdout.readline()
        assert line, "the process of the lives has ended"
        return line.decode().split()

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._status is None:
            os.kill(self._life, signal.SIGKILL)
        self._stdin.close()
        await self._process.wait()


class Producers:
    """Clients that append over all lives, and what was acknowledged to them."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self._sequence = 0
        self._unanswered: list[list[pb.AppendEventsRequest]] = [[] for _ in range(CLIENTS)]

    async def run(self, address: str) -> None:
        """Append until the server is gone."""
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = EventLogStub(channel)
            kinds = [self._one_by_one, self._by_batch, self._by_ingest]
            await asyncio.gather(*(kinds[number % 3](stub, self._unanswered[number]) for number in range(CLIENTS)))

    def _next(self, unanswered: list[pb.AppendEventsRequest], size: int) -> pb.AppendEventsRequest:
        """Give what was not answered in the life before, or something new."""
        if unanswered:
            return unanswered[0]
        events = []
        for _ in range(size):
            self._sequence += 1
            level = pb.LEVEL_ERROR if self._sequence % 20 == 0 else pb.LEVEL_INFO
            events.append(pb.Event(id=f"e{self._sequence}", type="user.image.analysis", level=level))
        unanswered.append(pb.AppendEventsRequest(events=events, request_id=f"r{self._sequence}"))
        return unanswered[0]

    def _answered(self, unanswered: list[pb.AppendEventsRequest], positions: list[int]) -> None:
        request = unanswered.pop(0)
        for event, position in zip(request.events, positions, strict=True):
            assert self.acknowledged.setdefault(event.id, position) == position

    async def _one_by_one(self, stub: Any, unanswered: list[pb.AppendEventsRequest]) -> None:
        try:
            while True:
                (event,) = self._next(unanswered, 1).events
                answer = await stub.AppendEvent(pb.AppendEventRequest(event=event))
                self._answered(unanswered, [answer.event.position])
        except grpc.aio.AioRpcError as error:
            assert error.code() in GONE, error

    async def _by_batch(self, stub: Any, unanswered: list[pb.AppendEventsRequest]) -> None:
        try:
            while True:
                answer = await stub.AppendEvents(self._next(unanswered, BATCH))
                self._answered(unanswered, [result.position for result in answer.results])
        except grpc.aio.AioRpcError as error:
            assert error.code() in GONE, error

    async def _by_ingest(self, stub: Any, unanswered: list[pb.AppendEventsRequest]) -> None:
        try:
            call = stub.Ingest()
            while True:
                request = self._next(unanswered, BATCH)
                await call.write(pb.IngestRequest(events=request.events, request_id=request.request_id))
                message = await call.read()
                if message is grpc.aio.EOF:
                    return
                (batch,) = message.batches
                assert not batch.HasField("refusal"), batch.refusal
                self._answered(unanswered, [result.position for result in batch.results])
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # A write into a stream whose server has just died ends in the client's own core.
            torn = isinstance(error, grpc.aio.AioRpcError) and error.details() == "Internal error from Core"
            assert torn or not isinstance(error, grpc.aio.AioRpcError) or error.code() in GONE, error


class Reader:
    """Reads what came in a life, and checks that nothing is missing."""

    def __init__(self) -> None:
        self.position = 0
        self.stored: dict[str, int] = {}

    async def read(self, address: str, acknowledged: dict[str, int]) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = EventLogStub(channel)
            after = pb.SubscribeRequest.After(position=self.position)
            async for message in stub.Subscribe(pb.SubscribeRequest(after=after, stop_when_caught_up=True)):
                for event in message.batch.events:
                    assert event.position == self.position + 1, "a position is missing"
                    assert event.id not in self.stored, "an event is there twice"
                    self.position = event.position
                    self.stored[event.id] = event.position
        self._nothing_is_lost(acknowledged)

    async def read_again(self, address: str, acknowledged: dict[str, int]) -> None:
        """Read everything that stands anew: what was there before is there still, whatever crashed since."""
        found: dict[int, str] = {}
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = EventLogStub(channel)
            request = pb.SubscribeRequest(beginning=pb.SubscribeRequest.Beginning(), stop_when_caught_up=True)
            async for message in stub.Subscribe(request):
                found |= {event.position: event.id for event in message.batch.events}
        oldest, newest = min(found), max(found)
        assert newest == self.position, f"{newest - self.position} events came to be while nobody appends"
        assert oldest == 1 or newest - oldest >= KEPT - 1, f"gone before {oldest}, {newest} being the newest"
        assert found == {place: name for name, place in self.stored.items() if place >= oldest}
        self._nothing_is_lost(acknowledged)

    def _nothing_is_lost(self, acknowledged: dict[str, int]) -> None:
        lost = {name: place for name, place in acknowledged.items() if self.stored.get(name) != place}
        assert not lost, f"acknowledged and not there: {lost}"


async def life(lives: Lives, producers: Producers, reader: Reader, moment: str, count: int) -> None:
    """Live until the moment has come so many times."""
    address = await lives.begin(moment, count)
    if address:
        try:
            await reader.read(address, producers.acknowledged)
        except grpc.aio.AioRpcError as error:  # it may die while it is read
            assert error.code() in GONE, error
        await producers.run(address)
    assert await lives.ended() == -signal.SIGKILL


def moment_of(cycle: int, stored: int, chance: random.Random) -> tuple[str, int]:
    """Choose when the next life ends: every moment in turn, some after a while."""
    moment = MOMENTS[cycle % len(MOMENTS)]
    if moment == "horizon raised":  # comes at the start, where there is something to delete
        return (moment, 1) if stored > KEPT + 100 else ("committed", 1)
    return moment, chance.randint(1, 4 if moment in ("routed", "sending", "sent") else 40)


async def test_nothing_acknowledged_is_lost_at_any_moment(tmp_path: Path, hook: WebhookReceiver) -> None:
    chance = random.Random(os.environ.get("TOCSIN_KILL_SEED", "1"))
    producers, reader = Producers(), Reader()
    async with Lives(tmp_path / "data") as lives:
        address = await lives.begin()
        async with grpc.aio.insecure_channel(address) as channel:
            request = notifications_pb2.CreateEndpointConfigurationRequest(configuration=webhook(hook.url, ERRORS_ONLY))
            await NotificationsStub(channel).CreateEndpointConfiguration(request)
        assert await lives.stop() == 0
        for cycle in range(CYCLES):
            await life(lives, producers, reader, *moment_of(cycle, reader.position, chance))
        address = await lives.begin()
        await reader.read(address, producers.acknowledged)
        await reader.read_again(address, producers.acknowledged)
        await every_error_is_delivered(address, reader, hook)
        assert await lives.stop() == 0
    damages = [
        damage for result in check(tmp_path / "data" / "tocsin.db", lambda *_: None) for damage in result.damages
    ]
    assert damages == []
    assert len(producers.acknowledged) > CYCLES


async def every_error_is_delivered(address: str, reader: Reader, hook: WebhookReceiver) -> None:
    """Wait until each stored error has come to the webhook; repeats carry the same delivery id."""
    errors = {name for name in reader.stored if int(name[1:]) % 20 == 0}
    ids: dict[str, set[str]] = {}
    seen = 0
    async with asyncio.timeout(120):
        while not errors <= ids.keys():
            posts = await hook.until(seen + 1)
            for posted in posts[seen:]:
                ids.setdefault(posted.verified_as_of_then()["data"]["id"], set()).add(posted.id)
            seen = len(posts)
    assert {name: len(found) for name, found in ids.items()} == dict.fromkeys(errors, 1)
