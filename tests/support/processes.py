"""A server as a process of its own, that can be killed and started again on the same port and data."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path


class ServerProcess:
    """`tocsin-server serve --dev` with a data folder; `address` stays the same over restarts."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        self.address = "127.0.0.1:0"
        self.banner: list[str] = []
        self._flags = flags
        self._process: asyncio.subprocess.Process | None = None
        self.interpreter: tuple[str, ...] = (sys.executable,)

    async def start(self) -> None:
        """Start and wait until it has said where it listens."""
        host, port = self.address.split(":")
        self._process = await asyncio.create_subprocess_exec(
            *self.interpreter, "-m", "tocsin_server", "serve", "--dev", "--listen", host, "--port", port,
            "--data", str(self.data), "--log-level", "error", *self._flags,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.banner = []
        async with asyncio.timeout(30):
            while line := (await self._process.stdout.readline()).decode():
                self.banner.append(line)
                found = re.search(r"listens on (\S+)", line)
                if found is not None:
                    self.address = found.group(1)
                if "EventLog/Subscribe" in line:
                    return
        raise AssertionError(f"the server did not start: {await self.end()}")

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process is not None
        return self._process.pid

    async def end(self) -> tuple[int, str]:
        """Wait for its end; give the exit code and what it said on standard error."""
        assert self._process is not None
        _, stderr = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, stderr.decode()

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self.end()

    async def clear(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    def memory_kb(self, name: str) -> int:
        """Give a figure of its memory: `VmRSS` is what it has now, `VmHWM` the most that it has had."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> tuple[int, str]:
        """Ask it to stop, and wait."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await self.end()
