"""Run the demo: exit code 0 when every promise was kept, 1 when one was not, 130 when interrupted."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from rich.console import Console
from tocsin import TocsinError

from examples.demo.checks import check_all
from examples.demo.narrator import Narrator
from examples.demo.report import print_report
from examples.demo.server import ServerFailed
from examples.demo.story import Story

_PLAIN_WIDTH = 140  # of lines that go to a file or a pipe
_ROUTINE = '"level": "info"'  # lines of the server's log that explain no failure


def main() -> int:
    """Play the story in a temporary folder and judge it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="tocsin-demo-") as folder:
        story = Story(Path(folder), Narrator(console))
        try:
            facts = story.play()
        except KeyboardInterrupt:
            console.print("[bold]interrupted; everything is ended")
            return 130
        except (ServerFailed, TocsinError) as error:
            console.print(f"the demo failed: {error}", style="bold red", markup=False)
            _print_log(console, story)
            return 1
        checks = check_all(story.ledger, facts)
        print_report(console, story.ledger, facts, checks)
        broken = [check for check in checks if check.problem]
        if broken:
            _print_log(console, story)
            console.print(f"[bold red]{len(broken)} promise(s) broken")
            return 1
    console.print("[bold green]every promise was kept")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print_log(console: Console, story: Story) -> None:
    console.print("The end of the server's log, but for what is routine:")
    noteworthy = [line for line in story.server.log_lines() if _ROUTINE not in line]
    for line in noteworthy[-20:]:
        console.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
