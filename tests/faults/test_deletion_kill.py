"""Kill -9 inside a deletion: what is gone is a prefix, what was told gone stays gone, and a re-run finishes."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin_server.store.checking import check

from tests.faults.test_crash_points import GONE, Lives
from tests.support.crashing import DELETION_MOMENTS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
ROUNDS = 2  # of all moments
EVERYTHING = 10**6  # retention takes nothing
SCRATCH = 1500  # of each round, between as many that stay: three steps of a deletion


async def fill(address: str, name: str) -> list[str]:
    """Append what stays and what is to be deleted, turn by turn; give the ids of the latter."""
    events = [
        pb.Event(id=f"{name}-{number}", type="user.scratch" if number % 2 else "user.kept")
        for number in range(2 * SCRATCH)
    ]
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = EventLogStub(channel)
        for first in range(0, len(events), 1000):
            await stub.AppendEvents(pb.AppendEventsRequest(events=events[first : first + 1000]))
    return [event.id for event in events if event.type == "user.scratch"]


async def delete(address: str) -> tuple[list[str], bool]:
    """Delete what is scratch; give the ids that were told, and whether the server lived to the end."""
    told: list[str] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = EventLogStub(channel)
        request = pb.DeleteEventsRequest(filter=pb.EventFilter(types=["user.scratch"]))
        try:
            async for step in stub.DeleteEvents(request):
                told += step.progress.ids
        except grpc.aio.AioRpcError as error:
            assert error.code() in GONE, error
            return told, False
    return told, True


async def standing(address: str, kind: str) -> list[str]:
    """Give the ids of a type that stand, in the order of positions."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = EventLogStub(channel)
        request = pb.SubscribeRequest(filter=pb.EventFilter(types=[kind]), stop_when_caught_up=True)
        request.beginning.SetInParent()
        return [event.id async for message in stub.Subscribe(request) for event in message.batch.events]


async def test_a_crash_leaves_a_prefix_deleted_and_a_repeat_finishes(tmp_path: Path) -> None:
    """XA22: at every moment of a step, in the first, the second or the third step."""
    chance = random.Random(5)
    kept = 0
    async with Lives(tmp_path / "data") as lives:
        for number, moment in enumerate(DELETION_MOMENTS * ROUNDS):
            address = await lives.begin(keep=EVERYTHING)
            scratch = await fill(address, f"r{number}")
            kept += SCRATCH
            assert await lives.stop() == 0
            address = await lives.begin(moment, chance.randint(1, 3), EVERYTHING)
            told, lived = await delete(address) if address else ([], False)
            assert not lived
            assert await lives.ended() == -signal.SIGKILL
            address = await lives.begin(keep=EVERYTHING)
            left = await standing(address, "user.scratch")
            assert left == scratch[len(scratch) - len(left) :], "what is gone is no prefix"
            assert told == scratch[: len(told)]
            assert not set(told) & set(left), "what was told gone is back"
            again, lived = await delete(address)
            assert lived
            assert again == left
            assert await standing(address, "user.scratch") == []
            assert len(await standing(address, "user.kept")) == kept
            assert await lives.stop() == 0
    found = check(tmp_path / "data" / "tocsin.db", lambda *_: None)
    assert [damage for result in found for damage in result.damages] == []
