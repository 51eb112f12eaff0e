"""Events as the rest of the product sees them: before they are stored, and after.

The body of an event travels in its wire form and is not decoded on the way; what filters need stands
beside it. All times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from tocsin_server.domain.errors import Violation

# Limits, shown by System.GetInfo and quoted in the proto comments.
EVENT_BYTES_MAX = 256 * 1024  # one message stays readable for every client
BATCH_EVENTS_MAX = 1000  # one transaction stays short
BATCH_BYTES_MAX = 3 * 1024 * 1024  # below gRPC's 4 MiB default of both sides
PAGE_EVENTS_DEFAULT = 100
PAGE_EVENTS_MAX = 1000
PAGE_BYTES_MAX = 3 * 1024 * 1024  # below gRPC's 4 MiB default of the client
TIMESTAMP_AHEAD_MAX_US = 24 * 3600 * 1_000_000  # clocks differ by time zones at the worst
KEY_KEPT_US = 7 * 24 * 3600 * 1_000_000  # how long a repeat is recognised at least
SUBSCRIBE_BATCH_EVENTS = 256
SUBSCRIBE_BATCH_BYTES = 256 * 1024
SCAN_EVENTS_MAX = 20_000  # events that one page looks at
TOTAL_SIZE_MAX = 10_000  # how far the events of a list are counted
STANDING_MAX = 1_000_000  # how far the events of the log are counted: some 50 ms
CHECKPOINT_EVENTS = 10_000  # scanned events after which a subscriber hears of progress

OWN_SERVICE = "tocsin"  # source.service of events that tocsin itself writes


class Level(IntEnum):
    """How grave an event is; the numbers are those of the wire."""

    INFO = 1
    ERROR = 2


class EventHead(NamedTuple):
    """What filters and selectors look at."""

    account: str
    type: str
    subtype: str
    level: int
    resource_type: str
    resource_id: str
    user_id: str
    service: str
    host: str
    labels: Mapping[str, str]
    timestamp: int


class Draft(NamedTuple):
    """An event that is checked and complete but for its position and its time of storage.

    `digest` tells repeats from reuse and is None where the server made the id: such an event cannot
    be a repeat by id. `body` is the encoded event without `position` and `created_at`.
    """

    id: str
    head: EventHead
    digest: bytes | None
    body: bytes


NOTHING_REDACTED: Mapping[int, tuple[str, ...]] = {}
NOTHING_TO_WARN_OF: Mapping[int, Sequence[Violation]] = {}


class Identity(NamedTuple):
    """What tells a repeat from reuse: the index of an event in its batch, its id and its digest."""

    place: int
    id: str
    digest: bytes


class Append(NamedTuple):
    """One append: events that are stored all or none.

    `redacted` tells, by the event's index, which of its fields had secrets, and `warned` what is wrong with
    its details; only the answer needs them, that to a repeat too.
    """

    account: str
    method: str
    request_id: str
    digest: bytes
    drafts: tuple[Draft, ...]
    redacted: Mapping[int, tuple[str, ...]] = NOTHING_REDACTED
    warned: Mapping[int, Sequence[Violation]] = NOTHING_TO_WARN_OF


class Appended(NamedTuple):
    """Where one event of an append is stored; `frame` only where it was stored just now."""

    id: str
    position: int
    deleted: bool = False
    frame: bytes = b""


class Stored(NamedTuple):
    """A stored event: its place and its framed wire form, ready to be joined into an answer."""

    position: int
    created_at: int
    id: str
    head: EventHead
    frame: bytes


class Event(NamedTuple):
    """A decoded event, for templates, webhook bodies and messages."""

    id: str
    position: int
    account: str
    type: str
    subtype: str
    level: Level
    message: str
    category: str
    details: object
    resource: Mapping[str, str]
    source: Mapping[str, str]
    labels: Mapping[str, str]
    timestamp: int
    created_at: int
    correlation_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class OwnEvent:
    """An event that tocsin itself writes, in the transaction of what it tells about."""

    account: str
    type: str
    message: str
    details: Mapping[str, object]
    level: Level = Level.INFO
    resource_type: str = ""
    resource_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogStatus:
    """The log as a whole."""

    log_id: str
    head: int
    oldest: int


@dataclass(frozen=True, slots=True)
class Key:
    """Place of an event in a list."""

    timestamp: int
    position: int


@dataclass(frozen=True, slots=True)
class ListPage:
    """Frames of one page of a list, and the place of its end; None when nothing follows."""

    frames: list[bytes]
    next_key: Key | None


@dataclass(frozen=True, slots=True)
class TotalSize:
    """How many events there are, and whether there may be more."""

    count: int
    capped: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Frames of the events that were asked for by id, the ids that do not exist, and those not looked at."""

    frames: list[bytes]
    missing: list[str]
    remaining: list[str]


class Named(NamedTuple):
    """An event by its place and its id."""

    position: int
    account: str
    id: str


@dataclass(frozen=True, slots=True)
class ScanPage:
    """Matching events in position order, and how far the log was looked through."""

    events: list[tuple[int, bytes]]
    through: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What a follower is told: joined frames of events, and how far the log is looked through.

    `sizes` has the position of each event and the bytes of its frame, in order.
    """

    frames: bytes
    position: int
    sizes: Sequence[tuple[int, int]] = ()

    @classmethod
    def of(cls, events: Sequence[tuple[int, bytes]], through: int) -> Batch:
        """Join the frames of events, each given with its position."""
        frames = b"".join([frame for _, frame in events])
        return cls(frames, through, [(position, len(frame)) for position, frame in events])

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Give each event's position and frame."""
        place = 0
        for position, size in self.sizes:
            yield position, self.frames[place : place + size]
            place += size


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a follower is told when nothing matched: the log is looked through to here."""

    position: int


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What a follower is told when it has all that stood."""

    position: int


Step = Batch | Checkpoint | CaughtUp
