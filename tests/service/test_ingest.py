"""Ingest through a real server: pipelined batches, each acknowledged once it is durable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tocsin.v1 import annotations_pb2
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server import app as server_app
from tocsin_server.api import ingest
from tocsin_server.runtime import system_runtime

from tests.support.servers import Api, Refusal, serving, written_until_held

Batch = pb.IngestResponse.Batch
WIRE_BYTES = 16 * 1024 * 1024  # more than both ends of a connection buffer


def batch(*types: str, **fields: Any) -> pb.IngestRequest:
    return pb.IngestRequest(events=[pb.Event(type=event_type) for event_type in types], **fields)


class Ingesting:
    """One Ingest stream, and what was said of its batches."""

    def __init__(self, api: Api, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.call: Any = api.events.Ingest(metadata=metadata)
        self.batches: list[Batch] = []
        self.messages = 0

    async def send(self, *requests: pb.IngestRequest) -> None:
        for request in requests:
            await self.call.write(request)

    async def until(self, count: int) -> list[Batch]:
        """Read until so many batches have been told."""
        async with asyncio.timeout(20):
            while len(self.batches) < count:
                await self._read()
        return self.batches

    async def _read(self) -> bool:
        message = await self.call.read()
        if message is grpc.aio.EOF:
            return False
        self.messages += 1
        self.batches.extend(message.batches)
        assert len(message.log_id) == 32
        return True

    async def end(self) -> list[Batch]:
        """End the client's side and read the rest; raise what the stream ends with."""
        await self.call.done_writing()
        async with asyncio.timeout(20):
            while await self._read():
                pass
        if await self.call.code() is not grpc.StatusCode.OK:
            await self.call
        return self.batches


async def every_event(api: Api) -> list[pb.Event]:
    request = pb.SubscribeRequest(beginning=pb.SubscribeRequest.Beginning(), stop_when_caught_up=True)
    return [event async for message in api.events.Subscribe(request) for event in message.batch.events]


async def test_batches_are_pipelined_and_acknowledged_in_order(api: Api) -> None:
    stream = Ingesting(api)
    await stream.send(*(batch(f"a.n{number}", f"b.n{number}") for number in range(100)))
    told = await stream.end()
    assert [b.sequence for b in told] == list(range(1, 101))
    assert [r.position for b in told for r in b.results] == list(range(1, 201))
    events = await every_event(api)
    assert [e.type for e in events] == [f"{letter}.n{number}" for number in range(100) for letter in "ab"]
    assert [e.id for e in events] == [r.id for b in told for r in b.results]
    assert stream.messages < 100  # what is durable together is told together


async def test_a_batch_is_acknowledged_while_the_stream_stays_open(api: Api) -> None:
    stream = Ingesting(api)
    await stream.send(batch("one"))
    await stream.until(1)
    assert [e.type for e in await every_event(api)] == ["one"]
    await stream.send(batch("two"))
    assert [b.results[0].position for b in await stream.until(2)] == [1, 2]
    assert len(await stream.end()) == 2


async def test_a_bad_batch_is_refused_alone_with_every_bad_index(api: Api) -> None:
    """XC12: nothing of it is stored, and the stream goes on."""
    stream = Ingesting(api)
    bad = batch("good", "Bad", "good", "x" * 300)
    await stream.send(batch("before"), bad, batch("after"))
    first, refused, last = await stream.end()
    assert [len(first.results), len(refused.results), len(last.results)] == [1, 0, 1]
    assert refused.refusal.reason == annotations_pb2.ERROR_REASON_INVALID_FIELD
    assert [v.field for v in refused.refusal.violations] == ["events[1].type", "events[3].type"]
    assert [e.type for e in await every_event(api)] == ["before", "after"]


async def test_however_many_are_bad_every_index_is_told(api: Api) -> None:
    """XC12: the first hundred in full, all by their index."""
    stream = Ingesting(api)
    await stream.send(batch(*["Bad"] * 1000))
    (refused,) = await stream.end()
    assert len(refused.refusal.violations) == 100
    assert refused.refusal.metadata["bad_indexes"] == "0-999"


async def test_ids_and_request_ids_make_a_batch_safe_to_send_again(api: Api) -> None:
    """XA2, XA20."""
    first, second = Ingesting(api), Ingesting(api)
    given = pb.IngestRequest(events=[pb.Event(id="e", type="a")])
    named = batch("b", request_id="r")
    await first.send(given, named)
    told = await first.end()
    await second.send(given, named, pb.IngestRequest(events=[pb.Event(id="e", type="c")]), batch("c", request_id="r"))
    again = await second.end()
    assert [list(b.results) for b in again[:2]] == [list(b.results) for b in told]
    reused, request_reused = again[2].refusal, again[3].refusal
    assert reused.reason == annotations_pb2.ERROR_REASON_ID_REUSED
    assert "known digest" in reused.violations[0].description
    assert request_reused.reason == annotations_pb2.ERROR_REASON_REQUEST_ID_REUSED
    assert len({request_reused.metadata[name] for name in ("known_digest", "given_digest")}) == 2
    assert len(await every_event(api)) == 2


