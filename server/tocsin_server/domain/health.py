"""The health of a configuration's receiver, and what it means for its deliveries.

    HEALTHY    sent
    THROTTLED  nothing is sent until `until`: the receiver asked for it, or is overloaded
    FAILING    one delivery is tried at `until`; of those that wait, CREDENTIALS and NOT_FOUND are paused
    DISABLED   nothing is sent until a test passes

The transitions are pure: the caller gives the time, and keeps what comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from tocsin_server.domain.verdicts import NOT_FOUND_IN_A_ROW, SECOND_US, ErrorClass, Verdict

BREAKER_FAILURES = 5  # in a row: then one delivery at a time finds out whether it works again
PROBE_FIRST_S = 5.0  # a receiver that restarts is back by then
PROBE_MAX_S = 900.0
PAUSED_PROBE_S = 3600.0  # a person has to do something; until then it is asked once an hour
THROTTLE_DEFAULT_S = 60.0  # a receiver that asks to wait and does not say how long; doubled each time
THROTTLE_FLOOR_MAX_S = 600.0  # one that asks for no wait again and again is asked less and less often
THROTTLE_MAX_S = 24 * 3600.0  # nobody may hold deliveries longer than this at a time
OVERLOAD_FIRST_S = 10.0
OVERLOAD_MAX_S = 60.0
DISABLED_AFTER_US = 5 * 24 * 3600 * SECOND_US
DISABLED_FAILURES_MIN = 10  # two failures with nothing between them for five days say little
TOLD_PERCENTS = (90, 70, 50)  # how far the five days are when the log is told again
TOLD_EVERY_US = 3600 * SECOND_US  # a receiver that fails now and then is not told of each time
UNTOLD = -1
OUR_FAULTS = frozenset((ErrorClass.RENDER, ErrorClass.INTERNAL))
DOUBLINGS_MAX = 20
PAUSING = frozenset(("CREDENTIALS", "NOT_FOUND"))


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
    `told_at` is when the log was told of failures, `told_percent` how far these were then.
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
    told_percent: int = UNTOLD

    @property
    def pauses(self) -> str:
        """Why deliveries that wait are PAUSED; empty when they are not."""
        if self.state is HealthState.DISABLED:
            return self.reason
        return self.reason if self.state is HealthState.FAILING and self.reason in PAUSING else ""

    @property
    def is_well(self) -> bool:
        """Whether one more success changes nothing."""
        return self.state is HealthState.HEALTHY and not self.failures and not self.throttles

    @property
    def sends_after(self) -> int:
        """When an attempt may be made."""
        return self.until if self.state in (HealthState.THROTTLED, HealthState.FAILING) else 0


HEALTHY = Health()


class Told(StrEnum):
    """What the log is told about a receiver."""

    FAILING = "FAILING"
    DISABLED = "DISABLED"
    RECOVERED = "RECOVERED"


@dataclass(frozen=True, slots=True)
class Sign:
    """What an attempt says about the receiver."""

    verdict: Verdict
    error_class: ErrorClass
    wait_s: float | None = None

    @property
    def named(self) -> str:
        """What the receiver's health calls it."""
        return str(self.error_class or self.verdict)


def observe(health: Health, sign: Sign, now: int) -> Health:
    """Give the health after an attempt."""
    if sign.verdict is Verdict.DELIVERED:
        return _well(health, now)
    if sign.verdict is Verdict.OUTAGE or sign.error_class in OUR_FAULTS:
        return health  # nothing was learnt about the receiver
    if sign.verdict is Verdict.GONE:
        return _turned(_failed(health, now), HealthState.DISABLED, "GONE", now, 0)
    if health.state is HealthState.DISABLED:
        return health  # the end of an attempt that was under way
    if sign.verdict is Verdict.THROTTLED:
        return _throttled(health, sign, now)
    return _worn_out(_bad(_failed(health, now), sign, now), now)


def _well(health: Health, now: int) -> Health:
    if health.is_well:
        return health
    return Health(since=now, told_at=health.told_at)


def _failed(health: Health, now: int) -> Health:
    return replace(health, failures=health.failures + 1, first_failure_at=health.first_failure_at or now)


def _turned(health: Health, state: HealthState, reason: str, now: int, until: int) -> Health:
    since = health.since if (state, reason) == (health.state, health.reason) else now
    return replace(health, state=state, reason=reason, since=since, until=until)


