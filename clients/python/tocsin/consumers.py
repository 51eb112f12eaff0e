"""Requests about durable consumers, made from plain Python; and where a client of one stands.

    new ──started──> sharing ──batch, heartbeat──> sharing ──done──> ended
     │                  │
     └───── broken ─────┴──> waits, then joins again; or raises

Pure: shared by the blocking and the asyncio client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from tocsin import arguments
from tocsin.events import fresh_request_id
from tocsin.following import Start, may_pass, subscribe_request
from tocsin.retries import Backoff
from tocsin.v1.event_log_pb2 import (
    Consumer,
    ConsumeRequest,
    ConsumeResponse,
    CreateConsumerRequest,
    Event,
    EventFilter,
    NackAction,
    PurgeParkedRequest,
    ReplayParkedRequest,
    SeekConsumerRequest,
    UpdateConsumerRequest,
)

if TYPE_CHECKING:  # gRPC is loaded by who calls
    from tocsin.errors import TocsinError

LEASES_MAX = 1000
"""Most leases of one message."""

Say = Callable[[ConsumeRequest], None]


class Delivery:
    """An event that this client holds until it settles it, its lease runs out, or the stream ends.

    `attempt` is how many times the event was handed out, this time included. Settling it a second
    time, or after the stream has ended, does nothing: the event comes again.
    """

    def __init__(self, given: ConsumeResponse.Delivery, say: Say) -> None:
        self.event: Event = given.event
        self.attempt: int = given.attempt
        self.lease_id: int = given.lease_id
        self.settled = False
        self._say = say

    def ack(self) -> None:
        """The event is handled. Sent at once, stored by the server within 100 ms."""
        self._settle(ConsumeRequest(ack=ConsumeRequest.Ack(lease_ids=[self.lease_id])))

    def nack(self, action: str = "retry", reason: str = "") -> None:
        """The event is not handled: "retry" has it come again, "park" lays it aside, "skip" drops it.

        Raises ValueError for another action.
        """
        number = arguments.member("action", NackAction, action)
        self._settle(ConsumeRequest(nack=ConsumeRequest.Nack(lease_ids=[self.lease_id], action=number, reason=reason)))

    def _settle(self, request: ConsumeRequest) -> None:
        if not self.settled:
            self.settled = True
            self._say(request)

    def __repr__(self) -> str:
        return f"Delivery(position={self.event.position}, type={self.event.type!r}, attempt={self.attempt})"


@dataclass(slots=True)
class Sharing:
    """One client of a consumer over all its connections."""

    start: ConsumeRequest
    backoff: Backoff
    consumer: Consumer | None = None
    connections: int = 0
    failures: int = 0
    done: bool = False
    _waiting: deque[Delivery] = field(default_factory=deque)

    def take(self, response: ConsumeResponse, say: Say) -> None:
        """Take in a message. Kinds that are not known are passed over."""
        match response.WhichOneof("message"):
            case "started":
                self.connections += 1
                self.consumer = response.started.consumer
            case "batch":
                self._waiting.extend(Delivery(given, say) for given in response.batch.deliveries)
            case "done":
                self.done = True
            case "heartbeat":
                pass
            case _:
                return
        self.failures = 0

    def next(self) -> Delivery | None:
        """Hand out what is next; None when nothing is waiting."""
        return self._waiting.popleft() if self._waiting else None

    def broken(self, error: TocsinError | None, chance: float) -> float:
        """Answer how long to wait before joining again; raises `error` when that cannot help.

        What was not handed out yet is forgotten: the server gives it to somebody else.
        """
        self._waiting.clear()
        self.failures += 1
        if error is not None and not may_pass(error, self.failures):
            raise error
        asked_s = error.retry_after_s if error is not None else None
        return max(self.backoff.wait_s(self.failures, chance), asked_s or 0.0)


def merged(first: ConsumeRequest, following: deque[ConsumeRequest]) -> ConsumeRequest:
    """Join acknowledgements that wait behind each other into one message."""
    if first.WhichOneof("message") != "ack":
        return first
    while following and following[0].WhichOneof("message") == "ack" and len(first.ack.lease_ids) < LEASES_MAX:
        first.ack.lease_ids.extend(following.popleft().ack.lease_ids)
    return first


def start_request(name: str, max_in_flight: int, heartbeat_s: float | None) -> ConsumeRequest:
    """Join a consumer."""
    start = ConsumeRequest.Start(name=name, max_in_flight=max_in_flight)
    if heartbeat_s is not None:
        start.heartbeat_interval.CopyFrom(_duration(heartbeat_s))
    return ConsumeRequest(start=start)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration


def _consumer(
    name: str, lease_s: float | None, max_retries: int | None, max_in_flight: int | None, retry_delay_s: float | None
) -> Consumer:
    consumer = Consumer(name=name, max_retries=max_retries, max_in_flight=max_in_flight or 0)
    if lease_s is not None:
        consumer.lease.CopyFrom(_duration(lease_s))
    if retry_delay_s is not None:
        consumer.retry_delay.CopyFrom(_duration(retry_delay_s))
    return consumer


def create_request(
    name: str,
    wanted: EventFilter | None,
    start: Start,
    lease_s: float | None,
    max_retries: int | None,
    max_in_flight: int | None,
    retry_delay_s: float | None,
    request_id: str | None,
) -> CreateConsumerRequest:
    """Create a consumer, safe to repeat. Raises ValueError for no start."""
    consumer = _consumer(name, lease_s, max_retries, max_in_flight, retry_delay_s)
    if wanted is not None:
        consumer.filter.CopyFrom(wanted)
    request = CreateConsumerRequest(consumer=consumer, request_id=request_id or fresh_request_id())
    _place(request, start)
    return request


def update_request(
    name: str, lease_s: float | None, max_retries: int | None, max_in_flight: int | None, retry_delay_s: float | None
) -> UpdateConsumerRequest:
    """Change what is given. Raises TypeError when nothing is."""
    consumer = _consumer(name, lease_s, max_retries, max_in_flight, retry_delay_s)
    given = {
        "lease": lease_s,
        "max_retries": max_retries,
        "max_in_flight": max_in_flight,
        "retry_delay": retry_delay_s,
    }
    paths = [path for path, value in given.items() if value is not None]
    if not paths:
        raise TypeError("give lease_s, max_retries, max_in_flight or retry_delay_s")
    request = UpdateConsumerRequest(consumer=consumer)
    request.update_mask.paths.extend(paths)
    return request


def seek_request(name: str, start: Start) -> SeekConsumerRequest:
    """Move a consumer. Raises ValueError for no place; "new" is none."""
    request = SeekConsumerRequest(name=name)
    if start == "new":
        raise ValueError('seek to After(...), a datetime or "beginning"')
    _place(request, start)
    return request


def _place(request: CreateConsumerRequest | SeekConsumerRequest, start: Start) -> None:
    found = subscribe_request(None, start, 0, None, False)
    kind = found.WhichOneof("start")
    if kind == "beginning":
        request.beginning.SetInParent()
    elif kind == "after":
        request.after.CopyFrom(found.after)
    elif kind == "start_time":
        request.start_time.CopyFrom(found.start_time)


def choice(
    kind: type[ReplayParkedRequest] | type[PurgeParkedRequest],
    name: str,
    positions: Iterable[int],
    event_ids: Iterable[str],
    all: bool,
) -> ReplayParkedRequest | PurgeParkedRequest:
    """Name parked events, or mean all. Raises TypeError unless it is one of both."""
    request = kind(name=name, positions=positions, event_ids=arguments.strings("event_ids", event_ids), all=all)
    if bool(request.positions or request.event_ids) is all:
        raise TypeError("name parked events by positions or event_ids, or give all=True")
    return request
