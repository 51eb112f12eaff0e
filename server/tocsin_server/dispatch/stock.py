"""Stock: claimed deliveries that wait in memory for a place, by lane."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from tocsin_server.domain.lane import Key
from tocsin_server.domain.lanes import AHEAD_BYTES_MAX
from tocsin_server.domain.notifications import LEASE_S, Delivery
from tocsin_server.domain.ports import EndpointKind
from tocsin_server.domain.verdicts import SECOND_US

STOCKED_MAX_S = 15.0  # what has no place for so long goes back
LEASE_SPARE_S = 5.0  # of a lease, for the commits at its begin and end


class AgeLimits(NamedTuple):
    """How old a claim may be in stock and when it is sent, in microseconds: its attempt has to end within its lease."""

    in_stock_us: int
    at_begin_us: int

    @classmethod
    def of(cls, kind: EndpointKind) -> AgeLimits:
        """Give the limits of a kind of endpoint; none is for stock where attempts take nearly the whole lease."""
        left_s = LEASE_S - kind.attempt_max_s
        return cls(int(min(STOCKED_MAX_S, left_s - LEASE_SPARE_S) * SECOND_US), int(left_s * SECOND_US))


class Stocked(NamedTuple):
    """A claimed delivery with its stored event, if that is at hand, and when it was claimed.

    The time is not later than that from which its lease counts, and by the same clock.
    """

    row: Delivery
    frame: bytes | None
    claimed_at: int


class Stock:
    """The deliveries of each lane in the order in which they were claimed."""

    def __init__(self) -> None:
        self._by_lane: dict[Key, deque[Stocked]] = {}  # none is empty

    def __contains__(self, key: Key) -> bool:
        return key in self._by_lane

    def __bool__(self) -> bool:
        return bool(self._by_lane)

    @property
    def keys(self) -> list[Key]:
        """The lanes that have something in stock."""
        return list(self._by_lane)

    def add(self, key: Key, claimed: Stocked) -> None:
        """Put a delivery behind those of its lane, without an event that takes much memory."""
        if claimed.frame is not None and len(claimed.frame) > AHEAD_BYTES_MAX:
            claimed = claimed._replace(frame=None)
        self._by_lane.setdefault(key, deque()).append(claimed)

    def oldest_at(self, key: Key) -> int:
        """Tell when the oldest of a lane that has some was claimed."""
        return self._by_lane[key][0].claimed_at

    def pop(self, key: Key) -> Stocked:
        """Take the oldest of a lane that has some."""
        of_lane = self._by_lane[key]
        claimed = of_lane.popleft()
        if not of_lane:
            del self._by_lane[key]
        return claimed

    def take(self, key: Key) -> list[Delivery]:
        """Take all of a lane."""
        return [claimed.row for claimed in self._by_lane.pop(key, ())]
