"""Deliveries: what is sent to whom, and how a delivery goes from one state to the next.

    PENDING --claim--> SENDING --settle--> DELIVERED | EXHAUSTED | CANCELLED     (final)
       ^                  |  +-----------> RETRYING --claim--> SENDING ...
       |                  +--------------> PAUSED  (endpoint or configuration is off)
       +---- on again ------------------------+

A claim is a lease with an attempt number; every later write carries that number. The transitions are
pure: the caller gives the time and the chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from tocsin_server.domain.event_log import Event
from tocsin_server.domain.health import HEALTHY, Health
from tocsin_server.domain.options import DEFAULT, DeliveryOptions
from tocsin_server.domain.selection import Selector

SECOND_US = 1_000_000
# Seconds between attempts: the schedule that Standard Webhooks suggests, 75.6 hours in all.
RETRY_SCHEDULE_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
RETRY_JITTER = 0.2  # so that what failed together does not come back together
THROTTLE_DEFAULT_S = 60.0  # a receiver that asks to wait and does not say how long
THROTTLE_FLOOR_MAX_S = 600.0  # bounds the attempts of a delivery whose receiver never stops asking to wait
ATTEMPTS_SHOWN_MAX = 100  # newest attempts in one answer: 4 KiB each stay far below a message's limit
THROTTLE_MAX_S = 24 * 3600.0  # nobody may hold a delivery longer than this at a time
IN_FLIGHT_MAX = 64
IN_FLIGHT_PER_CONFIGURATION = 8  # a receiver that hangs for the whole deadline leaves the others room
LEASE_S = 45.0  # longer than any attempt may take: a lease that ended means a dead sender
SEND_DEADLINE_S = 15.0  # of one attempt, from the name's look-up to the last byte
OPEN_MAX_US = 7 * 24 * 3600 * SECOND_US  # an open delivery ends 7 days after it was routed
EXCERPT_BYTES_MAX = 4096
SELECTORS_MAX = 64
CONFIGURATIONS_MAX = 10_000  # per account


class State(StrEnum):
    """What became of a delivery."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    RETRYING = "RETRYING"
    DELIVERED = "DELIVERED"
    EXHAUSTED = "EXHAUSTED"
    CANCELLED = "CANCELLED"
    PAUSED = "PAUSED"


FINAL = frozenset({State.DELIVERED, State.EXHAUSTED, State.CANCELLED})


class Verdict(StrEnum):
    """How one attempt ended."""

    DELIVERED = "DELIVERED"
    RETRY = "RETRY"
    THROTTLED = "THROTTLED"
    PERMANENT = "PERMANENT"
    GONE = "GONE"


