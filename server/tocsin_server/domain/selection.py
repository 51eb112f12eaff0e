"""Which events are meant: filters, globs, and an index over the selectors of all configurations.

One meaning serves listing, subscribing, deleting, routing and alerting. Here it is a predicate over
`EventHead`; `store/selection.py` says the same in SQL, and a property test holds them equal. A filter's
`where` needs the whole event and is asked last, in either case by `domain/where.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from tocsin_server.domain import where
from tocsin_server.domain.event_log import OWN_SERVICE, EventHead, Level

HEADS_REMEMBERED_MAX = 10_000  # some MiB at the most
QUICK_MAX = 100  # selectors; more are not looked through to count them
Predicate = Callable[[EventHead], bool]
Matcher = Callable[[EventHead, bytes], bool]


@lru_cache(maxsize=4096)
def glob(pattern: str) -> Callable[[str], bool]:
    """Compile a type pattern: `*` is any run of characters, dots included; all else is literal.

    Linear: between prefix and suffix the first place of each part is as good as any later one, so there
    is no backtracking. A regular expression would take minutes for eight stars.
    """
    if not is_glob(pattern):
        return pattern.__eq__
    first, *middle, last = pattern.split("*")

    def matches(text: str) -> bool:
        place, end = len(first), len(text) - len(last)
        if place > end or not text.startswith(first) or not text.endswith(last):
            return False
        for part in middle:
            found = text.find(part, place, end)
            if found < 0:
                return False
            place = found + len(part)
        return True

    return matches


def is_glob(pattern: str) -> bool:
    """Tell whether a type pattern is more than an exact type."""
    return "*" in pattern


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Criteria that an event has to meet; an empty tuple means any. Times are half-open.

    `account` is None for all accounts (scope GLOBAL, the account `admin` only).
    """

    account: str | None
    types: tuple[str, ...] = ()
    subtypes: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    resource_types: tuple[str, ...] = ()
    resource_ids: tuple[str, ...] = ()
    user_ids: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    since: int | None = None
    before: int | None = None
    where: str = ""

    def is_empty(self) -> bool:
        """Tell whether the filter has no criterion but the account."""
        return self == EventFilter(self.account)

    def matcher(self) -> Matcher:
        """Compile the whole filter into a function of an event's head and its frame."""
        predicate = self.predicate()
        if not self.where:
            return lambda head, frame: predicate(head)
        condition = where.compiled(self.where).matches
        return lambda head, frame: predicate(head) and condition(frame, head.level)

    def predicate(self) -> Predicate:
        """Compile all but `where` into a function that tells whether an event is meant."""
        checks = [c for c in (self._account(), self._types(), *self._sets(), self._labels(), self._times()) if c]
        if not checks:
            return lambda head: True
        if len(checks) == 1:
            return checks[0]
        return lambda head: all(check(head) for check in checks)

    def _account(self) -> Predicate | None:
        account = self.account
        return None if account is None else lambda head: head.account == account

    def _types(self) -> Predicate | None:
        if not self.types:
            return None
        exact = frozenset(t for t in self.types if not is_glob(t))
        globs = tuple(glob(t) for t in self.types if is_glob(t))
        return lambda head: head.type in exact or any(match(head.type) for match in globs)

    def _sets(self) -> list[Predicate | None]:
        wanted: list[tuple[tuple[object, ...], Callable[[EventHead], object]]] = [
            (self.subtypes, lambda h: h.subtype),
            (self.levels, lambda h: h.level),
            (self.resource_types, lambda h: h.resource_type),
            (self.resource_ids, lambda h: h.resource_id),
            (self.user_ids, lambda h: h.user_id),
            (self.services, lambda h: h.service),
            (self.hosts, lambda h: h.host),
        ]
        return [_member(frozenset(values), get) if values else None for values, get in wanted]

    def _labels(self) -> Predicate | None:
        labels = self.labels
        return (lambda head: all(head.labels.get(k) == v for k, v in labels)) if labels else None

    def _times(self) -> Predicate | None:
        since, before = self.since, self.before
        if since is None and before is None:
            return None
        return lambda head: (since is None or since <= head.timestamp) and (before is None or head.timestamp < before)


def _member(values: frozenset[object], get: Callable[[EventHead], object]) -> Predicate:
    return lambda head: get(head) in values


@dataclass(frozen=True, slots=True)
class Selector:
    """Chooses the events that a configuration is told about; strings are compared exactly.

    `after_position` is the head of the log when the selector was committed: earlier events are not
    its business. `where` is a condition over the whole event, asked last.
    """

    scope: str
    level: str
    type: str
    resource_type: str
    subtype: str = ""
    service: str = ""
    after_position: int = 0
    where: str = ""

    def criteria(self) -> tuple[str, ...]:
        """Give what the selector chooses, without when it was committed."""
        return (self.scope, self.level, self.type, self.resource_type, self.subtype, self.service, self.where)

    def matches(self, account: str, position: int, head: EventHead, frame: bytes = b"") -> bool:
        """Tell whether a configuration of `account` is to be told about the event with this frame."""
        return position > self.after_position and self.meets(account, head) and self.asks(frame, head.level)

    def meets(self, account: str, head: EventHead) -> bool:
        """Tell whether the event's head meets the criteria, whenever it was appended."""
        return (
            (self.scope == "global" or head.account == account)
            and (self.level == "*" or LEVEL_BY_NAME[self.level] == head.level)
            and self.meets_type(head)
            and self.resource_type in ("*", head.resource_type)
            and self.subtype in ("", head.subtype)
            and self.service in ("", head.service)
        )

    def meets_type(self, head: EventHead) -> bool:
        """Tell whether the event's type is meant; what tocsin itself writes only by a pattern that says so."""
        if not sees_own_events(self.type) and head.service == OWN_SERVICE:
            return False
        return glob(self.type)(head.type)

    def asks(self, frame: bytes, level: int) -> bool:
        """Tell whether the event meets `where`, if there is one."""
        return not self.where or where.compiled(self.where).matches(frame, level)


