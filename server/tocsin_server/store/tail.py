"""The newest events in memory, shared by everybody who follows the log.

The writer's thread adds what it has committed; readers on event loops are woken and take it from
here, or from the store when they are further behind. Bounded: a reader that falls behind costs
nothing here.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from tocsin_server.domain.event_log import Stored

Wake = Callable[[Sequence[int]], None]
EVERYBODY = ""  # the horizon that holds for all accounts
_position = attrgetter("position")
RING_EVENTS_MAX = 10_000  # a second or two of the fastest appends
RING_BYTES_MAX = 32 * 1024 * 1024


class Tail:
    """A bounded ring of the newest events: complete from `floor` (exclusive) to `head`."""

    def __init__(self, head: int, horizons: Mapping[str, int] | None = None) -> None:
        self._horizons: dict[str, int] = dict(horizons or {})
        self._lock = threading.Lock()
        self._ring: deque[Stored] = deque()
        self._bytes = 0
        self._listeners: list[tuple[asyncio.AbstractEventLoop, Wake, Callable[[], bool]]] = []
        self.head = head
        self.floor = head
        self.deleted = 0  # events that were deleted since this began

    def listen(self, loop: asyncio.AbstractEventLoop, wake: Wake, wants: Callable[[], bool] = lambda: True) -> None:
        """Have `wake(deleted positions)` called on `loop` after each commit, while `wants()` says so."""
        with self._lock:
            self._listeners.append((loop, wake, wants))

    def raise_horizon(self, account: str, position: int) -> None:
        """Say that retention is about to delete what an account (EVERYBODY: any) has before a position."""
        with self._lock:
            self._horizons[account] = max(position, self._horizons.get(account, 0))

    def horizon(self, account: str | None) -> int:
        """Give the oldest position that an account (None: one that reads all accounts) can still read."""
        with self._lock:
            if account is None:
                return max(self._horizons.values(), default=1)
            return max(self._horizons.get(account, 1), self._horizons.get(EVERYBODY, 1))

    def commit(self, stored: Sequence[Stored], deleted: Sequence[int]) -> None:
        """Take over what a transaction has committed; called on the writer's thread."""
        with self._lock:
            if stored:
                self.head = stored[-1].position  # also when the newest event is deleted in the same commit
            if deleted:
                self.deleted += len(deleted)
                gone = set(deleted)
                self._ring = deque(event for event in self._ring if event.position not in gone)
                self._bytes = sum(len(event.frame) for event in self._ring)
                stored = [event for event in stored if event.position not in gone]
            for event in stored:
                self._ring.append(event)
                self._bytes += len(event.frame)
            while len(self._ring) > RING_EVENTS_MAX or self._bytes > RING_BYTES_MAX:
                oldest = self._ring.popleft()
                self._bytes -= len(oldest.frame)
                self.floor = oldest.position
            listeners = list(self._listeners)
        for loop, wake, wants in listeners:
            if wants() and not loop.is_closed():
                loop.call_soon_threadsafe(wake, deleted)

    def frame_at(self, position: int) -> bytes | None:
        """Give the stored event at a position, if it is among the newest and not deleted."""
        with self._lock:
            place = bisect_left(self._ring, position, key=_position)
            if place < len(self._ring) and (event := self._ring[place]).position == position:
                return event.frame
        return None

    def after(self, position: int, limit: int) -> list[Stored] | None:
        """Give up to `limit` events after a position, or None when the ring does not reach back to it."""
        with self._lock:
            if position < self.floor:
                return None
            found: list[Stored] = []
            for event in reversed(self._ring):
                if event.position <= position:
                    break
                found.append(event)
        found.reverse()
        return found[:limit]
