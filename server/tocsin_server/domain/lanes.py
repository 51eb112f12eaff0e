"""Lanes: whose turn it is. Each configuration with deliveries under way or waiting has a lane of its own.

A lane is held by the health of its receiver and paced by its options. Accounts take turns, and in an
account its lanes, so that nobody waits for somebody else's backlog. How many attempts a lane may have
under way grows with success and shrinks with failure; lanes that have not succeeded yet share half of
all places, so that receivers that hang leave the other half to those that answer.

To claim a delivery is a commit, so those of a quick receiver are claimed ahead of their places and kept in
stock. A place that gets free goes to the lane's stock at once, unless another lane waits for a place.

Nothing here is stored: the store has the deliveries, and tells anew what waits (`wait`).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tocsin_server.domain.health import HEALTHY, Health
from tocsin_server.domain.lane import Key, Lane
from tocsin_server.domain.notifications import EndpointConfiguration
from tocsin_server.domain.verdicts import SECOND_US, Verdict

IN_FLIGHT_MAX = 256  # attempts under way in all: as many connections
SUSPECTS_MAX = 128  # of these, to receivers that have not shown that they answer
AHEAD_ALL_MAX = 4096  # claimed ahead by all lanes, in equal shares
AHEAD_BYTES_MAX = 4096  # of an event that is held in memory meanwhile; larger ones are read when they are sent


@dataclass(frozen=True, slots=True)
class Want:
    """So many deliveries of one configuration; `newest` of them from the end of its line.

    Of those that the store is to give, `ahead` have no place. A want of none is served from stock alone.
    """

    key: Key
    count: int
    newest: int = 0
    ahead: int = 0


Line = dict[str, dict[Key, None]]  # lanes by account; both in the order of their turns


class Lanes:
    """All lanes; see the module's docstring. Every method that takes `now` is given the same clock."""

    def __init__(
        self, places: int = IN_FLIGHT_MAX, suspects: int = SUSPECTS_MAX, without_stock: Collection[str] = ()
    ) -> None:
        self._places = self._left = places
        self._without_stock = without_stock  # kinds of endpoint
        self._suspects_left = suspects
        self._ahead_left = AHEAD_ALL_MAX
        self._lanes: dict[Key, Lane] = {}
        self._later: list[tuple[int, Key]] = []  # a heap: when to look at a lane again
        self._proven: Line = {}
        self._suspects: Line = {}
        self._stocked: set[Key] = set()  # those that have something ahead
        self._last = self._suspects  # the line that had the last turn: where places are few the other one is next
        self._hungry: dict[Key, None] = {}  # those whose stock is to be filled
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
            lane.may_stock = configuration.kind not in self._without_stock
            self._queue(lane)
        for key in [key for key in self._lanes if key not in configurations]:
            lane = self._lanes[key]
            lane.on, lane.health, lane.interval_us = True, HEALTHY, 0  # the store says what becomes of what waits
            if lane.due_at is None and not (lane.in_flight or lane.ahead or lane.queued):
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
        """Claim a delivery that is new, if nothing that waits in the store comes before it in its lane.

        It has a place, or one in stock: with what else is claimed in the lane, whichever comes first has the place.
        """
        lane = self.lane(key)
        waits = lane.due_at is not None and lane.due_at <= now
        if waits or not self.open or not lane.sends or max(lane.health.sends_after, lane.paced_at) > now:
            return False
        if not lane.ahead and self._has_place(lane):
            self._begin(lane, now)
        elif self._ahead_left > 0 and self.room(lane):
            self._keep(lane, 1)
        else:
            return False
        return True

    def proceed(self, key: Key, now: int) -> bool:
        """Give a place to the next in stock if there is one that nobody else waits for; else its lane waits in line."""
        lane = self.lane(key)
        if not lane.ahead or not self.open or not lane.keeps_stock:
            return False
        if lane.places() <= 0:  # it is asked again when one of its attempts ends
            return False
        if self._others_wait(lane) or not self._has_place(lane):
            self._queue(lane)
            return False
        self._keep(lane, -1)
        self._begin(lane, now)
        lane.was_in_time()
        if self._wants_stock(lane, now):
            self._hungry[key] = None
        if not lane.ahead:
            self._queue(lane)
        return True

    def room(self, lane: Lane) -> int:
        """Tell how many more a lane may claim ahead: its share where it goes fast, else none."""
        return max(self._share(lane) - lane.ahead, 0) if lane.is_fast else 0

    def _share(self, lane: Lane) -> int:
        lanes = len(self._stocked) + (0 if lane.ahead else 1)
        return max(min(lane.depth, AHEAD_ALL_MAX // lanes), 1)

    def _wants_stock(self, lane: Lane, now: int) -> bool:
        """Tell whether it is time to claim ahead: half of the stock is gone, so that one claim brings many."""
        waits = lane.due_at is not None and lane.due_at <= now
        return waits and 0 < self._share(lane) <= self.room(lane) * 2

    def late(self, key: Key) -> None:
        """Take note that what was ahead has got no place in time: that was too many."""
        self.lane(key).was_late()

    def _has_place(self, lane: Lane) -> bool:
        return self._left > 0 and lane.places() > 0 and (lane.proven or self._suspects_left > 0)

    def _keep(self, lane: Lane, count: int) -> None:
        lane.ahead += count
        self._ahead_left -= count
        if lane.ahead:
            self._stocked.add(lane.key)
        else:
            self._stocked.discard(lane.key)

    def give_back(self, key: Key, count: int = 1) -> None:
        """Take note that some that were claimed are not sent: there are less ahead, or else places are free."""
        lane = self.lane(key)
        ahead = min(count, lane.ahead)
        self._keep(lane, -ahead)
        for _ in range(count - ahead):
            self.ended(key, None)
        self._queue(lane)

    def choose(self, now: int) -> list[Want]:
        """Choose what is sent next, in turns, as far as there are places, and whose stock is filled.

        The places are taken. What is in stock comes before what the store is asked for.
        """
        self._line_up(now)
        chosen: dict[Key, int] = {}
        turn = self.open
        lines = (self._proven, self._suspects) if self._last is self._suspects else (self._suspects, self._proven)
        while turn and self._left > 0:
            turn = False
            for line in lines:
                for account in list(line):
                    if self._left <= 0 or (line is self._suspects and self._suspects_left <= 0):
                        break
                    lane = self._turn(line, account, now)
                    if lane is not None:
                        chosen[lane.key] = chosen.get(lane.key, 0) + self._take_turn(lane, line, now)
                        turn, self._last = True, line
        for key in self._hungry:
            chosen.setdefault(key, 0)
        self._hungry.clear()
        return [self._want(self.lane(key), count, now) for key, count in chosen.items()]

    def claimed(self, want: Want, got: int, next_due_at: int | None) -> None:
        """Take over what the store answered to a choice: how many there were, and when the next one is due."""
        if got < want.count:
            self.give_back(want.key, want.count - got)
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
        if not lane.ahead:  # else `proceed` is asked: at once, or when they are there
            self._queue(lane)

    def note(self, key: Key, health: Health) -> None:
        """Take over the health of a receiver, from a record that came after its place was given back."""
        lane = self.lane(key)
        lane.health = health
        self._queue(lane)

    @property
    def is_line(self) -> bool:
        """Whether there is something to choose now: somebody waits for a place that can be had, or for stock."""
        waits = bool(self._proven) or (bool(self._suspects) and self._suspects_left > 0)
        return bool(self._hungry) or (waits and self._left > 0)

    def _others_wait(self, lane: Lane) -> bool:
        """Tell whether another lane waits for a place that it could have."""
        accounts = len(self._proven) + (len(self._suspects) if self._suspects_left > 0 else 0)
        if accounts != 1 or not lane.queued:
            return accounts > 0
        line = self._proven if lane.proven else self._suspects
        return len(line[lane.key[0]]) > 1

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

    def _turn(self, line: Line, account: str, now: int) -> Lane | None:
        """Give an account its turn, and go to the end of the line: the next of its lanes that may send."""
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
            elif lane.places() > 0:
                found = lane
            elif self._wants_stock(lane, now):
                self._hungry[key] = None
            # else it comes back when one of its attempts ends
        if lanes:
            line[account] = lanes
        return found

    def _take_turn(self, lane: Lane, line: Line, now: int) -> int:
        """Take a place, for one in stock or else for one of the store; tell how many are asked of the store."""
        asked = 0 if lane.ahead else 1
        if lane.ahead:
            self._keep(lane, -1)
        self._begin(lane, now)
        if lane.places() > 0 and lane.ready_at() is not None:
            line.setdefault(lane.key[0], {})[lane.key] = None
            lane.queued = True
        return asked

    def _want(self, lane: Lane, count: int, now: int) -> Want:
        """Ask the store for so many that have a place, and fill the stock where it is time."""
        ahead = min(self.room(lane), self._ahead_left) if self._wants_stock(lane, now) else 0
        if ahead:
            self._keep(lane, ahead)
            count += ahead
        if not count:
            return Want(lane.key, 0)
        lane.due_at = None  # the store answers what is left
        before = lane.turns
        lane.turns += count
        # Every fourth comes from the end of the line: what is new is not starved by a backlog.
        return Want(lane.key, count, lane.turns // 4 - before // 4, ahead)

    def _begin(self, lane: Lane, now: int) -> None:
        lane.begin(now)
        self._left -= 1
        self._suspects_left -= 0 if lane.proven else 1
