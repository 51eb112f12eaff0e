"""A pseudo-terminal: the command as somebody sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

TIMEOUT_S = 30.0
CONTROL = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """Runs a command in a terminal of so many columns; its input may come from elsewhere."""

    def __init__(self, environment: dict[str, str], *words: str, columns: int = 80, stdin: int | None = None) -> None:
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-m", "tocsin.cli", *words]
        environment = {**environment, "TERM": "xterm-256color", "PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=theirs if stdin is None else stdin,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._mine], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"nothing more was shown after: {self.shown!r}"
        try:
            data = os.read(self._mine, 65536)
        except OSError:
            return False  # the other side is closed
        self.shown += data.decode(errors="replace")
        return bool(data)

    def until(self, text: str) -> None:
        """Wait until a text is shown."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.shown:
            assert self._read(deadline), f"it ended after: {self.shown!r}"

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._mine, text.encode())

    def end(self) -> int:
        """Wait for the end; answers the exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read(deadline):
            pass
        os.close(self._mine)
        return self.process.wait(TIMEOUT_S)


def shown(cli: Cli, columns: int, *words: str) -> list[str]:
    """Answer the lines that a terminal of so many columns shows of a result."""
    terminal = Terminal(cli.environment, "-q", *words, columns=columns)
    assert terminal.end() == 0
    lines = CONTROL.sub("", terminal.shown).splitlines()
    assert max(map(cell_len, lines)) <= columns
    return lines
