"""What is printed where: results on standard output, everything about them on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from tocsin.cli.escaping import escaped

if TYPE_CHECKING:  # rich is loaded by the first that shows something
    from rich.console import Console
    from rich.text import Text


class Screen:
    """Standard output and standard error. Colours and spinners only where a terminal shows them."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        self.quiet = False

    @cached_property
    def out(self) -> Console:
        """Standard output."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """Standard error."""
        return _console(stderr=True)

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where the output goes elsewhere and may be as wide as it is."""
        return self.out.width if self.out.is_terminal else None

    @property
    def draws(self) -> bool:
        """Whether the output can carry lines and ticks."""
        return (self.out.encoding or "").lower().startswith("utf")

    def line(self, text: str, *spans: tuple[int, int, str]) -> None:
        """Print a line of a result that is safe already; `spans` are coloured: begin, end, style."""
        if not spans or not self.out.is_terminal:
            sys.stdout.write(f"{text}\n")
            return
        shown = _text(text)
        for begin, end, style in spans:
            shown.stylize(style, begin, end)
        self.out.print(shown, soft_wrap=True)

    def flush(self) -> None:
        """Hand out what was printed: who follows does not wait for a full buffer."""
        sys.stdout.flush()

    def note(self, text: str, style: str = "") -> None:
        """Say something about the result."""
        if not self.quiet:
            self.err.print(_text(escaped(text), style), soft_wrap=True)

    def tell(self, text: str) -> None:
        """Say what must not be missed, also to who wants no status lines."""
        self.err.print(_text(escaped(text)), soft_wrap=True)

    def complain(self, text: str) -> None:
        """Say what went wrong, also to who wants no status lines."""
        self.err.print(_text(f"tocsin: {escaped(text)}"), soft_wrap=True)

    def done(self, text: str) -> None:
        """Say that a step has succeeded."""
        self._tick("✔", "+", text, "green")

    def failed(self, text: str) -> None:
        """Say that a step has failed."""
        self._tick("✘", "x", text, "red")

    def _tick(self, sign: str, plain: str, text: str, style: str) -> None:
        if not self.quiet:
            drawn = sign if (self.err.encoding or "").lower().startswith("utf") else plain
            self.err.print(_text("").append(drawn, style).append(f" {escaped(text)}"), soft_wrap=True)

    @property
    def asks(self) -> bool:
        """Whether somebody is there to answer a question."""
        return sys.stdin.isatty()

    def confirmed(self, question: str) -> bool:
        """Ask a question; anything but yes is no."""
        self.err.print(f"{question} (y/N) ", end="", soft_wrap=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @contextmanager
    def step(self, doing: str, done: str) -> Iterator[None]:
        """Show that something goes on (a spinner, on a terminal only), and then how it ended."""
        try:
            if self.err.is_terminal and not self.quiet:
                with self.err.status(doing):
                    yield
            else:
                yield
        except BaseException:
            self.failed(doing)
            raise
        self.done(done)

    @contextmanager
    def progress(self, doing: str, done: str, *, prints: bool) -> Iterator[Callable[[int, int], None]]:
        """Show how far something is (a bar, on a terminal only): yields what takes so many of so many.

        What prints meanwhile to the same terminal goes without the bar.
        """
        from rich.progress import (  # noqa: PLC0415 - few commands have a bar
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        shown = self.err.is_terminal and not self.quiet and not (prints and self.out.is_terminal)
        text, drawn = TextColumn("{task.description}"), BarColumn(bar_width=20)
        bar = Progress(
            text,
            drawn,
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.err,
            transient=True,
            disable=not shown,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        task = bar.add_task(doing, total=None)
        try:
            with bar:
                yield lambda count, total: bar.update(task, completed=count, total=total)
        except BaseException:
            self.failed(doing)
            raise
        self.done(done)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console  # noqa: PLC0415 - see above

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text  # noqa: PLC0415 - see above

    return Text(text, style=style)


def silence() -> None:
    """Whoever read our output has seen enough: the rest of it goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
