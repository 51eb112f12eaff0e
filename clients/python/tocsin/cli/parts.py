"""The commands at the root, each loaded when it is asked for: help and completion of the root need none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from tocsin.cli.misuse import EPILOG


@dataclass(frozen=True)
class Part:
    """A group or a command: what the root says of it, and the modules that it is made of, the first one first."""

    help: str
    modules: tuple[str, ...]
    epilog: str | None = EPILOG

    def load(self, name: str) -> Any:
        """Import the modules and make the command."""
        first, *_ = [import_module(f"tocsin.cli.{module}") for module in self.modules]
        command: Any
        if hasattr(first, "group"):
            command = typer.main.get_group(first.group)
        else:
            alone = typer.Typer(rich_markup_mode=None, add_completion=False)
            alone.command(name, epilog=self.epilog)(getattr(first, name))
            command = typer.main.get_command(alone)
        command.name = name
        return command


# `tests/cli/test_help.py` holds the texts to those of the commands.
PARTS = {
    "explain": Part(
        "Tell who is told about an event and why, or why not: a stored one by its ID, or one made up of flags or a"
        " file.",
        ("explaining",),
    ),
    "listen": Part(
        "Receive webhooks here: prints those whose signature is right, and says what cannot be trusted.", ("listening",)
    ),
    "trigger": Part(
        "Append sample events as the catalogue describes them: the usual level and resource, example details.",
        ("triggering",),
    ),
    "completion": Part("Print the completion script of a shell.", ("completion",), None),
    "event": Part("Event related operations", ("events", "appending", "summary", "tailing")),
    "consumer": Part("Durable consumers: named places in the log, shared by many clients", ("consumers",)),
    "endpoint": Part("Receivers of notifications: kinds, configurations, quick selections", ("endpoints",)),
    "delivery": Part("Deliveries: what became of each message to a receiver", ("deliveries", "delivery_watching")),
    "silence": Part("Silences: what matches is not told for a while; it is logged all the same", ("silences",)),
    "alert": Part(
        "Alerts: checks over the log on schedule, and who is told of what they find",
        ("alerts", "alert_running", "previewing"),
    ),
}


class Commands(Mapping[str, Any]):
    """The commands of the root by their names; looking one up loads it."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = PARTS[name].load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(PARTS)

    def __len__(self) -> int:
        return len(PARTS)

    def __contains__(self, name: object) -> bool:
        return name in PARTS


class Root(TyperGroup):
    """The group at the root. What is listed of its commands are their names and texts alone."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = Commands()  # type: ignore[assignment] # nothing is added to it
        self._listed = {name: TyperCommand(name, help=part.help) for name, part in PARTS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        """Answer the names."""
        return list(PARTS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Answer what stands for a command in lists."""
        return self._listed.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is meant, the command itself."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, self.commands[name] if name is not None and listed is not None else None, rest
