"""Tells what happens as it happens, one line each with the seconds since the beginning."""

from __future__ import annotations

from time import monotonic

from rich.console import Console
from rich.text import Text

_STYLES = {
    "server": "bold magenta",
    "append": "red",
    "follow": "cyan",
    "webhook": "green",
    "mail": "blue",
    "alert": "bold yellow",
    "story": "bold",
}


class Narrator:
    """Prints lines. Threads share it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began_at = monotonic()

    def tell(self, who: str, what: str) -> None:
        """Print one line."""
        line = Text(f"{monotonic() - self._began_at:5.1f}s  ", style="dim")
        line.append(f"{who:<8}", style=_STYLES[who]).append(what, style="default")
        self.console.print(line, no_wrap=True, overflow="ellipsis")
