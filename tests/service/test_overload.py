"""More than the server can take: it refuses and goes on, and does not grow."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub

if TYPE_CHECKING:
    from grpc.aio import StreamStreamCall
    from tocsin.v1.event_log_pb2_grpc import EventLogAsyncStub

from tocsin_server.api import server as api_server

from tests.support.processes import ServerProcess
from tests.support.servers import Api, Refusal

CALLS = 120
BATCH = pb.AppendEventsRequest(events=[pb.Event(type="big", message="m" * 4000) for _ in range(700)])
SPIN = "import sys; print('on', flush=True)\nwhile True: pass"


async def append(events: EventLogAsyncStub) -> str:
    """Append a batch; give what became of it."""
    try:
        await events.AppendEvents(BATCH)
    except grpc.aio.AioRpcError as error:
        refusal = Refusal(error)
        assert refusal.retry_s
        return refusal.reason
    return "stored"


async def flood(process: ServerProcess, events: EventLogAsyncStub) -> list[str]:
    """Append far more than may wait while the store is locked by somebody else for a second."""
    blocker = sqlite3.connect(process.data / "tocsin.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    calls = [asyncio.create_task(append(events)) for _ in range(CALLS)]
    await asyncio.wait(calls, timeout=1.0)
    blocker.execute("ROLLBACK")
    blocker.close()
    return list(await asyncio.gather(*calls))


async def test_what_has_no_place_waits_with_its_client(process: ServerProcess) -> None:
    """XF16: 330 MiB come while the store is locked, twice: memory does not grow, and who waits too long is told."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        events: EventLogAsyncStub = EventLogStub(channel)
        await events.AppendEvents(BATCH)
        outcomes = await flood(process, events)
        once = process.memory_kb("VmHWM")
        outcomes += await flood(process, events)
        assert set(outcomes) <= {"stored", "OVERLOADED"}
        stored = outcomes.count("stored")
        assert stored > CALLS
        assert process.memory_kb("VmHWM") < 1.2 * once
        assert process.memory_kb("VmHWM") * 1024 < 2 * CALLS * BATCH.ByteSize()
        after = await events.AppendEvents(BATCH)
        assert after.results[-1].position == (stored + 2) * len(BATCH.events)


async def test_who_sends_nothing_holds_up_nobody_for_long(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """XF16: with an idle call in every place one of them is told, and a true call goes on."""
    monkeypatch.setattr(api_server, "BULK_READ_S", 0.2)
    idle = [await begun(api) for _ in range(api_server.BULK_MAX)]
    stored = await api.events.AppendEvents(BATCH)
    assert len(stored.results) == len(BATCH.events)
    codes = [call.code() for call in idle]
    done, _ = await asyncio.wait([asyncio.ensure_future(code) for code in codes], return_when=asyncio.FIRST_COMPLETED)
    assert {code.result() for code in done} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    for call in idle:
        call.cancel()


async def test_a_slow_sender_that_holds_up_nobody_is_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "BULK_READ_S", 0.001)
    call = await begun(api)
    for _ in range(20):
        await api.append("meanwhile")
    await call.write(BATCH.SerializeToString())
    await call.done_writing()
    raw = await call.read()
    assert isinstance(raw, bytes)
    answer = pb.AppendEventsResponse.FromString(raw)
    assert len(answer.results) == len(BATCH.events)


async def begun(api: Api) -> StreamStreamCall[bytes, bytes]:
    """Begin to append a batch, and send nothing yet."""
    call: StreamStreamCall[bytes, bytes] = api.channel.stream_stream("/tocsin.v1.EventLog/AppendEvents")()
    await api.events.GetLogStatus(pb.GetLogStatusRequest())  # its answer comes after the call before it has begun
    return call


async def test_a_server_without_a_processor_loses_nothing(process: ServerProcess) -> None:
    """XF16: it shares one processor with programs that never rest."""
    (first, *_) = sorted(os.sched_getaffinity(0))
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        os.sched_setaffinity(int(thread), {first})
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for one in spinning:
            os.sched_setaffinity(one.pid, {first})
            assert one.stdout is not None
            assert one.stdout.readline() == b"on\n"
        async with grpc.aio.insecure_channel(process.address) as channel:
            events: EventLogAsyncStub = EventLogStub(channel)
            calls = [events.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="t"))) for _ in range(100)]
            answers = await asyncio.gather(*calls)
            assert sorted(answer.event.position for answer in answers) == list(range(1, 101))
    finally:
        for one in spinning:
            one.kill()
            one.communicate()
