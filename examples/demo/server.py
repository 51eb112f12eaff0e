"""The real server as a process of its own: started, killed without warning, started again, ended."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


class ServerFailed(RuntimeError):
    """The server did not start; the message has the end of what it printed."""


class Server:
    """`tocsin-server serve --dev` on a free port of 127.0.0.1, its data in `folder`.

    A restart keeps folder and port. `address` is where clients find it, once it was started.
    """

    def __init__(self, folder: Path) -> None:
        self.address = ""
        self._folder = folder
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and return when it takes calls. Raises ServerFailed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tocsin_server", "serve", "--dev"]
        command += ["--port", str(self._port), "--data", str(self._folder / "data")]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        # A server that hangs before its first line ends by this, and so does the wait for that line.
        overdue = threading.Timer(START_TIMEOUT_S, self._process.kill)
        overdue.start()
        try:
            self.address = self._greeting(self._process.stdout)
        finally:
            overdue.cancel()
        self._port = int(self.address.rpartition(":")[2])

    def _greeting(self, output: IO[str]) -> str:
        for line in output:
            if found := re.search(r"listens on (\S+:\d+)", line):
                return found[1]
        self.kill()
        raise ServerFailed("the server did not start:\n" + "\n".join(self.log_lines()[-20:]))

    def log_lines(self) -> list[str]:
        """Answer what it has logged so far, over all its starts."""
        return (self._folder / "server.log").read_text().splitlines()

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
        self._reap()

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and kill it when it does not. May be called again."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        if self._process is None:
            return
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
