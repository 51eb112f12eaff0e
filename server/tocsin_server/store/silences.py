"""Silences: their rows, and the notices of their starts and ends, each written once with what it tells about."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tocsin_server.domain.errors import Reason, TocsinError, not_found
from tocsin_server.domain.silences import (
    DELETED_MAX,
    ENDED,
    SILENCE_KEPT_US,
    SILENCES_MAX,
    STARTED,
    Silence,
    SilenceState,
)
from tocsin_server.store import request_keys
from tocsin_server.store.database import Readers
from tocsin_server.store.generation import raise_generation
from tocsin_server.store.selection import filter_of, stored_filter
from tocsin_server.store.writer import Transaction, Writer

T = TypeVar("T")
NAMES = (
    "account", "id", "criteria", "starts_at", "ends_at", "author", "comment", "created_at", "updated_at", "deleted",
)  # fmt: skip
COLUMNS = ", ".join(NAMES)
CREATE_METHOD = "CreateSilence"
# What the log was told of a silence.
NOTHING, ITS_START, ITS_END = 0, 1, 2
NOTICES = ((STARTED, NOTHING, ITS_START, "starts_at"), (ENDED, ITS_START, ITS_END, "ends_at"))
NOTICES_PER_STEP = 100  # one short transaction


class SilenceStore:
    """See `domain.silence_ports.SilenceStore` for what each method does."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self.changed: Callable[[], None] = lambda: None

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def _write(self, unit: Callable[[Transaction], T]) -> T:
        result = await self._writer.run(unit)
        self.changed()
        return result

    async def create(self, draft: Silence, judge: Callable[[int], None], request_id: str, digest: bytes) -> Silence:
        """Store a silence, or answer the one that this request id has made."""
        return await self._write(lambda tx: _create(tx, draft, judge, request_id, digest))

    async def get(self, account: str, silence_id: str) -> Silence:
        """Read one silence."""
        return await self._read(lambda c: _get(c, account, silence_id))

    async def page(
        self, account: str, states: Sequence[SilenceState], now: int, after: tuple[int, str] | None, size: int
    ) -> list[Silence]:
        """Read silences, the latest start first."""
        return await self._read(lambda c: _page(c, account, states, now, after, size))

    async def held(self, account: str) -> list[Silence]:
        """Read all silences by which events of an account are judged, those that were deleted too."""
        query = f"SELECT {COLUMNS} FROM silences WHERE account = ?"
        return await self._read(lambda c: [_silence(row) for row in c.execute(query, (account,))])

    async def update(self, account: str, silence_id: str, change: Callable[[Silence], Silence]) -> Silence:
        """Change a silence in one transaction."""
        return await self._write(lambda tx: _update(tx, account, silence_id, change))

    async def delete(self, account: str, silence_id: str) -> None:
        """End a silence, if it holds, and forget it."""
        await self._write(lambda tx: _delete(tx, account, silence_id))

    async def tell(self) -> int | None:
        """Write the notices that are due; give when the next one is, 0 when more are due now."""
        return await self._writer.run(_tell)


def every(connection: sqlite3.Connection) -> list[Silence]:
    """Read all silences of all accounts."""
    return [_silence(row) for row in connection.execute(f"SELECT {COLUMNS} FROM silences")]


