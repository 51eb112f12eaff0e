"""Counting values by their size, cheaply enough for every call."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# From half a millisecond to a minute: what a call, a run or a held-up loop may take.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Histogram:
    """How many values are at most as large as each bound, and their sum; written by one thread, read by any."""

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def saw(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[int]:
        """Give for each bound, and last for all, how many values are at most as large."""
        found, sum_ = [], 0
        for count in list(self._counts):
            sum_ += count
            found.append(sum_)
        return found
