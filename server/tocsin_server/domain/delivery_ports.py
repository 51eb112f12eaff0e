"""What routing and delivering need from the store, and what is asked about deliveries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tocsin_server.domain.deliveries import DeliveryPage, DeliveryQuery, DeliverySums, Recovered
from tocsin_server.domain.event_log import Event, Stored
from tocsin_server.domain.health import Health
from tocsin_server.domain.lane import Key
from tocsin_server.domain.lanes import Want
from tocsin_server.domain.notifications import Attempt, Delivery, EndpointConfiguration, Outcome, State
from tocsin_server.domain.settlement import Plan
from tocsin_server.domain.silences import NO_SILENCES, Silences


@dataclass(frozen=True, slots=True)
class Book:
    """All configurations, switches and silences as they stood at a generation; any change raises it."""

    generation: int
    configurations: Mapping[Key, EndpointConfiguration]
    switches: Mapping[str, bool]
    silences: Silences = NO_SILENCES

    def is_on(self, configuration: EndpointConfiguration) -> bool:
        """Tell whether anything is sent to the configuration, as far as switches go."""
        return configuration.enabled and self.switches.get(configuration.kind, True)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a delivery carries of its event."""

    correlation_id: str
    request_id: str
    traceparent: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim has found of what was wanted of one lane, and when its next delivery is due.

    `frames` are the stored events of the rows, None where there is none.
    """

    want: Want
    rows: Sequence[Delivery]
    next_due_at: int | None
    frames: Sequence[bytes | None]


class Sent(NamedTuple):
    """An attempt that was made: how it ended, when it began, and how long it took."""

    outcome: Outcome
    began_at: int  # microseconds since 1970 UTC
    duration_us: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a delivery after an attempt, and of the health of its receiver."""

    state: State
    reason: str
    due_at: int
    health: Health


# Told how a record was made, None when another attempt has taken over, or why it could not be made.
Told = Callable[[Settled | None, Exception | None], None]


@dataclass(frozen=True, slots=True)
class Routed:
    """Which of the routed deliveries are new, and in which lanes digests wait until when."""

    new: Sequence[bool]
    gathered: Sequence[tuple[Key, int]] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What routing has found between two positions, to be written if the configurations are still as they were.

    `frames` are the stored events of the rows. A step without rows needs no write at once.
    """

    cursor: int
    through: int
    generation: int
    rows: Sequence[Delivery] = ()
    frames: Sequence[bytes] = ()


class Companion(Protocol):
    """Routes events in the transaction that appends them; called on the store's thread, which must not wait."""

    def join(self, before: int, events: Sequence[Stored]) -> Step | None:
        """Route the events after a position, unless somebody else does; they are not committed yet."""
        ...

    def joined(self, step: Step, routed: Routed | None, committed: bool) -> None:
        """Take over what has become of a step: None when nothing of it was written, though the events may be."""
        ...


class Outbox(Protocol):
    """Routing and deliveries, as the dispatch thread needs them."""

    @property
    def head(self) -> int:
        """The newest position of the log."""
        ...

    async def begin(self) -> int:
        """Take over from a process that is gone: fence its router, free its leases; give the cursor."""
        ...

    async def book(self) -> Book:
        """Read all configurations, switches and silences."""
        ...

    async def route(self, step: Step) -> Routed | None:
        """Insert deliveries, gather digests and move the cursor, all at once; None when the generation has changed."""
        ...

    async def accompany(self, companion: Companion | None) -> None:
        """Have appended events routed in their own transaction; None ends it, and none is under way any more."""
        ...

    async def stored(self, after: int, limit: int) -> list[Stored]:
        """Give the events after a position, from memory or from the store."""
        ...

    def decode(self, frame: bytes) -> Event:
        """Decode a stored event."""
        ...

    def trace(self, frame: bytes) -> Trace:
        """Read from a stored event what its deliveries carry of it."""
        ...

    async def event_at(self, position: int) -> Event:
        """Read the event of a delivery, hidden or not."""
        ...

    async def events_of(self, account: str, digest_id: str) -> tuple[list[Event], int]:
        """Read the events that a digest tells, hidden or not, and count those that are damaged or gone."""
        ...

    async def insert(self, row: Delivery) -> None:
        """Insert one delivery that is not routed: a test."""
        ...

    async def waiting(self) -> Sequence[tuple[Key, int]]:
        """Take ended leases back, then read which lanes have something that waits, each with its earliest."""
        ...

    async def claim(self, wants: Sequence[Want]) -> list[Claimed]:
        """Lease due deliveries of each lane, and record their attempts as started."""
        ...

    async def settle(self, row: Delivery, sent: Sent, plan: Plan) -> Settled | None:
        """Record how an attempt ended; None when another attempt has taken over."""
        ...

    def record(self, row: Delivery, sent: Sent, plan: Plan, told: Told, patient: bool) -> None:
        """Do as `settle`, and tell what became of it, in the order of the records.

        A patient one waits for a commit that comes along, but only for a moment.
        """
        ...

    async def settled(self) -> None:
        """Wait until all that was to be settled is."""
        ...

    async def put_back(self, rows: Sequence[Delivery], due_at: int, why: str) -> list[State | None]:
        """End attempts that were not made: each delivery waits where it was, but not before `due_at`.

        Says how each waits, or None when another attempt has taken over.
        """
        ...

    async def hold(self, key: Key, health: Health) -> None:
        """Pause (or, when the receiver is gone, cancel) what waits for a configuration, in steps."""
        ...

    async def release(self, rows: Sequence[Delivery]) -> None:
        """Give claimed deliveries back: their attempts were broken off by a stop."""
        ...

    async def sweep(self) -> None:
        """Forget what need not be kept any longer; end what has been open for too long."""


class DeliveryStore(Protocol):
    """Deliveries, as the network's way in needs them; every call is within one account."""

    async def page(self, query: DeliveryQuery, after: tuple[int, str] | None, size: int) -> DeliveryPage:
        """Read deliveries, newest first; a page may be short."""
        ...

    async def get(self, account: str, delivery_id: str) -> tuple[Delivery, list[Attempt]]:
        """Read one delivery with every attempt."""
        ...

    async def retry(self, account: str, delivery_id: str) -> Delivery:
        """Have a delivery tried now; one that has ended undelivered begins anew. DELIVERY_STATE if it cannot."""
        ...

    async def cancel(self, account: str, delivery_id: str) -> Delivery:
        """End a delivery that waits; DELIVERY_STATE when it does not."""
        ...

    async def recover(self, query: DeliveryQuery) -> Recovered:
        """Have what has ended undelivered begin anew, a bounded number."""
        ...

    async def sums(self, account: str | None) -> DeliverySums:
        """Read the sums of promise P3, of one account or (None) of all."""
        ...

    def follow(self, query: DeliveryQuery) -> AsyncGenerator[list[Delivery], None]:
        """Tell of deliveries as they change, without end; an empty list first, when nothing is missed any more."""
        ...