def _doubled(first_s: float, times: int, most_s: float) -> float:
    return min(first_s * 2.0 ** min(times, DOUBLINGS_MAX), most_s)


def _throttled(health: Health, sign: Sign, now: int) -> Health:
    """Hold the configuration; those that were under way together count as one."""
    again = health.state is HealthState.THROTTLED and now < health.until
    throttles = health.throttles if again else health.throttles + 1
    asked = sign.wait_s if sign.wait_s is not None else _doubled(THROTTLE_DEFAULT_S, throttles - 1, THROTTLE_MAX_S)
    least = _doubled(1.0, throttles - 1, THROTTLE_FLOOR_MAX_S)
    until = now + int(min(max(asked, least), THROTTLE_MAX_S) * SECOND_US)
    held = _turned(health, HealthState.THROTTLED, "THROTTLED", now, max(until, health.until if again else 0))
    return replace(held, throttles=throttles, broken=0)


def _bad(health: Health, sign: Sign, now: int) -> Health:
    """Judge a failure that counts."""
    if sign.verdict is Verdict.PERMANENT:  # it can be reached, and refuses this one message
        return replace(_turned(health, HealthState.HEALTHY, "", now, 0), broken=0, not_found=0)
    not_found = health.not_found + 1 if sign.error_class is ErrorClass.NOT_FOUND else 0
    health = replace(health, not_found=not_found)
    if sign.verdict is Verdict.CONFIGURATION and (not not_found or not_found >= NOT_FOUND_IN_A_ROW):
        until = now + int(PAUSED_PROBE_S * SECOND_US)
        return replace(_turned(health, HealthState.FAILING, sign.named, now, until), broken=0)
    return _broken(health, sign, now)


def _broken(health: Health, sign: Sign, now: int) -> Health:
    if health.state is HealthState.FAILING and now < health.until:
        return health  # it was under way before: not another probe
    if health.state is HealthState.FAILING and health.reason in PAUSING:
        return replace(health, until=now + int(PAUSED_PROBE_S * SECOND_US))  # says nothing about the repair
    health = replace(health, broken=health.broken + 1)
    if health.broken >= BREAKER_FAILURES:
        wait_s = _doubled(PROBE_FIRST_S, health.broken - BREAKER_FAILURES, PROBE_MAX_S)
        wait_s = max(wait_s, min(sign.wait_s or 0.0, THROTTLE_MAX_S))
        return _turned(health, HealthState.FAILING, sign.named, now, now + int(wait_s * SECOND_US))
    if sign.wait_s is not None or sign.error_class is ErrorClass.OVERLOADED:
        slowed_s = _doubled(OVERLOAD_FIRST_S, health.broken - 1, OVERLOAD_MAX_S)
        wait_s = slowed_s if sign.wait_s is None else min(max(sign.wait_s, 1.0), THROTTLE_MAX_S)
        return _turned(health, HealthState.THROTTLED, "OVERLOADED", now, now + int(wait_s * SECOND_US))
    if health.state is HealthState.THROTTLED and now >= health.until:
        return _turned(health, HealthState.HEALTHY, "", now, 0)
    return health


def _worn_out(health: Health, now: int) -> Health:
    if health.failures < DISABLED_FAILURES_MIN or now - health.first_failure_at < DISABLED_AFTER_US:
        return health
    return _turned(health, HealthState.DISABLED, "FAILURES", now, 0)


def tell(before: Health, after: Health, now: int) -> tuple[Health, Told | None]:
    """Say what the log is told of a change, and give the health that remembers it."""
    if after.failures == 0:
        failed = before.state in (HealthState.FAILING, HealthState.DISABLED)
        return after, Told.RECOVERED if failed else None
    if after.state is HealthState.DISABLED:
        new = before.state is not HealthState.DISABLED
        return replace(after, told_at=now, told_percent=100) if new else after, Told.DISABLED if new else None
    percent = _percent(after, now)
    if after.told_percent == UNTOLD:
        if before.failures == after.failures or (after.told_at and now - after.told_at < TOLD_EVERY_US):
            return after, None
    elif percent <= after.told_percent:
        return after, None
    return replace(after, told_at=now, told_percent=percent), Told.FAILING


def _percent(health: Health, now: int) -> int:
    """Give how far the five days are, as far as the log is told of it."""
    passed = (now - health.first_failure_at) * 100 // DISABLED_AFTER_US
    return next((percent for percent in TOLD_PERCENTS if passed >= percent), 0)
