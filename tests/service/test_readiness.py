"""Readiness while the disk is full, and an event loop that is held up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.api import pulse, readiness
from tocsin_server.api.pulse import Pulse
from tocsin_server.logs import configure_logs
from tocsin_server.store.writer import Writer

from tests.support.servers import Api, refused, serving

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def _logs_as_before() -> Iterator[None]:
    yield
    configure_logs("error", "json")


async def limit(writer: Writer, pages: int) -> None:
    """Let the file have so many pages: SQLite keeps those that are there and refuses more, as a full disk does."""
    await writer.run(lambda tx: tx.connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())


async def fill(api: Api) -> None:
    """Append until there is no room."""
    big = pb.AppendEventRequest(event=pb.Event(type="t", message="m" * 4000))
    for _ in range(1000):
        try:
            await api.events.AppendEvent(big)
        except grpc.aio.AioRpcError:
            return
    raise AssertionError("the store was never full")


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    """Give the writers of the servers of this test."""
    made: list[Writer] = []

    class Known(Writer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr("tocsin_server.app.Writer", Known)
    return made


async def test_a_full_disk_is_not_ready_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: list[Writer]
) -> None:
    """XF18: what stores is NOT_SERVING while the disk is full, reads go on, and it is SERVING again by itself."""
    monkeypatch.setattr(readiness, "LOOK_AGAIN_S", 0.05)
    async with serving(tmp_path) as api:
        await api.append("t")
        health: Any = health_pb2_grpc.HealthStub(api.channel)
        watches = [
            health.Watch(health_pb2.HealthCheckRequest(service=f"tocsin.v1.{n}")) for n in ("EventLog", "Alerting")
        ]
        watches.append(health.Watch(health_pb2.HealthCheckRequest()))
        for watch in watches:
            assert (await watch.read()).status == SERVING
        await limit(writers[0], 1)
        await fill(api)
        for watch in watches:
            assert (await watch.read()).status == NOT_SERVING
        other = await health.Check(health_pb2.HealthCheckRequest(service="tocsin.v1.System"))
        assert other.status == SERVING
        refusal = await refused(
            api.events.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="t", message="m" * 4000)))
        )
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
        assert (await api.events.GetLogStatus(pb.GetLogStatusRequest())).head > 0
        await limit(writers[0], 10**6)
        for watch in watches:
            assert (await watch.read()).status == SERVING
        assert (await api.append("t")).position > 0


@pytest.mark.usefixtures("_logs_as_before")
async def test_a_loop_that_is_held_up_is_told_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """XF16: how often, how long, and whether our own code did it."""
    configure_logs("warning", "json")
    beating = Pulse(time.monotonic)
    for now, late_s, cpu_s in ((0.0, 0.09, 0.0), (1.0, 0.3, 0.29), (2.0, 0.5, 0.01), (3.0, 0.2, 0.2), (61.1, 0.0, 0.0)):
        beating.saw(now, late_s, cpu_s)
    first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first["times"], first["worst_ms"], first["cpu_ms"]) == (1, 300, 290)
    assert (second["times"], second["worst_ms"], second["cpu_ms"]) == (2, 500, 10)


@pytest.mark.usefixtures("_logs_as_before")
async def test_a_server_whose_loop_is_held_up_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """XF16: blocked for longer than 100 ms; it serves on."""
    async with serving(tmp_path) as api:
        await api.append("t")
        configure_logs("warning", "json")
        until = time.monotonic() + pulse.LATE_S + pulse.BEAT_S + 0.2
        while time.monotonic() < until:  # holds up the loop that the server shares with the test
            pass
        said = ""
        while "held up" not in said:
            await api.append("t")
            said += capsys.readouterr().err
        line = json.loads(next(line for line in said.splitlines() if "held up" in line))
        assert line["worst_ms"] >= 200
