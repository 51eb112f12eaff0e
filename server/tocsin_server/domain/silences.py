"""Silences: events that are not told for a while, and why.

A silence is judged when an event is routed, against the time at which it was stored: who was told before
is not untold, and what was silenced is not told later but by hand. The log has a notice when a silence
starts and when it ends; these notices are never silenced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tocsin_server.domain.event_log import OWN_SERVICE, EventHead, OwnEvent
from tocsin_server.domain.selection import EventFilter, Matcher
from tocsin_server.domain.variables import time_text

SILENCES_MAX = 1000  # per account, ended ones included
DELETED_MAX = 9000  # per account, of the last 30 days: older events are still judged by them
SILENCE_KEPT_US = 30 * 24 * 3600 * 1_000_000  # after its end: the router may be behind, and people look back
SILENCE_LENGTH_MAX_US = 366 * 24 * 3600 * 1_000_000
STARTED, ENDED = "system.notifications.silence_started", "system.notifications.silence_ended"
NOTICES = frozenset((STARTED, ENDED))
RESOURCE = "silence"


class SilenceState(StrEnum):
    """Whether a silence is still to come, holds, or is over."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Silence:
    """Keeps events that its filter means from being told in [starts_at, ends_at), microseconds.

    A deleted one is gone for people; what was stored while it held is judged by it all the same.
    """

    account: str
    id: str
    filter: EventFilter
    starts_at: int
    ends_at: int
    author: str
    comment: str
    created_at: int = 0
    updated_at: int = 0
    deleted: bool = False

    def state(self, now: int) -> SilenceState:
        """Say how it stands."""
        if now < self.starts_at:
            return SilenceState.PENDING
        return SilenceState.ACTIVE if now < self.ends_at else SilenceState.ENDED

    def notice(self, event_type: str, reason: str = "") -> OwnEvent:
        """Make the event that tells of its start or its end."""
        started = event_type == STARTED
        until = f" until {time_text(self.ends_at)}" if started else ""
        text = f"A silence of {self.author} {'has started' if started else 'has ended'}{until}: {self.comment}"
        details: dict[str, object] = {
            "silence_id": self.id,
            "author": self.author,
            "comment": self.comment,
            "start_time": time_text(self.starts_at),
            "end_time": time_text(self.ends_at),
        }
        if not started:
            details["reason"] = reason
        return OwnEvent(self.account, event_type, text, details, resource_type=RESOURCE, resource_id=self.id)


QUICK_MAX = 20  # silences of an account that are asked in a tenth of a millisecond


class Silences:
    """The silences of all accounts, ready to be asked about events."""

    def __init__(self, silences: Iterable[Silence] = ()) -> None:
        found: defaultdict[str, list[tuple[Silence, Matcher]]] = defaultdict(list)
        for silence in silences:
            found[silence.account].append((silence, silence.filter.matcher()))
        self._by_account: Mapping[str, list[tuple[Silence, Matcher]]] = dict(found)

    def are_quick(self, account: str, created_at: int) -> bool:
        """Tell whether those of an account are few, and ask for nothing but the head of an event stored at a time."""
        held = self._by_account.get(account, ())
        return len(held) <= QUICK_MAX and not any(
            silence.filter.where and silence.starts_at <= created_at < silence.ends_at for silence, _ in held
        )

    def silencing(self, account: str, created_at: int, head: EventHead, frame: bytes) -> Silence | None:
        """Give the silence that keeps an event, stored at a time, from an account's configurations."""
        held = self._by_account.get(account)
        if not held or (head.type in NOTICES and head.service == OWN_SERVICE):
            return None
        for silence, matches in held:
            if silence.starts_at <= created_at < silence.ends_at and matches(head, frame):
                return silence
        return None


NO_SILENCES = Silences()
