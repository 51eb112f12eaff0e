"""How the calls of each method have ended, and how long those took that answer once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tocsin_server.domain.histograms import Histogram


class Handled:
    """The calls of one method, on one event loop; streams last as long as they like and are not timed."""

    __slots__ = ("_monotonic", "codes", "durations", "name")

    def __init__(self, name: str, is_timed: bool, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.name = name
        self.codes: Counter[str] = Counter()
        self.durations = Histogram() if is_timed else None

    def ended(self, code: str, began: float) -> None:
        """Count a call that began at a time of `Runtime.monotonic`."""
        self.codes[code] += 1
        if self.durations is not None:
            self.durations.saw(self._monotonic() - began)
