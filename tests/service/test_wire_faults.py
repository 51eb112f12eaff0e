"""What comes over the wire that should not: odd encodings, headers, deadlines, streams, and no protocol at all."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, Value
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.api import server as api_server
from tocsin_server.runtime import system_runtime

from tests.support.processes import ServerProcess
from tests.support.servers import Api, refused, serving


def raw(api: Api, method: str = "AppendEvent") -> Any:
    """Give a call that sends bytes as they are."""
    answer: Any = getattr(pb, f"{method}Response")
    identity: Any = bytes
    return api.channel.unary_unary(f"/tocsin.v1.EventLog/{method}", identity, answer.FromString)


def field(number: int, body: bytes) -> bytes:
    """Encode a field of bytes."""
    assert len(body) < 128
    return bytes((number << 3 | 2, len(body))) + body


async def test_odd_but_legal_encodings_have_one_meaning(api: Api) -> None:
    """XC6: a Value of no kind is null, of two equal keys the last wins, numbers are doubles; all survive the store."""
    twice = field(1, field(1, b"k") + field(2, field(3, b"one"))) + field(
        1, field(1, b"k") + field(2, field(3, b"two"))
    )
    empty = field(1, field(1, b"none") + field(2, b""))
    event = field(4, b"t") + field(9, field(5, twice + empty))
    answer = await raw(api)(field(1, event))
    details: Any = answer.event.details.struct_value
    assert (details["k"], details["none"]) == ("two", None)
    # Doubles, to the last bit: beyond 2^53 not every integer is one, and the next one is kept apart from its neighbour.
    numbers = [2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63), 0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308]
    stored = await api.append("t", details=Value(list_value=ListValue(values=[Value(number_value=n) for n in numbers])))
    read = (await api.events.GetEvent(pb.GetEventRequest(id=stored.id))).event
    kept = [value.number_value for value in read.details.list_value.values]
    assert [struct.pack("d", number) for number in kept] == [struct.pack("d", number) for number in numbers]


async def test_labels_are_kept_byte_for_byte_within_their_bounds(api: Api) -> None:
    """XC11: emoji, right-to-left marks and lookalikes are text like any other; too many or too long are not."""
    odd = {"emoji 🔔": "🚨", "\u202egnp": "\u0430dmin", "\u00e9": "e\u0301"}
    event = await api.append("t", labels=odd)
    assert dict((await api.events.GetEvent(pb.GetEventRequest(id=event.id))).event.labels) == odd
    for labels, path in (
        ({str(n): "" for n in range(65)}, "event.labels"),
        ({str(n): "" for n in range(100_000)}, "event"),  # larger than an event may be
        ({"": "x"}, 'event.labels[""]'),
        ({"k" * 65: "x"}, f'event.labels["{"k" * 64}"]'),
        ({"k" * 1_000_000: "x"}, "event"),
    ):
        request = pb.AppendEventRequest(event=pb.Event(type="t", labels=labels))
        refusal = await refused(api.events.AppendEvent(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert set(refusal.fields) == {path}


async def test_times_out_of_range_are_refused_by_their_path(api: Api) -> None:
    """XC9: a year too far, a negative or too large fraction."""
    for seconds, nanos in ((253_402_300_800, 0), (10**15, 0), (-1, 0), (0, -1), (0, 2 * 10**9)):
        event = pb.Event(type="t")
        event.timestamp.seconds, event.timestamp.nanos = seconds, nanos
        refusal = await refused(api.events.AppendEvent(pb.AppendEventRequest(event=event)))
        assert (refusal.reason, list(refusal.fields)) == ("INVALID_FIELD", ["event.timestamp"])


async def test_an_unknown_word_is_refused_and_an_unknown_field_is_not(api: Api) -> None:
    """XC13: what a newer client may send."""
    refusal = await refused(raw(api)(field(1, field(4, b"t") + b"\x30\x63")))  # level 99
    assert list(refusal.fields) == ["event.level"]
    answer = await raw(api)(field(1, field(4, b"t") + field(15, b"") + b"\xfa\x3f\x03new") + b"\xfa\x3f\x03new")
    assert answer.event.type == "t"


async def test_headers_are_bounded_and_never_reach_the_log_raw(process: ServerProcess) -> None:
    """XC8: large, many, or with line breaks."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        call: Any = channel.unary_unary("/tocsin.v1.System/GetInfo", lambda b: b, lambda b: b)
        for metadata in (
            (("x-note", "n" * 20_000),),
            tuple((f"x-{number}", "v" * 30) for number in range(10_000)),
            (("x-request-id", "a b c"),),
            (("x-tocsin-account", "../../etc"),),
            (("x-request-id", "r" * 10_000),),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", metadata=metadata)
            assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)
        for name, value in ((b"x-request-id", b"dddd\r\neeee"), (b"x-note-bin", b"!!ffff!!")):
            await sent_by_hand(process.address, name, value)
        assert await call(b"")
    code, said = await process.stop()
    assert code == 0
    assert not any(secret in said for secret in ("nnnn", "vvvv", "rrrr", "../../etc", "dddd", "eeee", "ffff"))


