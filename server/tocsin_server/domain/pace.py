"""How fast a line gets shorter, and when it will be empty."""

from __future__ import annotations

import math
from collections import deque

WINDOW_S = 60.0


class Pace:
    """Looks at a count that rises, now and then; its rate is that of the last minute, or since the first look."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._looks: deque[tuple[float, int]] = deque()

    def look(self, now: float, count: int) -> None:
        """Take in the count of a moment; `now` is a time of `Runtime.monotonic`."""
        self._looks.append((now, count))
        # One look from before the window stays: the rate is that of the whole window.
        while len(self._looks) > 1 and self._looks[1][0] <= now - self._window_s:
            self._looks.popleft()

    @property
    def rate(self) -> float:
        """How much the count has risen in a second."""
        if not self._looks:
            return 0.0
        (began, first), (now, last) = self._looks[0], self._looks[-1]
        return (last - first) / (now - began) if now > began else 0.0

    def seconds_for(self, waiting: int) -> float:
        """Say how long a line will take at this rate: 0 when it is empty, infinity when nothing moves."""
        if not waiting:
            return 0.0
        return waiting / self.rate if self.rate > 0 else math.inf
