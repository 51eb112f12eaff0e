"""Alerts: creating, reading, finding, changing. What their runs write is in `execution.py`.

Every change but those of mutes raises the version and the run number, so that a run under way writes nothing. Mutes
are asked when it is written.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tocsin_server.domain.alerting import ALERTS_MAX, Alert, AlertPage, AlertSearch, AlertStatus, FoundAlert
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import PAGE_BYTES_MAX
from tocsin_server.domain.execution import AlertState, close
from tocsin_server.domain.instances import Memory
from tocsin_server.domain.transitions import own_event
from tocsin_server.store import request_keys
from tocsin_server.store.alert_rows import (
    ALERT_COLUMNS,
    ALERTS,
    alert_of,
    folded,
    read_alert,
    read_memory,
    spec_json,
)
from tocsin_server.store.database import Readers
from tocsin_server.store.writer import Transaction, Writer

T = TypeVar("T")
CREATE_METHOD = "CreateAlert"
SEARCH_COLUMNS = {
    "name": "a.name_folded",
    "tags": "a.tags_folded",
    "alert_type_id": "lower(a.alert_type_id)",
    "consumer": "lower(a.consumer)",
}
SORT_COLUMNS = {
    "name": "a.name_folded",
    "alert_type_id": "a.alert_type_id",
    "consumer": "a.consumer",
    "create_time": "a.created_at",
    "update_time": "a.updated_at",
}
INSERT_ALERT = (
    "INSERT INTO alerts (account, id, version, enabled, name, name_folded, tags_folded, alert_type_id,"
    " consumer, spec, created_by, updated_by, created_at, updated_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
INSERT_TASK = (
    "INSERT INTO alert_tasks (account, alert_id, next_run_at, run_number, lease_until, status, error_reason,"
    " error_message, state, log_position) VALUES (?, ?, ?, 0, 0, ?, '', '', '{}', 0)"
)


class Alerts:
    """The store behind `domain.ports.AlertStore`. `changed` is called when a run may be due earlier."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self.changed: Callable[[], None] = lambda: None
        self.written: Callable[[str, str], None] = lambda account, alert_id: None  # told of each change

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def _write(self, account: str, alert_id: str, unit: Callable[[Transaction], T]) -> T:
        result = await self._writer.run(unit)
        self.changed()
        self.written(account, alert_id)
        return result

    async def create(self, alert: Alert, request_id: str, digest: bytes) -> Alert:
        """Store an alert; its first run is at once. A known request id answers the alert it made."""
        return await self._write(alert.account, "", lambda tx: _create(tx, alert, request_id, digest))

    async def get(self, account: str, alert_id: str) -> Alert:
        """Read one alert."""
        return await self._read(lambda c: read_alert(c, account, alert_id))

    async def find(self, search: AlertSearch, after: tuple[str | int, str] | None, size: int) -> AlertPage:
        """Read a page of what a search finds."""
        return await self._read(lambda c: _find(c, search, after, size))

    async def update(self, alert: Alert, *, run_now: bool) -> Alert:
        """Store a changed alert over the version that it was read as."""
        return await self._write(alert.account, alert.id, lambda tx: _update(tx, alert, run_now))

    async def delete(self, account: str, alert_id: str) -> None:
        """Delete an alert; its instances end."""
        await self._write(account, alert_id, lambda tx: _delete(tx, account, alert_id))

    async def enable(self, account: str, alert_id: str, user: str) -> Alert:
        """Let an alert run, at once and with empty state."""
        return await self._write(account, alert_id, lambda tx: _switch(tx, account, alert_id, user, enabled=True))

    async def disable(self, account: str, alert_id: str, user: str) -> Alert:
        """Stop an alert; its instances end."""
        return await self._write(account, alert_id, lambda tx: _switch(tx, account, alert_id, user, enabled=False))

    async def mute(self, account: str, alert_id: str, user: str, change: Callable[[Alert], Alert]) -> Alert:
        """Change what is muted; a run under way is written with it."""
        return await self._write(account, alert_id, lambda tx: _mute(tx, account, alert_id, user, change))

    async def state(self, account: str, alert_id: str) -> AlertState:
        """Read what the runs of an alert left behind."""
        return await self._read(lambda c: _state(c, account, alert_id))

    async def kinds(self, account: str, configuration_ids: Sequence[str]) -> Mapping[str, str]:
        """Read the kinds of those endpoint configurations that exist in the account."""
        return await self._read(lambda c: _kinds(c, account, configuration_ids))


