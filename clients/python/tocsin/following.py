"""Where a subscription stands and what it does next: pure, shared by the blocking and the asyncio one.

    new ──started──> following ──batch, checkpoint, caught_up──> following
     │                   │
     └────── broken ─────┴──> waits, then asks again after the last position; or raises

Nothing is lost, because the position moves only when something was handed out. Nothing comes twice,
because what is not after the position is dropped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from tocsin import arguments
from tocsin.retries import Backoff
from tocsin.v1.event_log_pb2 import Event, EventFilter, SubscribeRequest, SubscribeResponse

if TYPE_CHECKING:  # gRPC is loaded by who calls, not by who makes a request
    from tocsin.errors import TocsinError

# Without a reason these came from the way between us and the server; a proxy that restarts answers so.
_TRANSPORT = ("INTERNAL", "UNKNOWN", "CANCELLED")
# ... or from something that will always answer so: then it must not look like an outage for ever.
_TRANSPORT_FAILURES_MAX = 5


@dataclass(frozen=True, slots=True)
class After:
    """A place in a log: events with a higher position follow. `log_id` guards against another log."""

    position: int
    log_id: str = ""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All that stood is handed out; what follows is new."""

    position: int


@dataclass(frozen=True, slots=True)
class _Scanned:
    position: int


Start = After | datetime | str
"""Where to begin: `After`, a time of storing, "beginning", or "new" for what comes from now on."""

Item = Event | CaughtUp
"""What a subscription hands out."""


def subscribe_request(
    wanted: EventFilter | None, start: Start, batch_max: int, heartbeat_s: float | None, once: bool
) -> SubscribeRequest:
    """Ask to follow the log. `once` ends after the first catching up. Raises ValueError for no start."""
    request = SubscribeRequest(filter=wanted, batch_max=batch_max, stop_when_caught_up=once)
    if heartbeat_s is not None:
        request.heartbeat_interval.FromMicroseconds(round(heartbeat_s * 1_000_000))
    if isinstance(start, After):
        request.after.position, request.after.log_id = start.position, start.log_id
    elif isinstance(start, datetime):
        request.start_time.CopyFrom(arguments.moment("start", start))
    elif start == "beginning":
        request.beginning.SetInParent()
    elif start != "new":
        raise ValueError(f'start is After(...), a datetime, "beginning" or "new", not {start!r}')
    return request


@dataclass(slots=True)
class Progress:
    """One subscription over all its connections.

    `position` and `log_id` are what to keep to go on in another process; `position` is None until
    the server has named one.
    """

    asked: SubscribeRequest
    backoff: Backoff
    position: int | None = None
    log_id: str = ""
    head: int = 0
    connections: int = 0
    failures: int = 0
    done: bool = False
    _waiting: deque[Event | CaughtUp | _Scanned] = field(default_factory=deque)

    def __post_init__(self) -> None:
        if self.asked.HasField("after"):
            self.position, self.log_id = self.asked.after.position, self.asked.after.log_id

    def request(self) -> SubscribeRequest:
        """Answer what to ask on the next connection."""
        request = SubscribeRequest()
        request.CopyFrom(self.asked)
        if self.position is not None:
            request.after.position, request.after.log_id = self.position, self.log_id
        return request

    def take(self, response: SubscribeResponse) -> None:
        """Take in a message. Kinds that are not known are passed over."""
        match response.WhichOneof("message"):
            case "started":
                self._start(response.started)
            case "batch":
                self._waiting.extend(response.batch.events)
                self._waiting.append(_Scanned(response.batch.position))
            case "checkpoint":
                self._waiting.append(_Scanned(response.checkpoint.position))
            case "caught_up":
                self._waiting.append(CaughtUp(response.caught_up.position))
            case _:
                return
        self.failures = 0

    def _start(self, started: SubscribeResponse.Started) -> None:
        self.connections += 1
        self.log_id, self.head = started.log_id, started.head
        self._waiting.append(_Scanned(started.position))

    def next(self) -> Item | None:
        """Hand out what is next and move the position with it; None when nothing is waiting."""
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, Event):
                if self.position is not None and item.position <= self.position:
                    continue
                self.position = item.position
                return item
            self.position = max(item.position, self.position or 0)
            if isinstance(item, CaughtUp):
                self.done = self.asked.stop_when_caught_up
                return item
        return None

    def broken(self, error: TocsinError | None, chance: float) -> float:
        """Answer how long to wait before connecting again; raises `error` when that cannot help.

        None is a stream that the server ended without an error.
        """
        self.failures += 1
        if error is not None and not may_pass(error, self.failures):
            raise error
        asked_s = error.retry_after_s if error is not None else None
        return max(self.backoff.wait_s(self.failures, chance), asked_s or 0.0)


def may_pass(error: TocsinError, failures: int) -> bool:
    """Tell whether a new connection may mend what broke a stream, after so many failures in a row."""
    from tocsin.errors import SlowConsumer, TooManyStreams  # noqa: PLC0415 - there is an error: they are loaded

    if error.code.name == "UNAVAILABLE" or isinstance(error, SlowConsumer | TooManyStreams):
        return True
    return error.code.name in _TRANSPORT and not error.reason and failures <= _TRANSPORT_FAILURES_MAX
