"""Running the server: what its log shows, when files run out, and signals."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin_server.logs import configure_logs

from tests.support.processes import ServerProcess
from tests.support.servers import refused

NASTY = 'first\nsecond\r\x1b[31mred\x1b[0m\u202egnp "quoted" \x00'
FILES = 96


@pytest.fixture
def _logs_as_before() -> Iterator[None]:
    yield
    configure_logs("error", "json")


@pytest.mark.usefixtures("_logs_as_before")
@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_logged_stays_one_line_and_steers_no_terminal(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """XF15: line breaks, escape sequences and marks in what others sent."""
    configure_logs("info", form)
    structlog.get_logger("test").info("delivery", error=NASTY)
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    for dangerous in ("\r", "\x00", "\u202e", "\x1b[31mred"):
        assert dangerous not in written or (form == "json" and dangerous == "\u202e")
    if form == "json":
        assert json.loads(written)["error"] == NASTY


async def test_a_server_without_free_files_serves_those_who_are_there(tmp_path: Path) -> None:
    """XF16: more connections than files; nothing that is acknowledged is lost, and it recovers by itself."""
    server = ServerProcess(tmp_path)
    server.interpreter = ("sh", "-c", f'ulimit -n {FILES}; exec "$0" "$@"', sys.executable)
    await server.start()
    try:
        await crowded(server)
    finally:
        await server.clear()


async def crowded(server: ServerProcess) -> None:
    host, port = server.address.split(":")
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = EventLogStub(channel)
        await stub.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="before")))
        held = [await asyncio.open_connection(host, int(port)) for _ in range(FILES + 50)]
        for _ in range(20):
            await stub.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="during")), timeout=20)
        for _, writer in held:
            writer.close()
    async with grpc.aio.insecure_channel(server.address) as again:
        status = await EventLogStub(again).GetLogStatus(pb.GetLogStatusRequest(), wait_for_ready=True, timeout=30)
    assert status.head == 21
    assert (await server.stop())[0] == 0


async def test_signals_end_it_once_or_not_at_all(process: ServerProcess) -> None:
    """XF17: SIGHUP and SIGPIPE end nothing, not even a stream; SIGTERM twice is one stop, with exit code 0.

    What SIGHUP reloads is in `test_configuration.py::test_a_signal_reloads_what_can_be`.
    """
    async with grpc.aio.insecure_channel(process.address) as channel:
        stub = EventLogStub(channel)
        stream: Any = stub.Subscribe(pb.SubscribeRequest())
        assert (await stream.read()).HasField("started")
        for position, number in enumerate((signal.SIGHUP, signal.SIGPIPE), start=1):
            process.signal(number)
            answer = await stub.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="t")))
            assert answer.event.position == position
            while (await stream.read()).batch.position < position:  # what was open before goes on
                pass
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGTERM)
    code, said = await process.end()
    assert (code, said) == (0, "")


async def test_a_folder_that_is_taken_away_ends_the_server(process: ServerProcess) -> None:
    """XF17: what would be on no disk is refused, never acknowledged; the server ends, and the next log is another."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        stub = EventLogStub(channel)
        first = await stub.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="t")))
        shutil.rmtree(process.data)
        refusal = await refused(stub.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="t"))))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_FAILED")
    code, said = await process.end()
    assert code == 1
    (line,) = [line for line in said.splitlines() if line.startswith("tocsin-server: ")]
    assert (
        line
        == f"tocsin-server: the store failed ({process.data / 'tocsin.db'} is gone: No such file or directory)"
        + (": start again")
    )
    await process.start()
    async with grpc.aio.insecure_channel(process.address) as channel:
        status = await EventLogStub(channel).GetLogStatus(pb.GetLogStatusRequest())
    assert (status.head, status.log_id != first.log_id) == (0, True)
    await process.stop()


async def test_no_folder_for_temporary_files_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XF17: no tmp."""
    for name in ("TMPDIR", "TEMP", "TMP", "SQLITE_TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    server = ServerProcess(tmp_path / "data")
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = EventLogStub(channel)
        events = [pb.Event(type="t", message="m" * 4000) for _ in range(500)]
        for _ in range(4):
            await stub.AppendEvents(pb.AppendEventsRequest(events=events))
        request = pb.SummarizeEventsRequest(group_by="type")
        assert (await stub.SummarizeEvents(request)).total_count == 2000
        assert len((await stub.ListEvents(pb.ListEventsRequest(page_size=500))).events) > 0
    assert await server.stop() == (0, "")


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs a folder that is no folder")
async def test_a_place_that_cannot_be_written_is_one_plain_line(tmp_path: Path) -> None:
    """XF17: a read-only or impossible data folder."""
    (tmp_path / "file").write_text("x")
    for data in (Path("/proc/self/tocsin"), tmp_path / "file" / "below"):
        command = [sys.executable, "-m", "tocsin_server", "serve", "--dev", "--port", "0", "--data", str(data)]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, said = await process.communicate()
        assert process.returncode == 1
        lines = [line for line in said.decode().splitlines() if line.startswith("tocsin-server: ")]
        assert len(lines) == 1
        assert "Traceback" not in said.decode()