def _create(transaction: Transaction, alert: Alert, request_id: str, digest: bytes) -> Alert:
    connection = transaction.connection
    known = request_keys.known_answer(transaction, alert.account, CREATE_METHOD, request_id, digest)
    if known:
        return read_alert(connection, alert.account, known)
    (count,) = connection.execute("SELECT count(*) FROM alerts WHERE account = ?", (alert.account,)).fetchone()
    if count >= ALERTS_MAX:
        raise TocsinError(Reason.LIMIT_REACHED, f"an account has at most {ALERTS_MAX} alerts")
    now = transaction.log.created_at
    new = replace(alert, id=transaction.runtime.new_id(), version=1, created_at=now, updated_at=now)
    spec = new.spec
    connection.execute(
        INSERT_ALERT,
        (new.account, new.id, 1, new.enabled, spec.name, *folded(spec), spec.alert_type_id, spec.consumer,
         spec_json(spec), new.created_by, new.updated_by, now, now),
    )  # fmt: skip
    connection.execute(INSERT_TASK, (new.account, new.id, now if new.enabled else None, AlertStatus.PENDING))
    request_keys.remember(transaction, new.account, CREATE_METHOD, request_id, digest, new.id)
    return new


def _update(transaction: Transaction, alert: Alert, run_now: bool) -> Alert:
    connection, now, spec = transaction.connection, transaction.log.created_at, alert.spec
    read_alert(connection, alert.account, alert.id)
    name_folded, tags_folded = folded(spec)
    cursor = connection.execute(
        "UPDATE alerts SET version = version + 1, name = ?, name_folded = ?, tags_folded = ?, spec = ?,"
        " updated_by = ?, updated_at = ? WHERE account = ? AND id = ? AND version = ?",
        (spec.name, name_folded, tags_folded, spec_json(spec), alert.updated_by, now,
         alert.account, alert.id, alert.version),
    )  # fmt: skip
    if cursor.rowcount != 1:
        raise TocsinError(Reason.CONFLICT, f"alert {alert.id!r} was changed meanwhile: read it again", retry_s=0.0)
    _fence(transaction, alert, run_now and alert.enabled)
    return read_alert(connection, alert.account, alert.id)


def _fence(transaction: Transaction, alert: Alert, run_now: bool) -> None:
    """Make the run under way stale; it is due again at once, as the alert now is."""
    transaction.connection.execute(
        "UPDATE alert_tasks SET run_number = run_number + 1, lease_until = 0,"
        " next_run_at = CASE WHEN ? THEN ? ELSE next_run_at END WHERE account = ? AND alert_id = ?",
        (run_now, transaction.log.created_at, alert.account, alert.id),
    )


def _switch(transaction: Transaction, account: str, alert_id: str, user: str, *, enabled: bool) -> Alert:
    connection, now = transaction.connection, transaction.log.created_at
    alert = read_alert(connection, account, alert_id)
    if alert.enabled == enabled:
        return alert
    if not enabled:
        _end_instances(transaction, alert, "disabled")
    connection.execute(
        "UPDATE alerts SET version = version + 1, enabled = ?, updated_by = ?, updated_at = ?"
        " WHERE account = ? AND id = ?",
        (enabled, user, now, account, alert_id),
    )
    connection.execute(
        "UPDATE alert_tasks SET run_number = run_number + 1, lease_until = 0, next_run_at = ?, status = ?,"
        " error_reason = '', error_message = '', state = '{}', previous_started_at = NULL"
        " WHERE account = ? AND alert_id = ?",
        (now if enabled else None, AlertStatus.PENDING, account, alert_id),
    )
    return read_alert(connection, account, alert_id)


def _mute(transaction: Transaction, account: str, alert_id: str, user: str, change: Callable[[Alert], Alert]) -> Alert:
    connection = transaction.connection
    alert = read_alert(connection, account, alert_id)
    wanted = change(alert)
    if wanted == alert:
        return alert
    connection.execute(
        "UPDATE alerts SET mute_all = ?, muted_instance_ids = ?, updated_by = ?, updated_at = ?"
        " WHERE account = ? AND id = ?",
        (wanted.mute_all, json.dumps(wanted.muted_instance_ids), user, transaction.log.created_at, account, alert_id),
    )
    return read_alert(connection, account, alert_id)


