"""Deliveries: what is sent to whom, and how a delivery goes from one state to the next.

    PENDING --claim--> SENDING --settle--> DELIVERED | EXHAUSTED | CANCELLED     (final)
       ^                  |  +-----------> RETRYING --claim--> SENDING ...
       |                  +--------------> PAUSED  (endpoint or configuration is off, or at fault)
       +---- on again ------------------------+

A claim is a lease with an attempt number; every later write carries that number. What follows from an
attempt is in `verdicts.py`, `health.py` and `settlement.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from tocsin_server.domain.event_log import Event
from tocsin_server.domain.grouping import Group
from tocsin_server.domain.health import HEALTHY, Health
from tocsin_server.domain.navigation import Place
from tocsin_server.domain.options import DEFAULT, DeliveryOptions
from tocsin_server.domain.selection import Selector
from tocsin_server.domain.verdicts import ErrorClass, Verdict

ATTEMPTS_SHOWN_MAX = 100  # newest attempts in one answer: 4 KiB each stay far below a message's limit
LEASE_S = 45.0  # longer than any attempt may take: a lease that ended means a dead sender
SEND_DEADLINE_S = 15.0  # of one attempt, from the name's look-up to the last byte
EXCERPT_BYTES_MAX = 4096
SELECTORS_MAX = 64
CONFIGURATIONS_MAX = 10_000  # per account
NOTHING: Mapping[str, Any] = {}  # what has none shares it: nobody writes to it
# Delivery, Message and Outcome are made anew for every attempt, as named tuples: a frozen dataclass of as many fields
# costs four times as much.


class State(StrEnum):
    """What became of a delivery."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    RETRYING = "RETRYING"
    DELIVERED = "DELIVERED"
    EXHAUSTED = "EXHAUSTED"
    CANCELLED = "CANCELLED"
    PAUSED = "PAUSED"
    SILENCED = "SILENCED"
    GROUPED = "GROUPED"


FINAL = frozenset({State.DELIVERED, State.EXHAUSTED, State.CANCELLED, State.SILENCED})


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


class Outcome(NamedTuple):
    """How one attempt ended, as the endpoint's kind judged it."""

    verdict: Verdict
    status_code: int = 0
    response_excerpt: str = ""
    error: str = ""
    retry_after_s: float | None = None
    recipients: tuple[RecipientVerdict, ...] = ()
    reason: str = ""
    error_class: ErrorClass = ErrorClass.NONE


class Delivery(NamedTuple):
    """One message to one configuration. `content` holds the rendered params of an alert's action.

    One that is GROUPED is told by the digest `digest_id`; `group` says into which it is to be gathered and is
    not stored.
    """

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
    subject: Mapping[str, Any] = NOTHING
    content: Mapping[str, Any] = NOTHING
    reason: str = ""
    attempt: int = 0
    scheduled: int = 0
    recipients: tuple[RecipientVerdict, ...] = ()
    correlation_id: str = ""
    request_id: str = ""
    traceparent: str = ""
    ended_at: int = 0
    status_code: int = 0
    error_class: ErrorClass = ErrorClass.NONE
    digest_id: str = ""
    group: Group | None = None


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
    error_class: str = ""


class Message(NamedTuple):
    """What an endpoint is given to send: an event, an alert's action with its rendered params, or a test.

    A digest has `events`; of those that it gathered, `missing` cannot be read any more.
    """

    delivery_id: str
    sent_at: int
    event: Event | None = None
    events: tuple[Event, ...] = ()
    missing: int = 0
    params: Mapping[str, Any] = NOTHING
    subject: Mapping[str, Any] = NOTHING
    done_recipients: tuple[RecipientVerdict, ...] = ()
    ui_url: str = ""
    docs_url: str = ""
    options: DeliveryOptions = DEFAULT

    @property
    def alert_link(self) -> str:
        """Where the alert is shown that this tells of: its navigation, else `ui_url`; empty when that is not set."""
        if not self.subject.get("alert_id"):
            return ""
        return Place.of(self.ui_url, str(self.subject.get("navigation", ""))).link


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
