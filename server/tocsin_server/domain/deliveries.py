"""Asking about deliveries: what is meant, what is answered, what may be done by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tocsin_server.domain.notifications import Delivery, State

RECOVERED_MAX = 10_000  # deliveries of one call
RECOVERABLE = frozenset((State.EXHAUSTED, State.CANCELLED, State.SILENCED))


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """Which deliveries are meant; what is empty is any. Times bound when they were routed: [since, until)."""

    account: str
    states: tuple[str, ...] = ()
    configuration_id: str = ""
    event_id: str = ""
    alert_id: str = ""
    error_classes: tuple[str, ...] = ()
    status_codes: tuple[str, ...] = ()
    since: int = 0
    until: int = 0


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """A page of deliveries; `scanned_to` is where the look for more was broken off, None when it was not."""

    deliveries: Sequence[Delivery]
    scanned_to: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class DeliverySums:
    """Promise P3: `routed = delivered + exhausted + cancelled + silenced + open`, over purges and restarts."""

    routed: int
    delivered: int
    exhausted: int
    cancelled: int
    silenced: int
    open: int


@dataclass(frozen=True, slots=True)
class DeliveryLine:
    """How many deliveries wait to be sent or sent again, and how many of them could be now."""

    waiting: int
    due: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many deliveries begin anew, and whether there may be more."""

    count: int
    more: bool
