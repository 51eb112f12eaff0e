"""A lane: one configuration's deliveries, those that wait and those under way. Whose turn it is says `lanes.py`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tocsin_server.domain.health import HEALTHY, Health, HealthState
from tocsin_server.domain.verdicts import Verdict

WINDOW_FIRST = 8  # under way at a time, until the receiver has shown more
WINDOW_MAX = 64
AHEAD_MAX = 1024  # claimed ahead of their places, where the window is widest and the receiver quick
AHEAD_MORE = 32  # that may be claimed ahead when it was not too many
Key = tuple[str, str]  # account, configuration


@dataclass(slots=True)
class Lane:
    """One configuration: what waits, what is under way, what it may do. `due_at` is the earliest in the store."""

    key: Key
    on: bool = True
    health: Health = HEALTHY
    interval_us: int = 0
    due_at: int | None = None
    in_flight: int = 0  # places that are taken
    ahead: int = 0  # claimed without a place
    may_stock: bool = True  # whether an attempt leaves time in its lease to wait for a place
    depth: int = field(default_factory=lambda: AHEAD_MAX)  # as many may be ahead, by what has got a place in time
    in_time: int = 0  # how many have, since `depth` has changed
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
        waits_from = 0 if self.ahead else self.due_at
        if waits_from is None or not self.sends:
            return None
        return max(waits_from, self.health.sends_after, self.paced_at)

    def places(self) -> int:
        """How many more may be under way."""
        one = self.health.state is HealthState.FAILING or self.interval_us
        return max((1 if one else self.window) - self.in_flight, 0)

    @property
    def keeps_stock(self) -> bool:
        """Whether what is claimed ahead may stay: nothing holds it, and nothing paces it."""
        return self.may_stock and self.is_open and not self.interval_us

    @property
    def is_fast(self) -> bool:
        """Whether more may be claimed than have a place: its window is at its widest, and its receiver quick."""
        return self.quick and self.window == WINDOW_MAX and self.keeps_stock

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

    def was_in_time(self) -> None:
        """Let more be claimed ahead when as many as may be have got a place in time."""
        self.in_time += 1
        if self.in_time >= self.depth:
            self.depth, self.in_time = min(self.depth + AHEAD_MORE, AHEAD_MAX), 0

    def was_late(self) -> None:
        """Let less be claimed ahead: some of it has got no place in time."""
        self.depth, self.in_time = max(self.depth // 2, 1), 0