LEVEL_BY_NAME: Mapping[str, Level] = {"info": Level.INFO, "error": Level.ERROR}


def sees_own_events(type_pattern: str) -> bool:
    """Tell whether a type pattern may match events that tocsin itself writes.

    Only one that literally begins with `system.`: else a catch-all selector would be told about its
    own deliveries without end.
    """
    return type_pattern.startswith("system.")


class _Entry(NamedTuple):
    """A selector of a configuration, and what of it the place in the index does not say yet."""

    account: str
    configuration_id: str
    selector: Selector
    matches_type: Callable[[str], bool]
    sees_own: bool
    is_plain: bool  # neither subtype nor service is asked for

    @classmethod
    def of(cls, account: str, configuration_id: str, selector: Selector) -> _Entry:
        """Look once at what every event would ask."""
        plain = not (selector.subtype or selector.service)
        return cls(account, configuration_id, selector, glob(selector.type), sees_own_events(selector.type), plain)


@dataclass(slots=True)
class _Node:
    """One segment of the trie: the selectors whose literal prefix ends here, and what follows."""

    here: list[_Entry] = field(default_factory=list)
    below: dict[str, _Node] = field(default_factory=dict)


class SelectorIndex:
    """All selectors of all configurations, arranged so that an event meets only those it may match.

    By scope and account, level and resource type, then a trie over the type's segments up to the first
    star. The cost of an event does not grow with the number of selectors elsewhere. Events come in
    kinds: what one event has met is remembered for those with the same head.
    """

    def __init__(self) -> None:
        self._roots: dict[tuple[str, str, str], _Node] = {}
        self._met: dict[tuple[object, ...], tuple[_Entry, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._roots)

    def add(self, account: str, configuration_id: str, selector: Selector) -> None:
        """Add one selector of a configuration."""
        root = "" if selector.scope == "global" else account
        node = self._roots.setdefault((root, selector.level, selector.resource_type), _Node())
        for segment in _literal_segments(selector.type):
            node = node.below.setdefault(segment, _Node())
        node.here.append(_Entry.of(account, configuration_id, selector))
        self._met.clear()

    def matching(self, position: int, head: EventHead, frame: bytes = b"") -> list[tuple[str, str]]:
        """Give (account, id) of the configurations to be told about an event, each once, in a fixed order."""
        found: dict[tuple[str, str], None] = {}
        for account, configuration_id, selector, *_ in self._met_by(head):
            if position > selector.after_position and (not selector.where or selector.asks(frame, head.level)):
                found[account, configuration_id] = None
        return list(found)

    def quick_count(self, head: EventHead) -> int | None:
        """Count the selectors that an event meets; None when one of them asks for more than the event's head."""
        met = self._met_by(head)
        return len(met) if len(met) > QUICK_MAX or not any(selector.where for _, _, selector, *_ in met) else None

    def accounts(self, head: EventHead) -> set[str]:
        """Give the accounts whose selectors an event meets."""
        return {account for account, *_ in self._met_by(head)}

    def _met_by(self, head: EventHead) -> tuple[_Entry, ...]:
        key = (head.account, head.type, head.level, head.resource_type, head.subtype, head.service)
        met = self._met.get(key)
        if met is None:
            met = tuple(self._meeting(head))
            if len(self._met) >= HEADS_REMEMBERED_MAX:
                self._met.clear()
            self._met[key] = met
        return met

    def _meeting(self, head: EventHead) -> Iterator[_Entry]:
        level = "error" if head.level == Level.ERROR else "info"
        segments = head.type.split(".")
        for root in dict.fromkeys((head.account, "")):
            for wanted in (level, "*"):
                for resource_type in dict.fromkeys((head.resource_type, "*")):
                    yield from self._below(self._roots.get((root, wanted, resource_type)), segments, head)

    @staticmethod
    def _below(node: _Node | None, segments: list[str], head: EventHead) -> Iterator[_Entry]:
        depth, event_type, own = 0, head.type, head.service == OWN_SERVICE
        while node is not None:
            for entry in node.here:
                selector = entry.selector
                if (
                    (not own or entry.sees_own)
                    and entry.matches_type(event_type)
                    and (
                        entry.is_plain
                        or (selector.subtype in ("", head.subtype) and selector.service in ("", head.service))
                    )
                ):
                    yield entry
            node = node.below.get(segments[depth]) if depth < len(segments) else None
            depth += 1


def _literal_segments(pattern: str) -> list[str]:
    """Give the whole segments before the first star: the path of the selector in the trie."""
    if not is_glob(pattern):
        return pattern.split(".")
    return pattern.partition("*")[0].split(".")[:-1]
