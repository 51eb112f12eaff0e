"""What `event tail` and `consumer consume` share: a line for each event, and word of a server that is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import Message

from tocsin.cli import rendering
from tocsin.cli.complaints import cause
from tocsin.cli.escaping import escaped
from tocsin.cli.screen import Screen
from tocsin.cli.tables import cut
from tocsin.v1.event_log_pb2 import Event

if TYPE_CHECKING:  # gRPC is loaded by the first call, not by --help
    from tocsin.errors import TocsinError


class Connectivity:
    """Says once that the server was lost and once that it is there again."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._lost = False
        self._connections = 1

    def lost(self, error: TocsinError | None, wait_s: float) -> None:
        """Be told of a break, as a subscription tells it."""
        if not self._lost:
            reason = cause(error.message) if error is not None else "it ended the stream"
            self._screen.failed(f"Lost the server ({reason}); trying again")
        self._lost = True

    def saw(self, connections: int) -> None:
        """Be told how many connections there were, with each message that comes."""
        if self._lost and connections > self._connections:
            self._screen.done("Found the server again, going on where it was")
            self._lost = False
        self._connections = max(connections, self._connections)


def event_line(event: Event) -> str:
    """Answer an event on one line: time, level, type, service, resource, message. Pure."""
    level = rendering.level_text(event).upper()
    parts = [rendering.time_text(event.timestamp), f"{level:<5}", event.type, event.source.service]
    parts += [event.resource.id, event.message]
    return "  ".join(escaped(part) for part in parts if part)


def show(screen: Screen, event: Event, format: str, response: Message) -> None:
    """Print an event and hand it out at once; `response` is the message that a raw format shows."""
    if format == "json":
        screen.line(rendering.json_text(rendering.resource(event), indent=None))
    elif format == "json-raw":
        screen.line(rendering.raw_text(response, indent=None))
    elif format == "id":
        screen.line(event.id)
    else:
        line = event_line(event)
        start = len(rendering.time_text(event.timestamp)) + 2
        spans = [(start, start + 5, "red")] if rendering.level_text(event) == "error" else []
        screen.line(line if screen.width is None else cut(line, screen.width), *spans)
    screen.flush()