def _delete(transaction: Transaction, account: str, alert_id: str) -> None:
    connection = transaction.connection
    _end_instances(transaction, read_alert(connection, account, alert_id), "deleted")
    for table, column in (("alert_tasks", "alert_id"), ("alerts", "id")):
        connection.execute(f"DELETE FROM {table} WHERE account = ? AND {column} = ?", (account, alert_id))


def _end_instances(transaction: Transaction, alert: Alert, reason: str) -> None:
    """End what is active, and say so in the log: nothing stays active for ever."""
    connection, now = transaction.connection, transaction.log.created_at
    memory, _ = read_memory(connection, alert)
    ended = close(memory.instances.values(), now, reason)
    transaction.append([own_event(alert, transition, now) for transition in ended])
    connection.execute("DELETE FROM alert_instances WHERE account = ? AND alert_id = ?", (alert.account, alert.id))


def _find(
    connection: sqlite3.Connection, search: AlertSearch, after: tuple[str | int, str] | None, size: int
) -> AlertPage:
    if search.meets is not None:
        return _find_where(connection, search, search.meets, after, size)
    where, values = _searched(search)
    (total,) = connection.execute(f"SELECT count(*) FROM alerts AS a WHERE {where}", values).fetchone()
    column = SORT_COLUMNS[search.sort_field]
    compare, order = ("<", "DESC") if search.descending else (">", "ASC")
    if after is not None:
        where += f" AND ({column}, a.id) {compare} (?, ?)"
        values += after
    rows = connection.execute(
        f"SELECT {column}, length(a.spec) + length(a.muted_instance_ids), {ALERT_COLUMNS} FROM {ALERTS} WHERE {where}"
        f" ORDER BY {column} {order}, a.id {order} LIMIT ?",
        [*values, size + 1],
    )
    found: list[FoundAlert] = []
    taken = 0
    for key, length, *row in rows:
        taken += length
        if found and (len(found) == size or taken > PAGE_BYTES_MAX):
            return AlertPage(tuple(found), True, total)
        alert = alert_of(tuple(row))
        found.append(FoundAlert(alert, (key, alert.id)))
    return AlertPage(tuple(found), False, total)


def _find_where(
    connection: sqlite3.Connection,
    search: AlertSearch,
    meets: Callable[[Alert], bool],
    after: tuple[str | int, str] | None,
    size: int,
) -> AlertPage:
    """Find by a condition, which is asked of every alert that all else has left: the total is of those that meet it."""
    column = SORT_COLUMNS[search.sort_field]
    order = "DESC" if search.descending else "ASC"
    where, values = _searched(search)
    rows = connection.execute(
        f"SELECT {column}, {ALERT_COLUMNS} FROM {ALERTS} WHERE {where} ORDER BY {column} {order}, a.id {order}", values
    )
    total, more = 0, False
    found: list[FoundAlert] = []
    for key, *row in rows:
        alert = alert_of(tuple(row))
        if not meets(alert):
            continue
        total += 1
        place = (key, alert.id)
        if after is not None and (place >= after if search.descending else place <= after):
            continue
        if len(found) < size:
            found.append(FoundAlert(alert, place))
        else:
            more = True
    return AlertPage(tuple(found), more, total)


def _searched(search: AlertSearch) -> tuple[str, list[Any]]:
    columns = [SEARCH_COLUMNS[name] for name in search.fields]
    one_word = " OR ".join(f"instr({column}, ?) > 0" for column in columns)
    words = [word.casefold() for word in search.words]
    joined = (" AND " if search.every_word else " OR ").join([f"({one_word})"] * len(words))
    values: list[Any] = [search.account, *(word for word in words for _ in columns)]
    where = "a.account = ?" + (f" AND ({joined})" if words else "")
    if search.configuration_id:
        where += " AND EXISTS (SELECT 1 FROM json_each(a.spec, '$.actions') WHERE json_extract(value, '$[1]') = ?)"
        values.append(search.configuration_id)
    return where, values


def _state(connection: sqlite3.Connection, account: str, alert_id: str) -> AlertState:
    alert = read_alert(connection, account, alert_id)
    return AlertState(*read_memory(connection, alert)) if alert.enabled else AlertState(Memory(), None)


def _kinds(connection: sqlite3.Connection, account: str, ids: Sequence[str]) -> dict[str, str]:
    marks = ",".join("?" * len(ids))
    rows = connection.execute(
        f"SELECT id, kind FROM endpoint_configurations WHERE account = ? AND id IN ({marks})", [account, *ids]
    )
    return dict(rows.fetchall())
