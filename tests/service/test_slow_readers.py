"""Readers that do not read, leave, or fall silent: each ends as it should and costs nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin_server.api import server as api_server

from tests.support.processes import ServerProcess
from tests.support.servers import Api, Refusal, Subscriber, refused, serving, written_until_held

BEGINNING = pb.SubscribeRequest.Beginning()
BIG = pb.AppendEventsRequest(events=[pb.Event(type="big", message="x" * 4000)] * 500)


async def test_a_reader_that_stalls_is_held_then_told_where_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XB2: flow control holds it, others are served meanwhile, and in the end it is told its place."""
    monkeypatch.setattr(api_server, "WRITE_STALL_S", 1.0)
    monkeypatch.setattr(api_server, "ABORT_MAX_S", 0.5)
    monkeypatch.setattr(api_server, "STREAMS_MAX", 2)
    async with serving(tmp_path) as api:
        for _ in range(6):
            await api.events.AppendEvents(BIG)
        stalled: Any = api.events.Subscribe(pb.SubscribeRequest(beginning=BEGINNING))
        await stalled.read()
        other = Subscriber(api, beginning=BEGINNING)
        await other.until(count=3000)
        await room_for_a_stream(api)  # the stalled one has been ended
        seen: list[int] = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while (message := await stalled.read()) is not grpc.aio.EOF:
                seen += [event.position for event in message.batch.events]
            await stalled
        refusal = Refusal(caught.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "SLOW_CONSUMER")
        await other.close()
        await room_for_a_stream(api)
        resumed = Subscriber(api, after=pb.SubscribeRequest.After(position=int(refusal.metadata["position"])))
        await resumed.until(count=3000 - int(refusal.metadata["position"]))
        assert set(seen) | set(resumed.positions) == set(range(1, 3001))
        await resumed.close()


async def test_streams_are_bounded_and_those_that_leave_make_room_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XB3, XB4, XF16: beyond the bound TOO_MANY_STREAMS with the time to wait; a cancelled stream is gone."""
    monkeypatch.setattr(api_server, "STREAMS_MAX", 3)
    async with serving(tmp_path) as api:
        for _ in range(5):
            streams = [Subscriber(api) for _ in range(3)]
            await asyncio.gather(*(s.until(step="caught_up") for s in streams))
            refusal = await refused(api.events.Subscribe(pb.SubscribeRequest()))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
            assert refusal.retry_s is not None
            assert (await api.append("unary.calls.go.on")).position
            await asyncio.gather(*(s.close() for s in streams))
            await room_for_a_stream(api)


async def room_for_a_stream(api: Api) -> None:
    """Wait until the server has seen that streams have gone."""
    async with asyncio.timeout(5):
        while True:
            stream = Subscriber(api, stop_when_caught_up=True)
            await stream.until(step="end")
            if stream.error is None:
                return


class DeadWire:
    """A connection through which, from some moment on, nothing goes any more, and nobody is told."""

    def __init__(self, address: str) -> None:
        self._host, self._port = address.split(":")
        self.dead = False
        self._server: asyncio.Server
        self.address = ""

    async def __aenter__(self) -> DeadWire:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection(self._host, int(self._port))
        await asyncio.gather(self._pump(reader, back), self._pump(to, writer), return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not self.dead:
                target.write(data)
        target.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


async def test_a_peer_that_is_gone_without_a_word_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XB5: a black hole ends the stream within the keepalive and its timeout, and its place is free."""
    options = dict(api_server.OPTIONS)
    for name in ("keepalive_time_ms", "keepalive_timeout_ms", "http2.ping_timeout_ms"):
        options[f"grpc.{name}"] = 500
    monkeypatch.setattr(api_server, "OPTIONS", tuple(options.items()))
    monkeypatch.setattr(api_server, "STREAMS_MAX", 1)
    async with serving(tmp_path) as api, DeadWire(f"127.0.0.1:{api.app.port}") as wire:
        channel = grpc.aio.insecure_channel(wire.address)
        call: Any = EventLogStub(channel).Subscribe(pb.SubscribeRequest())
        assert (await call.read()).HasField("started")
        assert (await refused(api.events.Subscribe(pb.SubscribeRequest()))).reason == "TOO_MANY_STREAMS"
        wire.dead = True
        await room_for_a_stream(api)
        await channel.close()


async def test_batches_grow_for_one_that_is_behind_and_stay_single_for_one_that_is_not(api: Api) -> None:
    live = Subscriber(api)
    await live.until(step="caught_up")
    for count in range(1, 4):
        await api.append("t")
        await live.until(count=count)
    assert [kind for kind, _ in live.steps].count("batch") == 3
    await live.close()
    await api.events.AppendEvents(pb.AppendEventsRequest(events=[pb.Event(type="t")] * 200))
    behind = Subscriber(api, beginning=BEGINNING, stop_when_caught_up=True)
    await behind.until(step="end")
    assert [kind for kind, _ in behind.steps].count("batch") == 1
    assert len(behind.events) == 203


STALLED = 4  # of each kind
MEGABYTE = pb.AppendEventsRequest(events=[pb.Event(type="big", message="x" * 4000)] * 250)
SMALL = pb.IngestRequest(events=[pb.Event(type="small")] * 200)  # many times larger in memory than as a message


async def stalled_subscriber(stub: Any) -> Any:
    """Begin to read everything, and stop after the first message."""
    call: Any = stub.Subscribe(pb.SubscribeRequest(beginning=BEGINNING))
    await call.read()
    return call


async def stalled_consumer(stub: Any) -> Any:
    """Begin to consume everything, and stop after the first message, acknowledging nothing."""
    call: Any = stub.Consume()
    await call.write(pb.ConsumeRequest(start=pb.ConsumeRequest.Start(name="c")))
    await call.read()
    return call


async def stalled_producer(stub: Any) -> Any:
    """Send batches and read no answer, until the server takes no more."""
    call: Any = stub.Ingest()
    assert await written_until_held(call, SMALL) > 256
    return call


@pytest.mark.parametrize("stall", [stalled_subscriber, stalled_consumer, stalled_producer])
async def test_those_who_stall_cost_no_memory(process: ServerProcess, stall: Callable[[Any], Any]) -> None:
    """XB2: each holds some megabytes, and not more however much is appended and read by others meanwhile."""
    async with AsyncExitStack() as stack:

        async def connected() -> Any:
            return EventLogStub(await stack.enter_async_context(grpc.aio.insecure_channel(process.address)))

        stub = await connected()
        consumer = pb.Consumer(name="c", max_in_flight=1000)
        await stub.CreateConsumer(pb.CreateConsumerRequest(consumer=consumer, beginning=BEGINNING))
        await filled(stub, 60)  # so that SQLite's caches are full
        before = process.memory_kb("VmHWM")
        calls = [await stall(await connected()) for _ in range(STALLED)]
        stalled = process.memory_kb("VmHWM")
        assert stalled - before < STALLED * 48 * 1024
        await filled(stub, 40)
        assert process.memory_kb("VmHWM") - stalled < 80 * 1024  # not those forty for each
        assert not any(call.done() for call in calls)
        for call in calls:
            call.cancel()


async def filled(stub: Any, megabytes: int) -> None:
    """Append so much and read it again, as those do who do not stall."""
    for _ in range(megabytes):
        answer = await stub.AppendEvents(MEGABYTE)
    after = pb.SubscribeRequest.After(position=answer.results[-1].position - 250 * megabytes)
    count = 0
    async for message in stub.Subscribe(pb.SubscribeRequest(after=after, stop_when_caught_up=True)):
        count += len(message.batch.events)
    assert count == 250 * megabytes
