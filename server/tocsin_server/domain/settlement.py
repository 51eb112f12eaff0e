"""What becomes of a delivery after an attempt: pure, the caller gives the time and the chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tocsin_server.domain.health import HEALTHY, THROTTLE_MAX_S, Health
from tocsin_server.domain.notifications import Outcome, State
from tocsin_server.domain.verdicts import SECOND_US, Verdict

# Seconds between attempts: the schedule that Standard Webhooks suggests, 75.6 hours in all.
RETRY_SCHEDULE_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
RETRY_JITTER = 0.2  # so that what failed together does not come back together
OPEN_MAX_US = 7 * 24 * 3600 * SECOND_US  # an open delivery ends 7 days after it was routed
OUTAGE_FIRST_S = 5.0  # our own fault: tried again soon, then less and less often
OUTAGE_MAX_S = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """When a delivery is tried again: its configuration's own schedule or the usual one, and chance in [0, 1)."""

    jitter: float
    schedule_s: Sequence[int] = RETRY_SCHEDULE_S


@dataclass(frozen=True, slots=True)
class Settlement:
    """The state of a delivery after an attempt."""

    state: State
    reason: str
    due_at: int
    scheduled: int


def settle(
    outcome: Outcome, scheduled: int, attempt: int, now: int, plan: Plan, health: Health = HEALTHY
) -> Settlement:
    """Decide what follows an attempt, with the health of the receiver as it is after it.

    `scheduled` is how many attempts of the schedule are used, `attempt` the attempt's number.
    """
    if outcome.verdict is Verdict.DELIVERED:
        return Settlement(State.DELIVERED, "", now, scheduled + 1)
    if outcome.verdict is Verdict.PERMANENT:
        return Settlement(State.EXHAUSTED, outcome.reason or "PERMANENT", now, scheduled + 1)
    if outcome.verdict is Verdict.GONE:
        return Settlement(State.CANCELLED, "GONE", now, scheduled + 1)
    if outcome.verdict is Verdict.OUTAGE:
        wait_s = min(OUTAGE_FIRST_S * 2.0 ** min(max(attempt - scheduled - 1, 0), 16), OUTAGE_MAX_S)
        return Settlement(State.RETRYING, "", now + int(wait_s * SECOND_US), scheduled)
    if health.pauses:
        return Settlement(State.PAUSED, health.pauses, now, scheduled)
    if outcome.verdict is Verdict.THROTTLED:
        return Settlement(State.RETRYING, "", max(health.sends_after, now + SECOND_US), scheduled)
    return _on_schedule(outcome, scheduled, now, plan)


def _on_schedule(outcome: Outcome, scheduled: int, now: int, plan: Plan) -> Settlement:
    if scheduled >= len(plan.schedule_s):
        return Settlement(State.EXHAUSTED, "ATTEMPTS", now, scheduled + 1)
    wait_s = plan.schedule_s[scheduled] * (1 + RETRY_JITTER * (2 * plan.jitter - 1))
    if outcome.retry_after_s is not None:
        wait_s = max(wait_s, min(outcome.retry_after_s, THROTTLE_MAX_S))
    return Settlement(State.RETRYING, "", now + int(wait_s * SECOND_US), scheduled + 1)
