"""Durable consumers: what they are, and what of them is kept.

A consumer is a place in the log that many clients share. Which of its events are open and who holds
them is decided in `ledger.py`; here are the nouns. Times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from tocsin_server.domain.selection import EventFilter

CONSUMERS_MAX = 100  # per account: each active one has a reader and a prefetch of half a megabyte
LEASE_DEFAULT_US = 30_000_000
RETRIES_DEFAULT = 10
IN_FLIGHT_DEFAULT = 100
RETRY_DELAY_DEFAULT_US = 1_000_000
PARKED_MAX = 10_000  # per consumer; beyond it nothing new is handed out until somebody decides
WAITING_MAX = 10_000  # events that wait to come again, per consumer; each costs memory and a row
PARKED_FULL_DELAY_S = 60.0  # an event that finds no room among the parked comes again so late
LAG_MAX = 10_000
LAG_SCAN_MAX = 100_000  # events that one look at a lag goes through: some tens of milliseconds
FLUSH_S = 0.1  # what was settled is stored at most so much later: what a crash may repeat


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """By which rules a consumer hands out events. `max_retries` is how often a failed event comes again."""

    lease_us: int = LEASE_DEFAULT_US
    max_retries: int = RETRIES_DEFAULT
    max_in_flight: int = IN_FLIGHT_DEFAULT
    retry_delay_us: int = RETRY_DELAY_DEFAULT_US


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer; `id` tells it from a later one of the same name."""

    account: str
    name: str
    filter: EventFilter
    settings: ConsumerSettings
    id: str = ""
    created_at: int = 0
    updated_at: int = 0


class Stall(IntEnum):
    """Why nothing new is handed out; the numbers are those of the wire."""

    NONE = 0
    PARKED_FULL = 1
    WAITING_FULL = 2


class Nack(IntEnum):
    """What becomes of a refused event; the numbers are those of the wire."""

    RETRY = 1
    PARK = 2
    SKIP = 3


class ParkCause(StrEnum):
    """Why an event was parked."""

    CLIENT = "CLIENT"
    RETRIES = "RETRIES"


@dataclass(frozen=True, slots=True)
class Tries:
    """What is known of an open event: how often it was handed out, and how often that failed."""

    attempts: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Parking:
    """An event that is about to be parked."""

    position: int
    attempts: int
    cause: ParkCause
    reason: str
    parked_by: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked event; `frame` is the stored event."""

    parking: Parking
    parked_at: int
    event_id: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """All that is durable of a consumer's way.

    Every matching event at or below `cursor` is settled or parked, but for those in `open`; those
    above it come anew. This says floor and sparse acknowledgements by what is *not* acknowledged,
    which is bounded however long one event stays open. `open` also has events above the cursor that
    have failed before.
    """

    cursor: int
    open: Mapping[int, Tries] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What has to be written; with `anew` all that was written of `open` before is replaced."""

    progress: Progress
    anew: bool
    written: Mapping[int, Tries]
    gone: Sequence[int]
    parked: Sequence[Parking]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which parked events are meant: those that are named, or all."""

    positions: Sequence[int] = ()
    event_ids: Sequence[str] = ()
    all: bool = False


@dataclass(frozen=True, slots=True)
class Lag:
    """Matching events after a position: how many were counted, whether there may be more, since when."""

    count: int
    capped: bool
    oldest_at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a ledger is; after `fresh_after` nothing was handed out yet."""

    floor: int
    fresh_after: int
    in_flight: int
    waiting: int
    parked: int
    stall: Stall


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """How far a consumer is; see `tocsin.v1.ConsumerStatus`."""

    standing: Standing
    lag: Lag
    streams: int


@dataclass(frozen=True, slots=True)
class Handed:
    """An event that is handed out under a lease; `frame` is the stored event."""

    lease_id: int
    attempt: int
    frame: bytes
