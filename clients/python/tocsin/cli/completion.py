"""`tocsin completion`: scripts that complete commands and flags."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]

VARIABLE = "_TOCSIN_COMPLETE"


def prepare() -> None:
    """Have the shells' questions answered; only where one asks, for it takes time."""
    if VARIABLE in os.environ:
        completion_init()


class Shell(StrEnum):
    """Shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="the shell")]) -> None:
    """Print the completion script of a shell.

    bash: eval "$(tocsin completion bash)" in ~/.bashrc; zsh: eval "$(tocsin completion zsh)" in ~/.zshrc after
    compinit; fish: tocsin completion fish > ~/.config/fish/completions/tocsin.fish
    """
    print(get_completion_script(prog_name="tocsin", complete_var=VARIABLE, shell=shell.value))
