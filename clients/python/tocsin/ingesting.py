"""Where an ingestion stands: pure, shared by the blocking and the asyncio one.

    fed ──batch──> unacknowledged ──told──> outcome, in the order of the events
                      │      │
     broken: sent again      refused: the events that are at fault are told so, the others of the
     under its request id    batch are sent again without them

Nothing is stored twice: a batch that is sent again has the same bytes, with a request id or with the ids
of its events. Nothing is lost: an event is told as stored or refused, or the ingestion raises.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tocsin
from tocsin.events import Appended, appended_result, fresh_request_id
from tocsin.following import may_pass
from tocsin.retries import Backoff
from tocsin.v1.annotations_pb2 import ErrorReason
from tocsin.v1.event_log_pb2 import Event, IngestRequest, IngestResponse
from tocsin.violation import Violation

if TYPE_CHECKING:  # gRPC is loaded by who calls
    from tocsin.errors import TocsinError

BATCH_SIZE = 500
BATCH_SIZE_MAX = 1000
WINDOW = 16
WINDOW_MAX = 256
"""The server reads no more of a stream while so many batches are unacknowledged."""

EVENT_BYTES_MAX = 256 * 1024
"""Encoded size of the largest event that is stored."""

# A batch has at most 3 MiB. An event that is larger than its bound but fits is refused by the server.
_BATCH_BYTES = 2 * 1024 * 1024
_INDEXED = re.compile(r"events\[([0-9]+)\]\.?(.*)")


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an event was not stored: a reason of `tocsin.v1.ErrorReason` without its prefix, and its fields.

    `violations` name fields of the event, such as "type". They are empty where the reason does not lie in
    the event.
    """

    reason: str
    message: str
    violations: tuple[Violation, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event: where it is stored, or why not. `index` counts the events from 0."""

    index: int
    event: Event
    stored: Appended | None = None
    refused: Refused | None = None


@dataclass(slots=True)
class _Slot:
    index: int
    event: Event
    outcome: Outcome | None = None

    def settle(self, stored: Appended | None = None, refused: Refused | None = None) -> None:
        self.outcome = Outcome(self.index, self.event, stored, refused)


@dataclass(slots=True)
class _Batch:
    slots: list[_Slot]
    request: IngestRequest


@dataclass(slots=True)
class Flow:
    """One ingestion over all its connections. Batches have up to `batch_size` events, `window` are open at once."""

    batch_size: int
    window: int
    backoff: Backoff
    connections: int = 0
    failures: int = 0
    ended: bool = False
    _fed: int = 0
    _waiting: deque[_Slot] = field(default_factory=deque)
    _order: deque[_Slot] = field(default_factory=deque)
    _unsent: deque[_Batch] = field(default_factory=deque)
    _sent: deque[_Batch] = field(default_factory=deque)
    _told: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= BATCH_SIZE_MAX:
            raise ValueError(f"batch_size is 1 to {BATCH_SIZE_MAX}, not {self.batch_size}")
        if not 1 <= self.window <= WINDOW_MAX:
            raise ValueError(f"window is 1 to {WINDOW_MAX}, not {self.window}")

    @property
    def hungry(self) -> bool:
        """Whether there is room for another event; who feeds without room holds more than is bounded."""
        return len(self._waiting) < self.batch_size

    @property
    def done(self) -> bool:
        """Whether nothing is fed any more and everything that was fed is told."""
        return self.ended and not self._order

    def feed(self, event: Event) -> None:
        """Take in an event. Raises ValueError for one that is too large to travel."""
        if event.ByteSize() > _BATCH_BYTES:
            raise ValueError(f"event {self._fed} has {event.ByteSize()} bytes: at most {EVENT_BYTES_MAX} are allowed")
        slot = _Slot(self._fed, event)
        self._fed += 1
        self._order.append(slot)
        self._waiting.append(slot)

    def request(self) -> IngestRequest | None:
        """Answer the next batch to send; None while there is none or the window is full."""
        if len(self._sent) >= self.window:
            return None
        if not self._unsent and self._waiting:
            self._unsent.append(_batch(self._next_slots()))
        if not self._unsent:
            return None
        batch = self._unsent.popleft()
        self._sent.append(batch)
        return batch.request

    def _next_slots(self) -> list[_Slot]:
        slots: list[_Slot] = []
        room = _BATCH_BYTES
        while self._waiting and len(slots) < self.batch_size:
            room -= self._waiting[0].event.ByteSize()
            if slots and room < 0:
                break
            slots.append(self._waiting.popleft())
        return slots

    @property
    def complete(self) -> bool:
        """Whether this side of the stream can end: nothing is left to send, nor can come back to be sent again."""
        return self.ended and not (self._waiting or self._unsent or self._sent)

    def take(self, response: IngestResponse) -> None:
        """Take in what the server says of batches."""
        for told in response.batches:
            self._told += 1
            if told.sequence != self._told or not self._sent:
                raise tocsin.TocsinError(f"the server told of batch {told.sequence}, {self._told} is next")
            batch = self._sent[0]
            if not told.HasField("refusal") and len(told.results) != len(batch.slots):
                raise tocsin.TocsinError(f"the server told of {len(told.results)} events of {len(batch.slots)}")
            self._sent.popleft()
            if told.HasField("refusal"):
                self._refuse(batch, told.refusal)
                continue
            for slot, result in zip(batch.slots, told.results, strict=True):
                slot.settle(stored=appended_result(result, response.log_id))
        self.failures = 0

    def _refuse(self, batch: _Batch, refusal: IngestResponse.Refusal) -> None:
        """Tell the events at fault, and send the others again; all are at fault where none is named."""
        reason = ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_")
        at_fault: dict[int, list[Violation]] = {}
        for violation in refusal.violations:
            if found := _INDEXED.fullmatch(violation.field):
                at_fault.setdefault(int(found[1]), []).append(Violation(found[2], violation.description))
        metadata = dict(refusal.metadata)
        others = []
        for index, slot in enumerate(batch.slots):
            if not at_fault or index in at_fault:
                violations = tuple(at_fault.get(index, ()))
                text = "; ".join(f"{v.field}: {v.description}" for v in violations) or refusal.message
                slot.settle(refused=Refused(reason, text, violations, metadata))
            else:
                others.append(slot)
        if others:
            self._unsent.append(_batch(others))

    def next(self) -> Outcome | None:
        """Hand out what is known of the oldest event; None while that is nothing."""
        if self._order and (outcome := self._order[0].outcome) is not None:
            self._order.popleft()
            return outcome
        return None

    def connected(self) -> None:
        """A new stream begins: what was not acknowledged is sent again, in its order, before the rest."""
        self.connections += 1
        self._told = 0
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()

    def broken(self, error: TocsinError | None, chance: float) -> float:
        """Answer how long to wait before connecting again; raises `error` when that cannot help.

        A stream that was ended because nothing was sent for long is as good as one that the server ended.
        """
        self.failures += 1
        if error is not None and not isinstance(error, tocsin.DeadlineExceeded) and not may_pass(error, self.failures):
            raise error
        asked_s = error.retry_after_s if error is not None else None
        return max(self.backoff.wait_s(self.failures, chance), asked_s or 0.0)


def _batch(slots: list[_Slot]) -> _Batch:
    events = [slot.event for slot in slots]
    request_id = "" if all(event.id for event in events) else fresh_request_id()
    return _Batch(slots, IngestRequest(events=events, request_id=request_id))
