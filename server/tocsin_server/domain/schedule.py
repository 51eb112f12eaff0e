"""When alerts run: durations, the phase of an interval, the tick that is due.

All times are microseconds since 1970 UTC. An alert's ticks lie at a phase of its own within the
interval, so that ten thousand alerts of one minute do not all run at the full minute. Nothing here
reads a clock.

    next_run_at    run?         scheduled at                          next
    in the future  no
    due            yes          the newest tick that is due: what     the first tick after it
                                was missed before it is one gap
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

SECOND_US = 1_000_000
INTERVAL_MAX_US = 365 * 24 * 3600 * SECOND_US

DURATION_PATTERN = "[1-9][0-9]*[smhd]"
_DURATION = re.compile(r"([1-9][0-9]{0,9})([smhd])", re.ASCII)
_UNIT_US = {"s": SECOND_US, "m": 60 * SECOND_US, "h": 3600 * SECOND_US, "d": 24 * 3600 * SECOND_US}


class DurationError(ValueError):
    """A text that is no duration."""


def duration_us(text: str) -> int:
    """Read a number and one of s, m, h, d, at most 365 days, as microseconds."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise DurationError(
            f'Invalid duration "{text}". Durations must be of the form {{number}}x. Example: 5s, 5m, 5h or 5d'
        )
    value = int(match[1]) * _UNIT_US[match[2]]
    if value > INTERVAL_MAX_US:
        raise DurationError(f'Invalid duration "{text}". Durations are at most 365d')
    return value


@dataclass(frozen=True, slots=True)
class Due:
    """One run that is to begin: the time it stands for, and how many ticks before it were missed."""

    scheduled_at: int
    missed: int


@dataclass(frozen=True, slots=True)
class Ticks:
    """The times at which one alert runs: `phase`, and every `interval` from there."""

    interval: int
    phase: int

    @classmethod
    def of(cls, alert_id: str, interval: int) -> Ticks:
        """Give the ticks of an alert: the phase is a hash of its id, so it survives restarts."""
        digest = hashlib.sha256(alert_id.encode()).digest()
        return cls(interval, int.from_bytes(digest[:8], "big") % interval)

    def newest(self, now: int) -> int:
        """Give the newest tick that is not after `now`."""
        return now - (now - self.phase) % self.interval

    def after(self, time: int) -> int:
        """Give the first tick after a time."""
        return self.newest(time) + self.interval

    def due(self, next_run_at: int, now: int) -> Due | None:
        """Give the run that is to begin now, if any. However much was missed, it is one run."""
        if now < next_run_at:
            return None
        scheduled_at = max(next_run_at, self.newest(now))
        return Due(scheduled_at, -((next_run_at - scheduled_at) // self.interval))
