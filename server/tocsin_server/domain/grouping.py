"""Grouping: events of one configuration that are told together, as one digest.

A digest is one delivery. It waits for company, at most as long as its rules say, and then goes as any other
does; the deliveries of its events are GROUPED in it and end with it, so that each event is told once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tocsin_server.domain.errors import Violation
from tocsin_server.domain.event_log import EventHead, Level

BY_MAX = 8
LABEL = "labels."
FIELDS = ("account", "type", "subtype", "level", "resource.type", "resource.id", "resource.user_id", "service", "host")
WAIT_DEFAULT_S = 30
INTERVAL_DEFAULT_S = 300
ITEMS_DEFAULT = 100
ITEMS_MAX = 500
SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Grouping:
    """The rules: what a group has in common, how long its first event waits, how far its digests are apart."""

    by: tuple[str, ...] = ()
    wait_s: int = WAIT_DEFAULT_S
    interval_s: int = INTERVAL_DEFAULT_S
    max_items: int = ITEMS_DEFAULT

    def check(self) -> list[Violation]:
        """Judge what the bounds of single fields cannot say; paths are relative to the rules."""
        found = [
            Violation(f"by[{index}]", f"is none of {', '.join(FIELDS)}, {LABEL}NAME{_meant(name)}")
            for index, name in enumerate(self.by)
            if name not in FIELDS and not (name.startswith(LABEL) and len(name) > len(LABEL))
        ]
        if len(set(self.by)) < len(self.by):
            found.append(Violation("by", "names a field twice"))
        return found

    def due_at(self, now: int, last_due_at: int | None) -> int:
        """Say when a digest that begins now is due: after its wait, and an interval after the one before it.

        One that was cancelled before it was due counts as if it had been due now.
        """
        due = now + self.wait_s * SECOND_US
        return due if last_due_at is None else max(due, min(last_due_at, now) + self.interval_s * SECOND_US)


@dataclass(frozen=True, slots=True)
class Group:
    """What the events of a digest have in common, and the rules by which they were gathered."""

    rules: Grouping
    values: Mapping[str, str]

    @property
    def key(self) -> str:
        """Give what tells the group from the others of its configuration."""
        return json.dumps(list(self.values.items()), ensure_ascii=False)


def _meant(name: str) -> str:
    """Guess the field that somebody means who knows it from an alert's `group_by`, or from a label."""
    meant = name.replace("user_id", "resource.user_id").replace("resource_", "resource.").removeprefix("source.")
    return f": did you mean {meant}?" if meant in FIELDS else ""


def group_of(rules: Grouping, head: EventHead) -> Group:
    """Find the group of an event."""
    return Group(rules, {name: _value(head, name) for name in rules.by})


def _value(head: EventHead, name: str) -> str:
    if name.startswith(LABEL):
        return head.labels.get(name.removeprefix(LABEL), "")
    if name == "level":
        return Level(head.level).name.lower()
    return str(getattr(head, name.replace(".", "_")))
