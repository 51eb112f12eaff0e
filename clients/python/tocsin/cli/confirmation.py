"""Asking before something is done that cannot be undone; the default is No."""

from __future__ import annotations

from typing import Any

import typer

from tocsin.cli.escaping import escaped
from tocsin.cli.flags import flag
from tocsin.cli.misuse import FAILED, Misuse
from tocsin.cli.screen import Screen


def yes_flag(variable: str) -> Any:
    """Describe the flag that answers the question before it is asked; each command has a variable of its own."""
    return flag("--yes", variable, "do it without asking", None, also=("-y",))


def confirm(screen: Screen, yes: bool, question: str, kept: str) -> None:
    """Ask, unless the answer is given. Leaves the command without a yes; `kept` says what was not done."""
    if yes:
        return
    if not screen.asks:
        raise Misuse("--yes", f"{kept}: give it to go on, for there is no terminal to confirm on")
    if not screen.confirmed(escaped(question)):
        screen.note(f"{kept[:1].upper()}{kept[1:]}.")
        raise typer.Exit(FAILED)
