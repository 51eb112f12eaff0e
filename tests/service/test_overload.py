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

from tocsin_server.store.writer import QUEUE_BYTES_MAX

from tests.support.processes import ServerProcess
from tests.support.servers import Refusal

CALLS = 60
BATCH = pb.AppendEventsRequest(events=[pb.Event(type="big", message="m" * 4000) for _ in range(700)])
MAY_WAIT = QUEUE_BYTES_MAX // BATCH.ByteSize() + 2  # in the queue, and in the writer's hands
SPIN = "import sys; print('on', flush=True)\nwhile True: pass"


async def flood(process: ServerProcess, events: EventLogAsyncStub) -> list[str]:
    """Append far more than may wait while the store is locked by somebody else; give what became of each call."""
    outcomes: list[str] = []
    blocker = sqlite3.connect(process.data / "tocsin.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    async def append() -> None:
        try:
            await events.AppendEvents(BATCH)
            outcomes.append("stored")
        except grpc.aio.AioRpcError as error:
            refusal = Refusal(error)
            assert refusal.retry_s
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            outcomes.append(refusal.reason)

    calls = [asyncio.create_task(append()) for _ in range(CALLS)]
    async with asyncio.timeout(30):
        while len(outcomes) < CALLS - MAY_WAIT:
            await asyncio.sleep(0.01)
    blocker.execute("ROLLBACK")
    blocker.close()
    await asyncio.gather(*calls)
    return outcomes


async def test_what_the_disk_cannot_take_is_refused(process: ServerProcess) -> None:
    """XF16: 160 MiB come while the store is locked: what may wait in memory is bounded, the rest is refused at once."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        events: EventLogAsyncStub = EventLogStub(channel)
        await events.AppendEvents(BATCH)
        outcomes = await flood(process, events)
        assert 0 < outcomes.count("stored") < CALLS
        assert outcomes.count("OVERLOADED") >= CALLS - MAY_WAIT
        # What was refused was not stored, what was stored is there, and the server goes on.
        stored = 1 + outcomes.count("stored")
        after = await events.AppendEvents(BATCH)
        assert after.results[-1].position == (stored + 1) * len(BATCH.events)


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
