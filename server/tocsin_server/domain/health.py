"""The health of a configuration's receiver, and what it means for its deliveries.

HEALTHY    sent
THROTTLED  nothing is sent until `until`: the receiver asked for it, or is overloaded
FAILING    one delivery is tried at `until`; of those that wait, CREDENTIALS and NOT_FOUND are paused
DISABLED   nothing is sent until a test passes
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HealthState(StrEnum):
    """What follows for the deliveries of a configuration."""

    HEALTHY = "HEALTHY"
    THROTTLED = "THROTTLED"
    FAILING = "FAILING"
    DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True)
class Health:
    """How a receiver does; times are microseconds, 0 where there is none.

    `failures` counts since the newest success, `broken` those of them that say that it cannot be reached
    or used now, `throttles` and `not_found` how often it asked to wait or answered 404 in a row.
    `told_at` is when the log was told of the failure, `told_percent` how far it was then.
    """

    state: HealthState = HealthState.HEALTHY
    reason: str = ""
    since: int = 0
    until: int = 0
    failures: int = 0
    first_failure_at: int = 0
    broken: int = 0
    throttles: int = 0
    not_found: int = 0
    told_at: int = 0
    told_percent: int = 0


HEALTHY = Health()