@dataclass(frozen=True, slots=True)
class EndpointConfiguration:
    """One receiver and the events that it is told about. Secrets in `connection` are in the clear."""

    id: str
    account: str
    kind: str
    name: str
    description: str
    enabled: bool
    connection: Mapping[str, Any]
    selectors: tuple[Selector, ...]
    options: DeliveryOptions = DEFAULT
    health: Health = HEALTHY
    version: int = 0
    created_at: int = 0
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A kind of receiver and its system-wide switch."""

    kind: str
    enabled: bool
    description: str
    required_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecipientVerdict:
    """How the message went to one of several receivers."""

    recipient: str
    verdict: Verdict
    status_code: int = 0
    response_excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended, as the endpoint's kind judged it."""

    verdict: Verdict
    status_code: int = 0
    response_excerpt: str = ""
    error: str = ""
    retry_after_s: float | None = None
    recipients: tuple[RecipientVerdict, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one configuration. `content` holds the rendered params of an alert's action."""

    account: str
    id: str
    route_key: str
    configuration_id: str
    kind: str
    state: State
    created_at: int
    due_at: int
    event_position: int = 0
    event_id: str = ""
    alert_id: str = ""
    subject: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    attempt: int = 0
    scheduled: int = 0
    recipients: tuple[RecipientVerdict, ...] = ()
    correlation_id: str = ""
    request_id: str = ""
    traceparent: str = ""
    ended_at: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to send a delivery."""

    number: int
    started_at: int
    duration_us: int | None
    verdict: str
    status_code: int
    response_excerpt: str
    error: str
    next_attempt_at: int


@dataclass(frozen=True, slots=True)
class Message:
    """What an endpoint is given to send: an event, an alert's action with its rendered params, or a test."""

    delivery_id: str
    sent_at: int
    event: Event | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    subject: Mapping[str, Any] = field(default_factory=dict)
    done_recipients: tuple[RecipientVerdict, ...] = ()
    ui_url: str = ""
    options: DeliveryOptions = DEFAULT


@dataclass(frozen=True, slots=True)
class Settlement:
    """The state of a delivery after an attempt."""

    state: State
    reason: str
    due_at: int
    scheduled: int


@dataclass(slots=True)
class Room:
    """How many more deliveries may be sent now: in all, and to each configuration.

    A receiver that hangs takes its own places and nobody else's.
    """

    left: int
    taken: Counter[tuple[str, str]]

    def take(self, configuration: tuple[str, str]) -> bool:
        """Take a place for a configuration (account, id) if there is one."""
        if self.left <= 0 or self.taken[configuration] >= IN_FLIGHT_PER_CONFIGURATION:
            return False
        self.left -= 1
        self.taken[configuration] += 1
        return True

    def full(self) -> list[tuple[str, str]]:
        """Give the configurations that have no place left."""
        return [key for key, count in self.taken.items() if count >= IN_FLIGHT_PER_CONFIGURATION]


def settle(outcome: Outcome, scheduled: int, attempt: int, now: int, jitter: float) -> Settlement:
    """Decide what follows an attempt; `scheduled` is how many attempts of the schedule are used, `attempt` its number.

    A receiver that asks to wait again and again is asked less and less often, whatever it says.
    """
    if outcome.verdict is Verdict.DELIVERED:
        return Settlement(State.DELIVERED, "", now, scheduled + 1)
    if outcome.verdict is Verdict.PERMANENT:
        return Settlement(State.EXHAUSTED, outcome.reason or "PERMANENT", now, scheduled + 1)
    if outcome.verdict is Verdict.GONE:
        return Settlement(State.CANCELLED, "GONE", now, scheduled + 1)
    if outcome.verdict is Verdict.THROTTLED:
        wait = outcome.retry_after_s if outcome.retry_after_s is not None else THROTTLE_DEFAULT_S
        least = min(2.0 ** min(max(attempt - scheduled - 1, 0), 16), THROTTLE_FLOOR_MAX_S)
        wait = min(max(wait, least), THROTTLE_MAX_S)
        return Settlement(State.RETRYING, "", now + int(wait * SECOND_US), scheduled)
    if scheduled >= len(RETRY_SCHEDULE_S):
        return Settlement(State.EXHAUSTED, "ATTEMPTS", now, scheduled + 1)
    wait = RETRY_SCHEDULE_S[scheduled] * (1 + RETRY_JITTER * (2 * jitter - 1))
    if outcome.retry_after_s is not None:
        wait = max(wait, min(outcome.retry_after_s, THROTTLE_MAX_S))
    return Settlement(State.RETRYING, "", now + int(wait * SECOND_US), scheduled + 1)


def resumed(created_at: int, now: int, paused_max_age_us: int) -> tuple[State, str]:
    """Decide what becomes of a paused delivery when its endpoint is on again."""
    if now - created_at > paused_max_age_us:
        return State.CANCELLED, "EXPIRED"
    return State.PENDING, ""


def renewed(old: Sequence[Selector], wanted: Sequence[Selector], head: int) -> tuple[Selector, ...]:
    """Stamp selectors at their commit: those that were there keep their position, others begin at the head."""
    known = {selector.criteria(): selector.after_position for selector in old}
    return tuple(replace(selector, after_position=known.get(selector.criteria(), head)) for selector in wanted)


def masked(secret: str) -> str:
    """Show a secret: never more than its last four characters, and those only of long ones."""
    if not secret:
        return ""
    return "****" + (secret[-4:] if len(secret) >= 16 else "")


def kept(given: str, old: str) -> str:
    """Give the secret that a write means: the very string that was shown keeps the old one."""
    return old if given and given == masked(old) else given
