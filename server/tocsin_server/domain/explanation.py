"""Why an event is told to a configuration or not: each selector, criterion by criterion.

Says the same as `Selector.matches`, which decides; a property test holds them equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tocsin_server.domain.event_log import OWN_SERVICE, EventHead, Level
from tocsin_server.domain.notifications import EndpointConfiguration
from tocsin_server.domain.selection import LEVEL_BY_NAME, Selector
from tocsin_server.domain.silences import Silences


@dataclass(frozen=True, slots=True)
class Missed:
    """A criterion of a selector that an event does not meet: what it wants, and what the event has."""

    criterion: str
    wanted: str
    found: str


class Fate(StrEnum):
    """What would become of an event at a configuration."""

    NOT_SELECTED = "NOT_SELECTED"
    SENT = "SENT"
    HELD = "HELD"
    PAUSED = "PAUSED"
    SILENCED = "SILENCED"
    GROUPED = "GROUPED"


@dataclass(frozen=True, slots=True)
class Subject:
    """An event as it is judged: where and since when it stands, its head and its stored form."""

    position: int
    created_at: int
    head: EventHead
    frame: bytes


@dataclass(frozen=True, slots=True)
class Explanation:
    """What today's rules say about an event and a configuration; `missed` has a list for each selector."""

    configuration: EndpointConfiguration
    endpoint_enabled: bool
    fate: Fate
    reason: str
    missed: Sequence[Sequence[Missed]]


def explain(
    configuration: EndpointConfiguration, endpoint_enabled: bool, subject: Subject, silences: Silences, now: int
) -> Explanation:
    """Say what would become of an event at a configuration, if it were routed now."""
    account = configuration.account
    found = [
        missed(selector, account, subject.position, subject.head, subject.frame) for selector in configuration.selectors
    ]
    silence = silences.silencing(account, subject.created_at, subject.head, subject.frame)
    fate, reason = _fate(configuration, endpoint_enabled, now) if silence is None else (Fate.SILENCED, silence.id)
    if fate in (Fate.SENT, Fate.HELD, Fate.PAUSED) and configuration.options.grouping is not None:
        fate = Fate.GROUPED  # and the digest is sent, held or paused
    if is_about(subject.head, configuration):
        fate, reason = Fate.NOT_SELECTED, "ABOUT_ITSELF"
    elif all(found):
        fate, reason = Fate.NOT_SELECTED, "" if found else "NO_SELECTORS"
    return Explanation(configuration, endpoint_enabled, fate, reason, found)


def _fate(configuration: EndpointConfiguration, endpoint_enabled: bool, now: int) -> tuple[Fate, str]:
    """Say what becomes of an event that is chosen."""
    health = configuration.health
    if not endpoint_enabled:
        return Fate.PAUSED, "ENDPOINT_DISABLED"
    if not configuration.enabled:
        return Fate.PAUSED, "DISABLED"
    if health.pauses:
        return Fate.PAUSED, health.pauses
    if health.sends_after > now:
        return Fate.HELD, health.reason
    return Fate.SENT, ""


def missed(selector: Selector, account: str, position: int, head: EventHead, frame: bytes) -> list[Missed]:
    """Give the criteria of a selector of `account` that an event does not meet; none means that it is chosen."""
    return list(_missed(selector, account, position, head, frame))


def _missed(selector: Selector, account: str, position: int, head: EventHead, frame: bytes) -> Iterator[Missed]:
    if selector.scope != "global" and head.account != account:
        yield Missed("scope", f"account {account}", head.account)
    if selector.level != "*" and LEVEL_BY_NAME[selector.level] != head.level:
        yield Missed("level", selector.level, Level(head.level).name.lower())
    if not selector.meets_type(head):
        note = f", an event of {OWN_SERVICE} itself: these need a type that begins with system."
        yield Missed("type", selector.type, head.type + (note if head.service == OWN_SERVICE else ""))
    if selector.resource_type not in ("*", head.resource_type):
        yield Missed("resource_type", selector.resource_type, head.resource_type)
    if selector.subtype not in ("", head.subtype):
        yield Missed("subtype", selector.subtype, head.subtype)
    if selector.service not in ("", head.service):
        yield Missed("service", selector.service, head.service)
    if position <= selector.after_position:
        yield Missed("after_position", f"events after position {selector.after_position}", str(position))
    if not selector.asks(frame, head.level):
        yield Missed("where", selector.where, "false, or cannot be asked about this event")


def is_about(head: EventHead, configuration: EndpointConfiguration) -> bool:
    """Tell whether tocsin itself wrote the event about the configuration: it is never told of that."""
    return head.service == OWN_SERVICE and head.resource_id == configuration.id
