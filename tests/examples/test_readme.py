"""The README's session with grpcurl and its Python, run as they stand there against a real server.

By grpcurl where it is (`make tools` installs it where Go is), else by `buf curl`, which speaks the same.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.processes import ServerProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:50051"


def find(name: str, *folders: Path) -> str | None:
    return shutil.which(name) or next((str(f / name) for f in folders if (f / name).exists()), None)


GRPCURL = find("grpcurl", ROOT / ".tools")
BUF = find("buf", Path(sys.executable).parent)
TOOLS = [
    pytest.param(
        "grpcurl", marks=pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not there: `make tools` needs Go")
    ),
    pytest.param("buf", marks=pytest.mark.skipif(BUF is None, reason="buf is not there")),
]


def commands() -> list[list[str]]:
    """Give every grpcurl command of the README, as words."""
    text = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    lines = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [command for command in split(lines) if command[0] == "grpcurl"]


def split(text: str) -> list[list[str]]:
    """Split a shell text into commands: a quoted text may go over lines."""
    found: list[list[str]] = []
    held = ""
    for line in text.splitlines():
        held = f"{held}\n{line}" if held else line
        try:
            words = shlex.split(held, comments=True)
        except ValueError:
            continue  # inside a quoted text
        held = ""
        if words:
            found.append(words)
    return found


def translated(command: list[str], address: str, tool: str) -> list[str]:
    """Give a grpcurl command for the server at `address`, as it stands or for buf curl."""
    words = [word.replace(ADDRESS, address) for word in command]
    if tool == "grpcurl":
        assert GRPCURL is not None
        return [GRPCURL, *words[1:]]
    assert BUF is not None
    base = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    if words[-1] == "list" or "describe" in words:
        return [*base, "--list-methods", f"http://{address}"]
    data = ["-d", words[words.index("-d") + 1]] if "-d" in words else []
    return [*base, *data, f"http://{address}/{words[-1]}"]


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    process = ServerProcess(tmp_path)
    await process.start()
    yield process
    await process.stop()


async def start(words: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)


async def output(words: list[str]) -> str:
    process = await start(words)
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stdout.decode()


@pytest.mark.parametrize("tool", TOOLS)
async def test_the_session_with_grpcurl_works_as_it_stands(server: ServerProcess, tool: str) -> None:
    answers: dict[str, Any] = {}
    follower: asyncio.subprocess.Process | None = None
    for command in commands():
        configuration = answers.get("CreateEndpointConfiguration", {}).get("configuration", {}).get("id", "")
        words = [word.replace("CONFIGURATION_ID", configuration) for word in translated(command, server.address, tool)]
        name = command[-1].rpartition("/")[2]
        if name == "Subscribe":
            follower = await start(words)
            continue
        text = await output(words)
        answers[name] = json.loads(text) if text.startswith("{") else text
    assert "tocsin.v1.EventLog" in answers["list"]
    assert "AppendEvent" in answers["tocsin.v1.EventLog"]
    event = answers["AppendEvent"]["event"]
    assert [e["id"] for e in answers["ListEvents"]["events"]] == [event["id"]]
    assert answers["CreateEndpointConfiguration"]["configuration"]["webhook"]["secret"] == "****LaSw"
    assert answers["CreateAlert"]["alert"]["enabled"] is True
    assert follower is not None
    await until_printed(follower, event["id"])


async def until_printed(process: asyncio.subprocess.Process, text: str) -> None:
    """Read what a command prints until a text comes, then end it."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while text not in (line := (await process.stdout.readline()).decode()):
            assert line, "it ended before"
    process.kill()
    await process.communicate()


async def test_the_python_of_the_readme_follows_what_it_appends(server: ServerProcess) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    process = await start([sys.executable, "-u", "-c", code.replace(ADDRESS, server.address)])
    await until_printed(process, "user.image.analysis_failed no space left")