async def test_an_undecodable_message_ends_the_stream_after_what_came_before(api: Api) -> None:
    """XC1: acknowledgements that were sent stay valid."""
    identity: Any = bytes
    raw = api.channel.stream_stream("/tocsin.v1.EventLog/Ingest", identity, pb.IngestResponse.FromString)
    stream = Ingesting(api)
    stream.call = raw()
    await stream.call.write(batch("one").SerializeToString())
    await stream.call.write(b"\x0a\xff")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.end()
    assert Refusal(caught.value).reason == "UNDECODABLE"
    assert [b.results[0].position for b in stream.batches] == [1]


async def test_a_silent_stream_is_ended_and_its_acknowledgements_stay_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XC18: a client stream that never ends."""
    monkeypatch.setattr(server_app, "INGEST_IDLE_S", 0.2)
    async with serving(tmp_path / "data") as api:
        stream = Ingesting(api)
        await stream.send(batch("one"))
        await stream.until(1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.until(2)
        assert Refusal(caught.value).reason == "DEADLINE_EXCEEDED"
        assert [e.type for e in await every_event(api)] == ["one"]


async def test_a_stopping_server_acknowledges_what_it_has_read(tmp_path: Path) -> None:
    """XB14: the stream ends with SERVER_DRAINING, after the acknowledgements."""
    async with serving(tmp_path / "data") as api:
        stream = Ingesting(api)
        await stream.send(*(batch("a") for _ in range(20)))
        await stream.until(1)
        stopping = asyncio.create_task(api.app.stop())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.until(1000)
        assert Refusal(caught.value).reason == "SERVER_DRAINING"
        await stopping
    async with serving(tmp_path / "data") as api:
        stored = {e.position for e in await every_event(api)}
        assert {r.position for b in stream.batches for r in b.results} <= stored


class HeldWriter:
    """A clock whose store stops before a transaction for as long as it is told to: nothing is acknowledged then."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.runtime = replace(system_runtime(), moment=self._moment)

    def _moment(self, name: str) -> None:
        if name == "group taken":
            self._open.wait(60)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


@pytest.mark.parametrize("size", [5_000, 400_000])
async def test_what_is_unacknowledged_is_bounded_by_batches_and_by_bytes(tmp_path: Path, size: int) -> None:
    """XB2: of a stream whose batches wait for the disk the server reads 256, or 8 MiB, and not one batch more."""
    assert (ingest.BATCHES_MAX, ingest.BYTES_MAX) == (256, 8 * 1024 * 1024)  # as `Ingest` states in the contract
    body = pb.IngestRequest(events=[pb.Event(type="a", message="m" * 4000) for _ in range(size // 4100 + 1)])
    writer = HeldWriter()
    async with serving(tmp_path, writer.runtime) as api:
        stream = Ingesting(api)
        with writer.held():
            await written_until_held(stream.call, body)
            status = await api.events.GetLogStatus(pb.GetLogStatusRequest())  # somebody else
            assert status.head == 0
            assert not stream.call.done()
            stream.call.cancel()
        # What the server had read is stored all the same, and it is all there will be.
        await api.append("last")
        stored = [event.type for event in await every_event(api)]
        batches = stored.count("a") // len(body.events)
        assert stored == ["a"] * batches * len(body.events) + ["last"]
        assert batches == min(256, -(-8 * 1024 * 1024 // body.ByteSize()))


async def test_a_client_that_does_not_read_is_held_and_costs_nobody_else(api: Api) -> None:
    """XB2: when the acknowledgements are not taken, the server stops to read the stream, and serves the others."""
    stream = Ingesting(api)
    sent = await written_until_held(stream.call, batch(*["a"] * 1000))
    async with asyncio.timeout(10):  # somebody else
        head = (await api.append("other")).position
    # Beside what is unacknowledged, acknowledgements are on their way, of 40 KB or more for a thousand events.
    assert 256 <= head // 1000 <= sent
    assert head // 1000 <= ingest.BATCHES_MAX + ingest.MESSAGE_BATCHES_MAX + WIRE_BYTES // 40_000
    assert not stream.call.done()
    stream.call.cancel()


async def test_an_ingested_event_belongs_to_the_caller(api: Api) -> None:
    stream = Ingesting(api, (("x-tocsin-account", "acme"), ("x-correlation-id", "c")))
    await stream.send(batch("theirs"))
    await stream.end()
    assert not await every_event(api)
    request = pb.ListEventsRequest()
    (event,) = (await api.events.ListEvents(request, metadata=(("x-tocsin-account", "acme"),))).events
    assert (event.account, event.type, event.correlation_id) == ("acme", "theirs", "c")
