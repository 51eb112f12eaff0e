"""What everybody in the demo has seen, written down as it happens, to be compared in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from examples.receivers import Mail, Post

_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An event that the server has confirmed. Times are of `monotonic`, in seconds."""

    id: str
    position: int
    resource: str
    failed: bool
    began_at: float
    done_at: float


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event that the subscriber was given. `own`: written by tocsin itself."""

    id: str
    position: int
    type: str
    own: bool
    at: float


@dataclass(frozen=True, slots=True)
class Received:
    """A message that a receiver has taken."""

    message: Post | Mail
    at: float


@dataclass
class Ledger:
    """The book. Threads write by `note`, the story waits by `wait`."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    failures_posted: list[Received] = field(default_factory=list)
    alerts_posted: list[Received] = field(default_factory=list)
    mails: list[Received] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    producer_done: bool = False
    connections: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def note(self, page: list[_Entry], entry: _Entry) -> None:
        """Write an entry on one of the pages."""
        with self._changed:
            page.append(entry)
            self._changed.notify_all()

    def close_production(self) -> None:
        """Write that nothing more will be appended."""
        with self._changed:
            self.producer_done = True
            self._changed.notify_all()

    def wait(self, ready: Callable[[], bool], deadline: float) -> bool:
        """Wait until `ready`, asked at each entry; False when the deadline came first or a fault."""
        with self._changed:
            left_s = max(deadline - monotonic(), 0.0)
            self._changed.wait_for(lambda: bool(self.faults) or ready(), left_s)
            return ready()

    def own_types(self) -> set[str]:
        """Answer the types of the arrived events that tocsin itself wrote."""
        return {entry.type for entry in self.arrived if entry.own}

    def failures(self) -> set[str]:
        """Answer the ids of the acknowledged failures."""
        return {entry.id for entry in self.acknowledged if entry.failed}
