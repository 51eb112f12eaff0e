"""The entries of the catalogue that accounts have registered. All of them are read at start."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_types import EVENT_TYPES_MAX, EventType, Name, PayloadCheck
from tocsin_server.store.database import Readers
from tocsin_server.store.writer import Transaction, Writer

READ = "SELECT account, type, subtype, spec, updated_at FROM event_types"
WRITE = "INSERT OR REPLACE INTO event_types (account, type, subtype, spec, updated_at) VALUES (?, ?, ?, ?, ?)"
REMOVE = "DELETE FROM event_types WHERE account = ? AND type = ? AND subtype = ?"


class EventTypes:
    """The store behind `domain.ports.EventTypeStore`."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def load(self) -> dict[str, list[EventType]]:
        """Read all entries by account; blocks, for the start."""
        return self._readers.submit(_load).result()

    async def register(self, account: str, entries: Sequence[EventType]) -> list[EventType]:
        """Store entries, all or none; one that is there with the same content stays as it is."""
        return await self._writer.run(lambda tx: _register(tx, account, entries))

    async def unregister(self, account: str, names: Sequence[Name]) -> int:
        """Remove entries; give how many there were."""
        return await self._writer.run(lambda tx: _unregister(tx, account, names))


def _load(connection: sqlite3.Connection) -> dict[str, list[EventType]]:
    found: dict[str, list[EventType]] = {}
    for account, *row in connection.execute(READ):
        found.setdefault(account, []).append(_entry(*row))
    return found


def _entry(event_type: str, subtype: str, spec: str, updated_at: int) -> EventType:
    fields = json.loads(spec)
    return EventType(event_type, subtype, **{**fields, "check": PayloadCheck(fields["check"])}, updated_at=updated_at)


def _register(transaction: Transaction, account: str, entries: Sequence[EventType]) -> list[EventType]:
    connection, now = transaction.connection, transaction.log.created_at
    known = {entry.name: entry for entry in (_entry(*row[1:]) for row in _of(connection, account))}
    stored: list[EventType] = []
    for entry in entries:
        old = known.get(entry.name)
        stored.append(old if old is not None and old.same_as(entry) else replace(entry, updated_at=now))
    if len(known.keys() | {entry.name for entry in entries}) > EVENT_TYPES_MAX:
        raise TocsinError(
            Reason.LIMIT_REACHED,
            f"an account has at most {EVENT_TYPES_MAX} entries in its catalogue",
            metadata={"limit": str(EVENT_TYPES_MAX)},
        )
    connection.executemany(WRITE, [(account, *entry.name, _spec(entry), entry.updated_at) for entry in stored])
    return stored


def _of(connection: sqlite3.Connection, account: str) -> sqlite3.Cursor:
    return connection.execute(f"{READ} WHERE account = ?", (account,))


def _spec(entry: EventType) -> str:
    fields = {
        "description": entry.description,
        "resource_type": entry.resource_type,
        "level": entry.level,
        "schema": entry.schema,
        "check": int(entry.check),
        "example": entry.example,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _unregister(transaction: Transaction, account: str, names: Sequence[Name]) -> int:
    return sum(transaction.connection.execute(REMOVE, (account, *name)).rowcount for name in dict.fromkeys(names))
