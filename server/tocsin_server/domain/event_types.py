"""The catalogue: what is known about types of events, built in or registered by an account.

Types are free: an event whose type is not in the catalogue is as welcome as any. Only an entry that
says so has the details of its events checked, and only then does an append pay for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from tocsin_server.domain.errors import Violation

if TYPE_CHECKING:
    from tocsin_server.domain.payloads import PayloadSchema

EVENT_TYPES_MAX = 1000  # entries of one account, 32 MB at the very most

Name = tuple[str, str]
"""Type and subtype; the subtype is empty for the entry of a type as such."""


class PayloadCheck(IntEnum):
    """What happens to an event that does not meet its schema; the numbers are those of the wire."""

    OFF = 1
    WARN = 2
    ENFORCE = 3


@dataclass(frozen=True, slots=True)
class EventType:
    """One entry. `level` is 0 for either; `schema` is None for any details; `updated_at` 0 if built in."""

    type: str
    subtype: str = ""
    description: str = ""
    resource_type: str = ""
    level: int = 0
    schema: Mapping[str, Any] | None = None
    check: PayloadCheck = PayloadCheck.OFF
    example: Any = None
    built_in: bool = False
    updated_at: int = 0

    @property
    def name(self) -> Name:
        """Type and subtype."""
        return (self.type, self.subtype)

    def same_as(self, other: EventType) -> bool:
        """Tell whether two entries say the same, whenever they were written."""
        return replace(self, updated_at=0) == replace(other, updated_at=0)


@dataclass(frozen=True, slots=True)
class Check:
    """How the details of a type's events are checked."""

    schema: PayloadSchema
    enforced: bool


class Catalogue:
    """All entries in memory: few, read at every append. Lives on one event loop."""

    def __init__(self, built_in: Iterable[EventType], stored: Mapping[str, Iterable[EventType]]) -> None:
        self._built_in = {entry.name: replace(entry, built_in=True) for entry in built_in}
        self._stored = {account: {entry.name: entry for entry in entries} for account, entries in stored.items()}
        self._checks: dict[str, dict[Name, Check | None]] = {}
        for account in self._stored:
            self._compile(account)

    def check(self, account: str, event_type: str, subtype: str) -> Check | None:
        """Give the check of an event's details: that of its subtype's entry, else of its type's."""
        checks = self._checks.get(account)
        if checks is None:
            return None
        if subtype:
            name = (event_type, subtype)
            if name in checks or name in self._built_in:
                return checks.get(name)
        return checks.get((event_type, ""))

    def has_checks(self, account: str) -> bool:
        """Tell whether any details of an account's events are checked."""
        return account in self._checks

    def entries(self, account: str) -> list[EventType]:
        """Give all that an account sees, by type and subtype."""
        return sorted([*self._built_in.values(), *self._stored.get(account, {}).values()], key=lambda e: e.name)

    def is_built_in(self, name: Name) -> bool:
        """Tell whether the server ships with an entry."""
        return name in self._built_in

    def put(self, account: str, entries: Iterable[EventType]) -> None:
        """Take over what was stored."""
        self._stored.setdefault(account, {}).update({entry.name: entry for entry in entries})
        self._compile(account)

    def drop(self, account: str, names: Iterable[Name]) -> None:
        """Forget what was removed."""
        for name in names:
            self._stored.get(account, {}).pop(name, None)
        self._compile(account)

    def _compile(self, account: str) -> None:
        """Compile the checks of an account; one without any has no table, and its appends pay nothing."""
        entries = self._stored[account].values() if account in self._stored else ()
        checks = {entry.name: _check(entry) for entry in entries}
        self._checks.pop(account, None)
        if any(checks.values()):
            self._checks[account] = checks


def _check(entry: EventType) -> Check | None:
    if entry.schema is None or entry.check == PayloadCheck.OFF:
        return None
    from tocsin_server.domain.payloads import payload_schema  # noqa: PLC0415 - its libraries take long to load

    return Check(payload_schema(json.dumps(entry.schema, sort_keys=True)), entry.check == PayloadCheck.ENFORCE)


def violations(entry: EventType, path: str) -> list[Violation]:
    """Tell why an entry cannot be registered."""
    if entry.schema is None:
        if entry.check != PayloadCheck.OFF:
            return [Violation(f"{path}.payload_schema", "is needed to check payloads")]
        return []
    from tocsin_server.domain.payloads import PayloadSchema, schema_violations  # noqa: PLC0415 - as above

    found = schema_violations(entry.schema, f"{path}.payload_schema")
    if not found and entry.example is not None:
        found = PayloadSchema(entry.schema).violations(entry.example, f"{path}.example")
    return found
