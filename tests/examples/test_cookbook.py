"""docs/grpcurl.md, run as it stands: every RPC of the product at least once.

By grpcurl where it is (`make tools` installs it where Go is), else by `buf curl` behind a command of the same name.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.examples.test_readme import ADDRESS, BUF, GRPCURL, ROOT, TOOLS, server
from tests.support.bounds import methods
from tests.support.processes import ServerProcess

__all__ = ["server"]
COOKBOOK = (ROOT / "docs" / "grpcurl.md").read_text(encoding="utf-8")
# What a placeholder stands for: the RPC whose answer has it, and the field.
PLACEHOLDERS = {
    "CONFIGURATION_ID": ("CreateEndpointConfiguration", "configuration"),
    "DELIVERY_ID": ("ListDeliveries", "deliveries"),
    "ALERT_ID": ("CreateAlert", "alert"),
    "SILENCE_ID": ("CreateSilence", "silence"),
}
BY_BUF = """#!{python}
import os, sys
words, data, headers = sys.argv[1:], [], []
while words and words[0].startswith("-"):
    flag = words.pop(0)
    if flag == "-d":
        data = ["-d", words.pop(0).replace("@", "@-", 1) if words[0] == "@" else words.pop(0)]
    elif flag == "-H":
        headers += ["-H", words.pop(0)]
address, what = words[0], words[1]
base = ["{buf}", "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
if what in ("list", "describe"):
    os.execv(base[0], [*base, "--list-methods", f"http://{{address}}"])
os.execv(base[0], [*base, *headers, *data, f"http://{{address}}/{{what}}"])
"""


@dataclass(frozen=True)
class Line:
    """One command, and how it has to fail; empty when it has to succeed."""

    command: str
    fails: str

    @property
    def method(self) -> str:
        return self.command.rpartition("/")[2].partition(" ")[0] if "/" in self.command else ""


def lines() -> Iterator[Line]:
    """Give every command of the cookbook."""
    for block in re.findall(r"```sh\n(.*?)```", COOKBOOK, re.S):
        held, fails = "", ""
        for line in block.splitlines():
            if not held and line.startswith("# fails: "):
                fails = line.removeprefix("# fails: ")
            elif not held and (not line or line.startswith("#")):
                continue
            else:
                held = f"{held}\n{line}" if held else line
                if not line.endswith("\\") and held.count("'") % 2 == 0:
                    yield Line(held.replace("\\\n", " "), fails)
                    held, fails = "", ""


def tool_folder(tool: str, folder: Path) -> str:
    """Give a folder that has the command `grpcurl`."""
    if tool == "grpcurl":
        assert GRPCURL is not None
        return str(Path(GRPCURL).parent)
    script = folder / "grpcurl"
    script.write_text(BY_BUF.format(python=sys.executable, buf=BUF), encoding="utf-8")
    script.chmod(0o755)
    return str(folder)


async def run(line: Line, address: str, folder: str, known: dict[str, str]) -> str:
    """Run a command in a shell; give what it prints."""
    text = line.command.replace(ADDRESS, address)
    for name, value in known.items():
        text = text.replace(name, value)
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", text, env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        stdout, stderr = await process.communicate()
    said = stdout.decode() + stderr.decode()
    # buf curl shows the details of an error as they are encoded.
    encoded = re.findall(r'"type": "google.rpc[^"]+",\s*"value": "([^"]+)"', said)
    said += "".join(b64decode(f"{value}==").decode("utf-8", "replace") for value in encoded)
    assert (process.returncode != 0) is bool(line.fails), f"{text}\n{said}"
    return said


@pytest.mark.parametrize("tool", TOOLS)
async def test_every_line_does_what_it_says(server: ServerProcess, tool: str, tmp_path: Path) -> None:
    folder = tool_folder(tool, tmp_path)
    known: dict[str, str] = {}
    for line in lines():
        said = await run(line, server.address, folder, known)
        for part in line.fails.split():
            assert part in said, f"{line.command}\n{said}"
        for name, (method, field) in PLACEHOLDERS.items():
            if line.method == method and not line.fails:
                found = re.search(rf'"{field}": [\[{{\s]*"id": "([^"]+)"', said)
                assert found is not None, said
                known[name] = found.group(1)
        if line.method == "AppendEvent" and not line.fails:
            assert "hunter2" not in said
            assert "details.password" in said
    assert set(known) == set(PLACEHOLDERS)


def test_every_rpc_is_in_it() -> None:
    assert {method.name for method in methods()} <= {line.method for line in lines()}
