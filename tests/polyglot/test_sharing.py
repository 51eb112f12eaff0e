"""One durable consumer, shared by clients in Python, Node and Go: each event handled once, all take part.

The clients are plain: Node loads the protos as they stand, Go has generated stubs. `make polyglot`
installs what they need where npm and Go are; a language that is not there is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tocsin.v1 import event_log_pb2 as pb

from tests.support.consumers import create, millis, until_status
from tests.support.servers import Api

HERE = Path(__file__).parent
GO_CLIENT = HERE.parents[1] / ".tools" / "polyglot"
EVENTS = 300
COMMANDS = {
    "python": [sys.executable, str(HERE / "python_client.py")],
    "node": ["node", str(HERE / "node" / "client.mjs")],
    "go": [str(GO_CLIENT)],
}
MISSING = {
    "node": "" if shutil.which("node") and (HERE / "node" / "node_modules").exists() else "Node or its packages",
    "go": "" if GO_CLIENT.exists() else "the client built by Go",
}


def needs(*languages: str) -> pytest.MarkDecorator:
    missing = [MISSING[language] for language in languages if MISSING.get(language)]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not there: `make polyglot` installs it")


class Program:
    """A client as a process of its own: what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = asyncio.Condition()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode().strip():
            async with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    @property
    def handled(self) -> list[int]:
        """The positions that it has handled."""
        return [int(line.split()[1]) for line in self.lines if line.startswith("handled ")]

    async def until(self, line: str) -> None:
        """Wait for a line."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: line in self.lines)

    async def leave(self) -> None:
        """End its input, and wait until it has left."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(20):
            await self.process.wait()
            await self.reading
        assert self.process.returncode == 0, self.lines
        assert self.lines[-1] == "done"


@asynccontextmanager
async def running(api: Api, *languages: str) -> AsyncIterator[dict[str, Program]]:
    """Start a client in each language."""
    programs: dict[str, Program] = {}
    try:
        for language in languages:
            process = await asyncio.create_subprocess_exec(
                *COMMANDS[language], f"127.0.0.1:{api.app.port}", "shared",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            programs[language] = Program(process)
        yield programs
    finally:
        for program in programs.values():
            if program.process.returncode is None:
                program.process.kill()
            await program.process.wait()


async def share(api: Api, *languages: str) -> None:
    await create(api, "shared", retry_delay=millis(0))
    async with running(api, *languages) as programs:
        for program in programs.values():
            await program.until("started")
        for _ in range(EVENTS // 50):
            batch = [pb.Event(type="a.b") for _ in range(50)]
            await api.events.AppendEvents(pb.AppendEventsRequest(events=batch))
        found = await until_status(api, lambda s: s.floor == EVENTS, "shared")
        assert (found.parked, found.streams) == (0, len(languages))
        for program in programs.values():
            await program.leave()
        handled = {language: program.handled for language, program in programs.items()}
    assert sorted(position for positions in handled.values() for position in positions) == list(range(1, EVENTS + 1))
    assert all(handled.values()), {language: len(positions) for language, positions in handled.items()}


@needs("node", "go")
async def test_python_node_and_go_share_one_consumer(api: Api) -> None:
    await share(api, "python", "node", "go")


@needs("node")
async def test_python_and_node_share_one_consumer(api: Api) -> None:
    await share(api, "python", "node")


@needs("go")
async def test_python_and_go_share_one_consumer(api: Api) -> None:
    await share(api, "python", "go")