async def sent_by_hand(address: str, name: bytes, value: bytes) -> None:
    """Call GetInfo over HTTP/2 with a header that no client of gRPC sends; the server ends the call, or answers."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    def text(part: bytes) -> bytes:
        return bytes((len(part),)) + part

    headers = {b":method": b"POST", b":scheme": b"http", b":path": b"/tocsin.v1.System/GetInfo", b":authority": b"x"}
    headers |= {b"content-type": b"application/grpc", b"te": b"trailers", name: value}
    block = b"".join(b"\x00" + text(key) + text(held) for key, held in headers.items())  # literal, never indexed

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body

    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
    writer.write(frame(1, 4, 1, block) + frame(0, 1, 1, bytes(5)))
    async with asyncio.timeout(20):
        while True:
            size, kind = int.from_bytes((head := await reader.readexactly(9))[:3], "big"), head[3]
            await reader.readexactly(size)
            if kind in (3, 7) or (kind == 1 and head[4] & 1):  # reset, goodbye, or the trailers of an answer
                break
    writer.close()


@pytest.mark.parametrize("megabytes", [5, 100])
async def test_a_message_that_is_too_large_costs_no_memory(process: ServerProcess, megabytes: int) -> None:
    """XC7: refused by its size, before it is read."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        identity: Any = bytes
        for method in ("AppendEvent", "AppendEvents"):
            call: Any = channel.unary_unary(f"/tocsin.v1.EventLog/{method}", identity, identity)
            before = process.memory_kb("VmRSS")
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(bytes(megabytes * 1024 * 1024))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert process.memory_kb("VmHWM") - before < 64 * 1024
        status: Any = channel.unary_unary("/tocsin.v1.EventLog/GetLogStatus", identity, identity)
        assert await status(b"")


async def test_deadlines_are_kept_and_the_server_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XC16: a deadline that passes while the store is busy, none, and one of ten days."""
    is_busy, go = threading.Event(), threading.Event()

    def moment(name: str) -> None:
        if name == "transaction begun" and is_busy.is_set():
            go.wait(10)

    async with serving(tmp_path, replace(system_runtime(), moment=moment)) as api:
        is_busy.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.events.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="a")), timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        go.set()
        assert (await api.append("b")).position == 2  # what had begun was stored, though its caller had gone
        monkeypatch.setattr(api_server, "UNARY_MAX_S", 0.0)
        refusal = await refused(api.events.GetLogStatus(pb.GetLogStatusRequest(), timeout=10 * 86_400))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_stream_moves_on_when_its_connection_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XC16: the connection is ended at its age, and the stream can be resumed without a gap."""
    options = dict(api_server.OPTIONS)
    options |= {"grpc.max_connection_age_ms": 500, "grpc.max_connection_age_grace_ms": 200}
    monkeypatch.setattr(api_server, "OPTIONS", tuple(options.items()))
    positions: list[int] = []
    async with serving(tmp_path) as api:
        await api.append("t")
        while len(positions) < 4:
            after = pb.SubscribeRequest.After(position=positions[-1] if positions else 0)
            try:
                async for message in api.events.Subscribe(pb.SubscribeRequest(after=after), wait_for_ready=True):
                    positions += [event.position for event in message.batch.events]
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                await api.append("t")
    assert positions == [1, 2, 3, 4]


async def test_what_is_no_grpc_is_closed_without_a_word(process: ServerProcess) -> None:
    """XC17: another protocol, noise, a method that is not there; the log stays quiet and the server serves."""
    host, port = process.address.split(":")
    for said in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(4096),
        b"\x00" * 1000,
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        async with asyncio.timeout(20):
            try:
                while await reader.read(4096):
                    pass
            except ConnectionError:
                pass
        writer.close()
    async with grpc.aio.insecure_channel(process.address) as channel:
        missing: Any = channel.unary_unary("/tocsin.v1.EventLog/Forget", lambda b: b, lambda b: b)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await missing(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        info: Any = channel.unary_unary("/tocsin.v1.System/GetInfo", lambda b: b, lambda b: b)
        assert await info(b"")
    assert await process.stop() == (0, "")
