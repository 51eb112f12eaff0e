"""Lanes: whose turn it is. Each configuration with deliveries under way or waiting has a lane of its own.

A lane is held by the health of its receiver and paced by its options. Accounts take turns, and in an
account its lanes, so that nobody waits for somebody else's backlog. How many attempts a lane may have
under way grows with success and shrinks with failure; lanes that have not succeeded yet share half of
all places, so that receivers that hang leave the other half to those that answer.

Nothing here is stored: the store has the deliveries, and tells anew what waits (`know`).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from tocsin_server.domain.health import HEALTHY, Health, HealthState
from tocsin_server.domain.notifications import EndpointConfiguration
from tocsin_server.domain.verdicts import SECOND_US, Verdict

IN_FLIGHT_MAX = 256  # attempts under way in all: as many connections
SUSPECTS_MAX = 128  # of these, to receivers that have not shown that they answer
WINDOW_FIRST = 8  # of one lane, until its receiver has shown more
WINDOW_MAX = 64
AHEAD_MAX = 32  # claimed beyond the window where it is as wide as it gets and the receiver quick: a claim is a commit
Key = tuple[str, str]  # account, configuration


@dataclass(slots=True)
class Lane:
    """One configuration: what waits, what is under way, what it may do. `due_at` is the earliest that waits."""

    key: Key
    on: bool = True
    health: Health = HEALTHY
    interval_us: int = 0
    due_at: int | None = None
    in_flight: int = 0
    window: int = WINDOW_FIRST
    proven: bool = False
    quick: bool = False  # the receiver has taken the last one soon
    paced_at: int = 0
    turns: int = 0
    queued: bool = False  # is in line
    later_at: int | None = None  # is looked at again then

    @property
    def sends(self) -> bool:
        """Whether anything is sent here, now or later."""
        return self.on and self.health.state is not HealthState.DISABLED

    @property
    def is_open(self) -> bool:
        """Whether nothing holds its deliveries, the health of the receiver included."""
        return self.on and self.health.state is HealthState.HEALTHY

    @property
    def pauses(self) -> bool:
        """Whether what waits is PAUSED by the health of the receiver."""
        return self.on and bool(self.health.pauses)

    def ready_at(self) -> int | None:
        """When the next delivery may go as far as the lane itself goes; None when nothing waits or may go."""
        if self.due_at is None or not self.sends:
            return None
        return max(self.due_at, self.health.sends_after, self.paced_at)

    def places(self) -> int:
        """How many more may be claimed: as many as may be sent at a time and, where that goes fast, some ahead."""
        one = self.health.state is HealthState.FAILING or self.interval_us
        ahead = AHEAD_MAX if self.quick and self.window == WINDOW_MAX and self.is_open else 0
        return max((1 if one else self.window + ahead) - self.in_flight, 0)

    def begin(self, now: int) -> None:
        """Take a place."""
        self.in_flight += 1
        if self.interval_us:
            self.paced_at = max(now, self.paced_at) + self.interval_us

    def learn(self, verdict: Verdict | None) -> None:
        """Open or close the window by how an attempt ended."""
        if verdict is None or verdict is Verdict.OUTAGE:
            return
        if verdict in (Verdict.DELIVERED, Verdict.PERMANENT):
            self.proven = True
            self.window = min(self.window + 1, WINDOW_MAX)
        else:
            self.proven = False
            self.window = max(self.window // 2, 1)


@dataclass(frozen=True, slots=True)
class Want:
    """So many deliveries of one configuration; `newest` of them from the end of its line."""

    key: Key
    count: int
    newest: int = 0


Line = dict[str, dict[Key, None]]  # lanes by account; both in the order of their turns


class Lanes:
    """All lanes; see the module's docstring. Every method that takes `now` is given the same clock."""

    def __init__(self, places: int = IN_FLIGHT_MAX, suspects: int = SUSPECTS_MAX) -> None:
        self._places = self._left = places
        self._suspects_left = suspects
        self._lanes: dict[Key, Lane] = {}
        self._later: list[tuple[int, Key]] = []  # a heap: when to look at a lane again
        self._proven: Line = {}
        self._suspects: Line = {}
        self.open = True

    def lane(self, key: Key) -> Lane:
        """Give the lane of a configuration."""
        found = self._lanes.get(key)
        return found if found is not None else self._lanes.setdefault(key, Lane(key))

    @property
    def under_way(self) -> int:
        """How many attempts are under way."""
        return self._places - self._left

    def configure(self, configurations: Mapping[Key, EndpointConfiguration], is_on: Mapping[str, bool]) -> None:
        """Take over configurations and switches as they stand now."""
        for key, configuration in configurations.items():
            lane = self.lane(key)
            lane.on = configuration.enabled and is_on.get(configuration.kind, True)
            lane.health = configuration.health
            rate = configuration.options.rate_per_second
            lane.interval_us = int(SECOND_US / rate) if rate else 0
            self._queue(lane)
        for key in [key for key in self._lanes if key not in configurations]:
            lane = self._lanes[key]
            lane.on, lane.health, lane.interval_us = True, HEALTHY, 0  # the store says what becomes of what waits
            if lane.due_at is None and not lane.in_flight and not lane.queued:
                del self._lanes[key]

    def wait(self, key: Key, due_at: int) -> None:
        """Note that a delivery waits."""
        lane = self.lane(key)
        if lane.due_at is None or due_at < lane.due_at:
            lane.due_at = due_at
        self._queue(lane)

    def paused(self) -> list[tuple[Key, Health]]:
        """Give the lanes in which something waits that the health of the receiver pauses."""
        return [(key, lane.health) for key, lane in self._lanes.items() if lane.due_at is not None and lane.pauses]

    def take(self, key: Key, now: int) -> bool:
        """Take a place for a delivery that is new, if nothing that waits in its lane comes before it."""
        lane = self.lane(key)
        if not self.open or not lane.sends or self._left <= 0 or lane.places() <= 0:
            return False
        if not lane.proven and self._suspects_left <= 0:
            return False
        ahead = lane.due_at is not None and lane.due_at <= now
        if ahead or max(lane.health.sends_after, lane.paced_at) > now:
            return False
        self._begin(lane, now)
        return True

    def give_back(self, key: Key) -> None:
        """Give a place back that was not used."""
        self.ended(key, None)

    def choose(self, now: int) -> list[Want]:
        """Choose what is sent next, in turns, as far as there are places; the places are taken."""
        self._line_up(now)
        chosen: dict[Key, int] = {}
        turn = self.open
        while turn and self._left > 0:
            turn = False
            for line in (self._proven, self._suspects):
                for account in list(line):
                    if self._left <= 0 or (line is self._suspects and self._suspects_left <= 0):
                        break
                    key = self._turn(line, account, now)
                    if key is not None:
                        chosen[key] = chosen.get(key, 0) + 1
                        turn = True
        return [self._want(self.lane(key), count) for key, count in chosen.items()]

    def claimed(self, want: Want, got: int, next_due_at: int | None) -> None:
        """Take over what the store answered to a choice: how many there were, and when the next one is due."""
        for _ in range(want.count - got):
            self.give_back(want.key)
        if next_due_at is not None:
            self.wait(want.key, next_due_at)

    def ended(self, key: Key, verdict: Verdict | None, health: Health | None = None, quick: bool = False) -> None:
        """Take over how an attempt ended, whether soon, and the health of the receiver after it."""
        lane = self.lane(key)
        if verdict is not None:  # else a place was given back that was not used
            lane.quick = quick
        lane.in_flight -= 1
        self._left += 1
        was_proven = lane.proven
        self._suspects_left += 0 if was_proven else 1
        lane.learn(verdict)
        if lane.proven != was_proven:
            self._suspects_left += lane.in_flight if lane.proven else -lane.in_flight
            self._leave(lane, self._proven if was_proven else self._suspects)
        if health is not None:
            lane.health = health
        self._queue(lane)

    def note(self, key: Key, health: Health) -> None:
        """Take over the health of a receiver, from a record that came after its place was given back."""
        lane = self.lane(key)
        lane.health = health
        self._queue(lane)

    @property
    def is_line(self) -> bool:
        """Whether anything waits for its time or for a place."""
        return bool(self._later or self._proven or self._suspects)

    def next_at(self) -> int | None:
        """When the next lane may be ready; those that wait for a place are looked at when one is free."""
        return self._later[0][0] if self._later else None

    def _queue(self, lane: Lane) -> None:
        ready_at = lane.ready_at()
        if ready_at is None or lane.queued or (lane.later_at is not None and lane.later_at <= ready_at):
            return
        lane.later_at = ready_at
        heapq.heappush(self._later, (ready_at, lane.key))

    def _line_up(self, now: int) -> None:
        """Put the lanes whose time has come into line."""
        while self._later and self._later[0][0] <= now:
            at, key = heapq.heappop(self._later)
            lane = self.lane(key)
            if lane.later_at == at:
                lane.later_at = None
            ready_at = lane.ready_at()
            if ready_at is None or lane.queued:
                continue
            if ready_at > now:
                self._queue(lane)
                continue
            lane.queued = True
            line = self._proven if lane.proven else self._suspects
            line.setdefault(key[0], {})[key] = None

    def _leave(self, lane: Lane, line: Line) -> None:
        lanes = line.get(lane.key[0], {})
        if lane.queued and lane.key in lanes:
            del lanes[lane.key]
            lane.queued = False
            if not lanes:
                del line[lane.key[0]]

    def _turn(self, line: Line, account: str, now: int) -> Key | None:
        """Give an account its turn: the next of its lanes that may send takes a place and goes to the end."""
        lanes = line.pop(account)
        found: Lane | None = None
        while lanes and found is None:
            key = next(iter(lanes))
            del lanes[key]
            lane = self.lane(key)
            lane.queued = False
            ready_at = lane.ready_at()
            if ready_at is None or ready_at > now:
                self._queue(lane)
            elif lane.places() > 0:  # else it comes back when one of its attempts ends
                found = lane
        if found is not None:
            self._begin(found, now)
            if found.places() > 0:
                lanes[found.key] = None
                found.queued = True
        if lanes:
            line[account] = lanes
        return found.key if found is not None else None

    def _want(self, lane: Lane, count: int) -> Want:
        lane.due_at = None  # the store answers what is left
        before = lane.turns
        lane.turns += count
        # Every fourth comes from the end of the line: what is new is not starved by a backlog.
        return Want(lane.key, count, lane.turns // 4 - before // 4)

    def _begin(self, lane: Lane, now: int) -> None:
        lane.begin(now)
        self._left -= 1
        self._suspects_left -= 0 if lane.proven else 1
