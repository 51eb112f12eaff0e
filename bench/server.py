"""A server process to measure: its CPU time, its memory, its start."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

CPU_CLOCK = 2  # the kind of clock, in Linux's numbers for the clocks of processes


class ServerProcess:
    """The real server on a free port, for as long as the block runs. `module` starts a changed one."""

    def __init__(self, data: Path, module: str = "tocsin_server") -> None:
        command = [sys.executable, "-m", module, "serve", "--dev", "--port", "0", "--data", str(data)]
        self._process = subprocess.Popen(
            [*command, "--log-level", "error"],
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # An installed server has its bytecode: one that had to compile itself would start later.
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        )
        assert self._process.stdout is not None
        found = re.search(r"listens on (\S+)", self._process.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not start")
        self.address = found.group(1)

    def cpu_s(self) -> float:
        """Give the CPU time that the server has used, user and system, to the nanosecond where Linux counts it."""
        return time.clock_gettime(~self._process.pid << 3 | CPU_CLOCK)

    def private_bytes(self) -> int:
        """Give the memory that the server shares with nobody."""
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(encoding="ascii")
        return sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE)) * 1024

    def kill(self) -> None:
        """End the server as a crash would."""
        self._process.kill()
        self._ended()

    def stop(self) -> None:
        """End the server as an operator would."""
        self._process.send_signal(signal.SIGTERM)
        self._ended()

    def _ended(self) -> None:
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.stop()