def holding(connection: sqlite3.Connection, account: str, at: int) -> list[Silence]:
    """Read the silences of an account that hold at a time."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM silences WHERE account = ? AND starts_at <= ? AND ends_at > ?", (account, at, at)
    )
    return [_silence(row) for row in rows]


def turned(connection: sqlite3.Connection, account: str, after: int, upto: int) -> bool:
    """Tell whether a silence of an account has begun or ended in (after, upto]."""
    row = connection.execute(
        "SELECT 1 FROM silences WHERE account = ?"
        " AND (starts_at > ? AND starts_at <= ? OR ends_at > ? AND ends_at <= ?) LIMIT 1",
        (account, after, upto, after, upto),
    ).fetchone()
    return row is not None


def _create(
    transaction: Transaction, draft: Silence, judge: Callable[[int], None], request_id: str, digest: bytes
) -> Silence:
    known = request_keys.known_answer(transaction, draft.account, CREATE_METHOD, request_id, digest)
    if known:
        return _get(transaction.connection, draft.account, known)
    judge(transaction.log.created_at)
    _refuse_too_many(transaction.connection, draft.account)
    now = transaction.log.created_at
    new = replace(
        draft, id=transaction.runtime.new_id(), starts_at=draft.starts_at or now, created_at=now, updated_at=now
    )
    transaction.connection.execute(
        f"INSERT INTO silences ({COLUMNS}, told) VALUES ({','.join('?' * (len(NAMES) + 1))})", (*_row(new), NOTHING)
    )
    request_keys.remember(transaction, new.account, CREATE_METHOD, request_id, digest, new.id)
    _changed(transaction)
    return new


def _refuse_too_many(connection: sqlite3.Connection, account: str) -> None:
    count, deleted = connection.execute(
        "SELECT count(*), coalesce(sum(deleted), 0) FROM silences WHERE account = ?", (account,)
    ).fetchone()
    if count - deleted >= SILENCES_MAX:
        raise TocsinError(Reason.LIMIT_REACHED, f"an account has at most {SILENCES_MAX} silences: delete ended ones")
    if deleted >= DELETED_MAX:
        text = f"an account deletes at most {DELETED_MAX} silences in 30 days: change one instead of making many"
        raise TocsinError(Reason.LIMIT_REACHED, text)


def _changed(transaction: Transaction) -> None:
    """Have the router read silences anew before it routes what comes after this, and tell of what starts now."""
    raise_generation(transaction)
    _tell(transaction)


def _update(transaction: Transaction, account: str, silence_id: str, change: Callable[[Silence], Silence]) -> Silence:
    old = _get(transaction.connection, account, silence_id)
    now = transaction.log.created_at
    if old.state(now) is SilenceState.ENDED:
        raise TocsinError(Reason.SILENCE_ENDED, "the silence has ended: make a new one", metadata={"id": silence_id})
    new = replace(change(old), updated_at=now)
    transaction.connection.execute(
        "UPDATE silences SET criteria = ?, starts_at = ?, ends_at = ?, author = ?, comment = ?, updated_at = ?"
        " WHERE account = ? AND id = ?",
        (stored_filter(new.filter), new.starts_at, new.ends_at, new.author, new.comment, now, account, silence_id),
    )
    _changed(transaction)
    return new


def _delete(transaction: Transaction, account: str, silence_id: str) -> None:
    _tell(transaction)
    silence = _get(transaction.connection, account, silence_id)
    now = transaction.log.created_at
    if silence.state(now) is SilenceState.PENDING:  # no event was ever judged by it
        transaction.connection.execute("DELETE FROM silences WHERE account = ? AND id = ?", (account, silence_id))
        raise_generation(transaction)
        return
    if silence.state(now) is SilenceState.ACTIVE:
        transaction.append([replace(silence, ends_at=now).notice(ENDED, "DELETED")])
    transaction.connection.execute(
        "UPDATE silences SET deleted = 1, told = ?, starts_at = min(starts_at, ?), ends_at = min(ends_at, ?)"
        " WHERE account = ? AND id = ?",
        (ITS_END, now, now, account, silence_id),
    )
    raise_generation(transaction)


def _tell(transaction: Transaction) -> int | None:
    now, connection = transaction.log.created_at, transaction.connection
    told = 0
    for event_type, before, after, column in (
        (STARTED, NOTHING, ITS_START, "starts_at"),
        (ENDED, ITS_START, ITS_END, "ends_at"),
    ):
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM silences WHERE told = {before} AND {column} <= ? LIMIT {NOTICES_PER_STEP}", (now,)
        ).fetchall()
        due = [_silence(row) for row in rows]
        transaction.append([silence.notice(event_type, "TIME") for silence in due])
        connection.executemany(
            f"UPDATE silences SET told = {after} WHERE account = ? AND id = ?", [(s.account, s.id) for s in due]
        )
        told += len(due)
    connection.execute("DELETE FROM silences WHERE told = ? AND ends_at < ?", (ITS_END, now - SILENCE_KEPT_US))
    if told:
        return 0
    (next_due,) = connection.execute(
        "SELECT min(t) FROM (SELECT min(starts_at) AS t FROM silences WHERE told = 0"
        " UNION ALL SELECT min(ends_at) FROM silences WHERE told = 1)"
    ).fetchone()
    return int(next_due) if next_due is not None else None


def _get(connection: sqlite3.Connection, account: str, silence_id: str) -> Silence:
    row = connection.execute(
        f"SELECT {COLUMNS} FROM silences WHERE account = ? AND id = ? AND NOT deleted", (account, silence_id)
    ).fetchone()
    if row is None:
        raise not_found("silence", silence_id)
    return _silence(row)


def _page(
    connection: sqlite3.Connection,
    account: str,
    states: Sequence[SilenceState],
    now: int,
    after: tuple[int, str] | None,
    size: int,
) -> list[Silence]:
    place = " AND (starts_at, id) < (?, ?)" if after else ""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM silences WHERE account = ? AND NOT deleted{place} ORDER BY starts_at DESC, id DESC",
        (account, *(after or ())),
    )
    # An account has few: the state is told here, in one place.
    found = (silence for silence in map(_silence, rows) if not states or silence.state(now) in states)
    return [silence for silence, _ in zip(found, range(size), strict=False)]


def _silence(row: tuple[Any, ...]) -> Silence:
    values = dict(zip(NAMES, row, strict=True))
    values["deleted"] = bool(values["deleted"])
    return Silence(filter=filter_of(values.pop("criteria")), **values)


def _row(silence: Silence) -> tuple[object, ...]:
    return (
        silence.account, silence.id, stored_filter(silence.filter), silence.starts_at, silence.ends_at, silence.author,
        silence.comment, silence.created_at, silence.updated_at, silence.deleted,
    )  # fmt: skip
