"""More than the server can take: it refuses and goes on, and does not grow."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub

if TYPE_CHECKING:
    from tocsin.v1.event_log_pb2_grpc import EventLogAsyncStub

from tests.support.processes import ServerProcess
from tests.support.servers import Refusal

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
