"""Which events of a consumer are open and who holds them: pure, one transition after the other.

    offered ──> ready ──take──> leased ──ack, skip──> settled
                  ^               │
                  │               ├──nack, expiry, broken stream──> delayed (or, too often, parked)
                  └───returned────┴<──────────due──────────────────────┘

Every matching event at or below `through` is open here, or settled, or parked. What a restart finds is
`Progress`, written from time to time: an event that was settled since comes again, none is lost.
Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from tocsin_server.domain.consumers import (
    PARKED_FULL_DELAY_S,
    PARKED_MAX,
    WAITING_MAX,
    Change,
    ConsumerSettings,
    Nack,
    ParkCause,
    Parking,
    Progress,
    Stall,
    Standing,
    Tries,
)
from tocsin_server.domain.event_log import CHECKPOINT_EVENTS

EXPIRED = "the lease ran out"
BROKEN = "the stream broke"


@dataclass(slots=True)
class _Open:
    """An event that is not settled. `fresh`: never handed out by this ledger nor before."""

    attempts: int = 0
    failures: int = 0
    fresh: bool = False
    ready: bool = True
    due: float = 0.0
    lease_id: int = 0


@dataclass(slots=True)
class _Lease:
    position: int
    stream: int
    deadline: float


class Taken(NamedTuple):
    """An event that was taken: its place, its lease, how many times it was handed out."""

    position: int
    lease_id: int
    attempt: int


class Ledger:
    """The open events of one consumer; see the module's docstring.

    Lease ids rise from `first_lease`, which has to be above every id that was given before.
    """

    def __init__(self, settings: ConsumerSettings, progress: Progress, parked: int, first_lease: int) -> None:
        self.settings = settings
        self.through = progress.cursor
        self.parked = parked
        self._next_lease = first_lease
        self._open: dict[int, _Open] = {}
        self._ready: list[int] = []
        self._ready_count = 0
        self._delayed: list[tuple[float, int]] = []
        self._leases: dict[int, _Lease] = {}
        self._by_stream: dict[int, dict[int, None]] = {}
        self._parkings: list[Parking] = []
        self._settled_max = progress.cursor
        self._written: Progress | None = progress
        self._dirty = False
        # Events above the cursor that failed before: they are open when the log is read up to them.
        self._known = {p: tries for p, tries in progress.open.items() if p > progress.cursor}
        for position, tries in progress.open.items():
            if position <= progress.cursor:
                self._add(position, _Open(tries.attempts, tries.failures))

    @property
    def floor(self) -> int:
        """Every matching event up to here is settled or parked."""
        return min(self._open, default=self.through + 1) - 1

    @property
    def in_flight(self) -> int:
        """How many events are leased."""
        return len(self._leases)

    @property
    def ready(self) -> int:
        """How many events could be taken now."""
        return self._ready_count

    @property
    def stall(self) -> Stall:
        """What keeps new events from being offered."""
        if self.parked >= PARKED_MAX:
            return Stall.PARKED_FULL
        return Stall.WAITING_FULL if len(self._open) >= WAITING_MAX else Stall.NONE

    @property
    def unsaved(self) -> bool:
        """Tell whether there is something to write."""
        return self._dirty

    def standing(self) -> Standing:
        """Tell how far the consumer is."""
        fresh = [position for position, event in self._open.items() if event.fresh]
        return Standing(
            floor=self.floor,
            fresh_after=min(fresh, default=self.through + 1) - 1,
            in_flight=len(self._leases),
            waiting=len(self._open) - len(fresh) - len(self._leases),
            parked=self.parked,
            stall=self.stall,
        )

    def held(self, stream: int) -> int:
        """Tell how many events a stream holds."""
        return len(self._by_stream.get(stream, ()))

    def holds(self, lease_id: int) -> bool:
        """Tell whether a lease still stands."""
        return lease_id in self._leases

    def offer(self, positions: Iterable[int], through: int) -> None:
        """Take in matching events, in order; `through` is how far the log was looked through."""
        for position in positions:
            if position > self.through:
                tries = self._known.get(position)
                self._add(position, _Open(tries.attempts, tries.failures) if tries else _Open(fresh=True))
        self.through = max(self.through, through)
        if self._known:
            self._known = {p: tries for p, tries in self._known.items() if p > self.through}
        # Progress through events that do not match is not worth a write of its own each time.
        if self._written is not None and self.through - self._written.cursor >= CHECKPOINT_EVENTS:
            self._dirty = True

    def unpark(self, count: int) -> None:
        """Learn that so many events are not parked any more."""
        self.parked = max(0, self.parked - count)

    def reopen(self, positions: Sequence[int]) -> None:
        """Open events anew that were parked; those that the log is not read up to come by themselves."""
        self.unpark(len(positions))
        for position in positions:
            if position <= self.through and position not in self._open:
                self._add(position, _Open())
        # They are stored as open already, which this ledger has not written: write everything anew.
        self._written, self._dirty = None, True

    def take(self, stream: int, limit: int, now: float) -> list[Taken]:
        """Lease up to `limit` ready events to a stream, in the order of their positions."""
        limit = min(limit, self.settings.max_in_flight - len(self._leases))
        taken: list[Taken] = []
        while self._ready and len(taken) < limit:
            position = heappop(self._ready)
            event = self._open.get(position)
            if event is not None and event.ready:
                taken.append(self._lease(position, event, stream, now))
        return taken

    def _lease(self, position: int, event: _Open, stream: int, now: float) -> Taken:
        lease_id, self._next_lease = self._next_lease, self._next_lease + 1
        event.attempts += 1
        event.fresh, event.lease_id = False, lease_id
        self._unready(event)
        self._leases[lease_id] = _Lease(position, stream, now + self.settings.lease_us / 1e6)
        self._by_stream.setdefault(stream, {})[lease_id] = None
        return Taken(position, lease_id, event.attempts)

    def ack(self, lease_ids: Iterable[int]) -> None:
        """Settle events; leases that have ended are passed over."""
        for lease_id in lease_ids:
            if (lease := self._end(lease_id)) is not None:
                self._settle(lease.position)

    def nack(self, lease_ids: Iterable[int], action: Nack, reason: str, user: str, now: float) -> None:
        """Refuse events; leases that have ended are passed over."""
        for lease_id in lease_ids:
            if (lease := self._end(lease_id)) is None:
                continue
            if action is Nack.SKIP:
                self._settle(lease.position)
            elif action is Nack.PARK:
                self._park(lease.position, ParkCause.CLIENT, reason, user, now)
            else:
                self._fail(lease.position, reason, user, now)

    def advance(self, now: float) -> None:
        """End leases that have run out; make ready what has waited long enough."""
        # Leases end in the order in which they were given: the oldest ones come first.
        while self._leases:
            lease_id, lease = next(iter(self._leases.items()))
            if lease.deadline > now:
                break
            self._end(lease_id)
            self._fail(lease.position, EXPIRED, "", now)
        while self._delayed and self._delayed[0][0] <= now:
            due, position = heappop(self._delayed)
            event = self._open.get(position)
            if event is not None and event.due == due and not event.ready and not event.lease_id:
                self._make_ready(position, event)

    def release(self, stream: int, broken: bool, now: float) -> int:
        """Give back what a stream holds; tell how many.

        Of a broken one the oldest event counts as failed: a client works in order, and the event that
        kills every client has to be parked one day. The others are just returned.
        """
        lease_ids = list(self._by_stream.pop(stream, ()))
        for lease_id in lease_ids:
            position = self._leases.pop(lease_id).position
            event = self._open[position]
            event.lease_id = 0
            if broken and lease_id == lease_ids[0]:
                self._fail(position, BROKEN, "", now)
            else:
                self._make_ready(position, event)
        return len(lease_ids)

    def forget(self, positions: Iterable[int]) -> None:
        """Settle events that are deleted."""
        if self.parked:  # some of them may be parked: the next write counts these anew
            self._dirty = True
        for position in positions:
            event = self._open.get(position)
            if event is not None:
                self._end(event.lease_id)
                self._settle(position)

    def seek(self, position: int) -> None:
        """Go on after a position: what is open is forgotten, what is parked stays."""
        self._open.clear()
        self._ready.clear()
        self._delayed.clear()
        self._leases.clear()
        self._by_stream.clear()
        self._known.clear()
        self._ready_count = 0
        self.through = self._settled_max = position
        self._written, self._dirty = None, True

    def change_settings(self, settings: ConsumerSettings, now: float) -> None:
        """Go on by other rules; leases under way end no later than new ones would."""
        self.settings = settings
        for lease in self._leases.values():
            lease.deadline = min(lease.deadline, now + settings.lease_us / 1e6)

    def change(self) -> Change | None:
        """Give what is to be written now; None when nothing has changed.

        Until `written` is called it is not known whether it was: the next change writes all anew.
        """
        if not self._dirty:
            return None
        progress = self._progress()
        before, self._written, self._dirty = self._written, None, False
        parked, known = tuple(self._parkings), before.open if before is not None else {}
        written = {position: tries for position, tries in progress.open.items() if known.get(position) != tries}
        return Change(progress, before is None, written, [p for p in known if p not in progress.open], parked)

    def written(self, change: Change, parked: int) -> None:
        """Learn that a change is written, and how many events are parked now."""
        del self._parkings[: len(change.parked)]
        self._written = change.progress
        self.parked = parked + len(self._parkings)

    def not_written(self) -> None:
        """Learn that a change was perhaps not written."""
        self._dirty = True

    def _progress(self) -> Progress:
        # Above the highest settled event all is as it was before it was offered, but for failures.
        cursor = min((p for p in self._open if p > self._settled_max), default=self.through + 1) - 1
        kept = dict(self._known)
        for position, event in self._open.items():
            if position <= cursor or event.failures:
                kept[position] = Tries(event.attempts, event.failures)
        return Progress(cursor, kept)

    def _add(self, position: int, event: _Open) -> None:
        self._open[position] = event
        self._ready_count += 1
        heappush(self._ready, position)

    def _make_ready(self, position: int, event: _Open) -> None:
        event.ready = True
        self._ready_count += 1
        heappush(self._ready, position)

    def _unready(self, event: _Open) -> None:
        event.ready = False
        self._ready_count -= 1

    def _end(self, lease_id: int) -> _Lease | None:
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            self._open[lease.position].lease_id = 0
            held = self._by_stream[lease.stream]
            del held[lease_id]
            if not held:
                del self._by_stream[lease.stream]
        return lease

    def _settle(self, position: int) -> None:
        event = self._open.pop(position)
        if event.ready:
            self._unready(event)
        self._settled_max = max(self._settled_max, position)
        self._dirty = True

    def _fail(self, position: int, reason: str, user: str, now: float) -> None:
        event = self._open[position]
        event.failures += 1
        self._dirty = True
        if event.failures > self.settings.max_retries:
            self._park(position, ParkCause.RETRIES, reason, user, now)
        else:
            self._delay(position, event, now + self.settings.retry_delay_us / 1e6, now)

    def _delay(self, position: int, event: _Open, due: float, now: float) -> None:
        if due <= now:
            self._make_ready(position, event)
            return
        event.due = due
        heappush(self._delayed, (due, position))

    def _park(self, position: int, cause: ParkCause, reason: str, user: str, now: float) -> None:
        event = self._open[position]
        if self.parked >= PARKED_MAX:
            self._delay(position, event, now + PARKED_FULL_DELAY_S, now)
            return
        self.parked += 1
        self._parkings.append(Parking(position, event.attempts, cause, reason, user))
        self._settle(position)


def share(limits: Sequence[int], ready: int) -> int:
    """Tell how many of the ready events one of several streams with room may take: an even part."""
    hungry = sum(1 for limit in limits if limit > 0)
    return -(-ready // hungry) if hungry else 0
