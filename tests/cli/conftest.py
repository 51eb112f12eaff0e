"""The command line against a real server; each test has an account of its own."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import tocsin
from tocsin.cli.app import run

from examples.demo.server import Server


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Cli:
    """Runs `tocsin` for one account: in this process, which is quick, or as a command of its own."""

    def __init__(self, address: str, account: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.address = address
        self.account = account
        self.client = tocsin.connect(address, account=account)
        self._capsys = capsys

    def __call__(self, *words: str, stdin: str = "") -> Result:
        self._capsys.readouterr()
        before, sys.stdin = sys.stdin, io.StringIO(stdin)
        try:
            code = run(["--address", self.address, "--account", self.account, *words])
        finally:
            sys.stdin = before
        return Result(code, *self._capsys.readouterr())

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TOCSIN_ADDRESS": self.address, "TOCSIN_ACCOUNT": self.account}

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start the command as a process."""
        pipes: dict[str, Any] = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        command = [sys.executable, "-m", "tocsin.cli", *words]
        return subprocess.Popen(command, text=True, env=self.environment, **{**pipes, **options})

    def command(self, *words: str, stdin: str = "") -> Result:
        """Run the command as a process."""
        process = self.start(*words)
        out, err = process.communicate(stdin, timeout=30)
        return Result(process.returncode, out, err)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Answer a real server for the tests that leave it alone."""
    running = Server(tmp_path_factory.mktemp("cli"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TOCSIN_") or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name)


@pytest.fixture
def cli(server: Server, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    found = Cli(server.address, f"account-{uuid4().hex}", capsys)
    yield found
    found.client.close()


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[Server, Cli]]:
    """Answer a server of the test's own, to be killed, and the command line for it."""
    server = Server(tmp_path)
    server.start()
    found = Cli(server.address, "admin", capsys)
    yield server, found
    found.client.close()
    server.stop()


@pytest.fixture
def deaf() -> Iterator[str]:
    """Answer a URL at which nobody listens."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # without listen() it refuses, and nobody else can take it
        yield f"http://127.0.0.1:{unheard.getsockname()[1]}/"
