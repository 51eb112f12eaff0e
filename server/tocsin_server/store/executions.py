"""The record of executions in the store: written with the run, read, waited for, and forgotten in the end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tocsin_server.domain.alerting import Alert, AlertStatus, RunError, RunErrorReason
from tocsin_server.domain.decisions import Decision, Verdict
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import OWN_SERVICE
from tocsin_server.domain.execution import Run, RunOutcome
from tocsin_server.domain.executions import (
    CHANGES_MAX,
    ERRORS_MAX,
    EXECUTION_KEPT_US,
    EXECUTIONS_MAX,
    Executed,
    Execution,
    ExecutionQuery,
    Summary,
)
from tocsin_server.domain.transitions import EVENT_TYPE_PREFIX, RESOURCE_TYPE, TransitionKind
from tocsin_server.store import wire
from tocsin_server.store.alert_rows import read_alert, read_memory
from tocsin_server.store.database import Readers
from tocsin_server.store.writer import Transaction, Writer

T = TypeVar("T")
COLUMNS = (
    "account, alert_id, number, scheduled_at, started_at, duration_us, status, error_reason, error_message, missed,"
    " log_position, instances"
)
INSERT = f"INSERT INTO alert_executions ({COLUMNS}, ordinal) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
NEWEST = "SELECT ordinal FROM alert_executions WHERE account = ? AND alert_id = ? ORDER BY number DESC LIMIT 1"
FORGOTTEN_MAX = 2  # with each new one: the bound may have come down, and is reached again in small steps
PAGE_BYTES_MAX = 1024 * 1024  # of packed instances: about ten times as much when unpacked
PURGED_MAX = 1000  # rows of one transaction
CHANGES = tuple(EVENT_TYPE_PREFIX + kind for kind in (TransitionKind.NEW_INSTANCE, TransitionKind.RECOVERED_INSTANCE))


class Executions:
    """The store behind `domain.executions.ExecutionStore`. `due` is called when a run is due at once."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self._waiting: defaultdict[tuple[str, str], list[Callable[[], None]]] = defaultdict(list)
        self.due: Callable[[], None] = lambda: None

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def run_now(self, account: str, alert_id: str) -> Execution:
        """Run an alert at once and give the record of the run."""
        loop, changed, key = asyncio.get_running_loop(), asyncio.Event(), (account, alert_id)

        def tell() -> None:
            loop.call_soon_threadsafe(changed.set)

        self._waiting[key].append(tell)
        try:
            # A run under way is let be: it may have seen less than is there now, and whoever asks often would end none.
            while (after := await self._writer.run(lambda tx: _make_due(tx, account, alert_id))) is None:
                await changed.wait()
                changed.clear()
            self.due()
            while (found := await self._read(lambda c: _newer(c, account, alert_id, after))) is None:
                await changed.wait()
                changed.clear()
        finally:
            self._waiting[key].remove(tell)
            if not self._waiting[key]:
                del self._waiting[key]
        return found

    def tell(self, account: str, alert_id: str) -> None:
        """Wake those who wait for a run of an alert: it was written, or the alert was changed. From any thread."""
        for wake in list(self._waiting.get((account, alert_id), ())):
            wake()

    async def executions(self, query: ExecutionQuery, under: int | None, size: int) -> list[Execution]:
        """Read executions with a number under the given one, newest first; fewer where they are large."""
        return await self._read(lambda c: list(_page(c, query, under, size)))

    async def summary(self, account: str, alert_id: str, since: Callable[[Alert], int]) -> Summary:
        """Read how an alert did since the time that `since` says for it."""
        return await self._read(lambda c: _summary(c, account, alert_id, since))


def record(transaction: Transaction, run: Run, outcome: RunOutcome, deliveries: Mapping[str, Sequence[str]]) -> None:
    """Write what a run did; `deliveries` are the ids of those that came of it, by instance."""
    claim, error, connection = run.claim, outcome.error, transaction.connection
    newest = connection.execute(NEWEST, (claim.account, claim.alert_id)).fetchone()
    ordinal = newest[0] + 1 if newest else 1
    connection.execute(
        INSERT,
        (claim.account, claim.alert_id, claim.number, claim.scheduled_at, claim.started_at, outcome.duration_us,
         outcome.status, error.reason if error else "", error.message if error else "", claim.missed,
         claim.log_position, _packed(outcome.decisions, deliveries), ordinal),
    )  # fmt: skip
    # Ordinals have no gaps: what is forgotten is always the oldest.
    connection.execute(
        "DELETE FROM alert_executions WHERE (account, alert_id, number) IN (SELECT account, alert_id, number"
        " FROM alert_executions WHERE account = ? AND alert_id = ? ORDER BY number LIMIT ?) AND ordinal <= ?",
        (claim.account, claim.alert_id, FORGOTTEN_MAX, ordinal - EXECUTIONS_MAX),
    )


def purge(transaction: Transaction) -> bool:
    """Forget some executions that are older than they are kept; tell if those were all."""
    cursor = transaction.connection.execute(
        "DELETE FROM alert_executions WHERE (account, alert_id, number) IN (SELECT account, alert_id, number"
        " FROM alert_executions INDEXED BY alert_executions_started WHERE started_at < ? LIMIT ?)",
        (transaction.log.created_at - EXECUTION_KEPT_US, PURGED_MAX),
    )
    return cursor.rowcount < PURGED_MAX


def _packed(decisions: Sequence[Decision], deliveries: Mapping[str, Sequence[str]]) -> bytes:
    """Write decisions as short as they are alike: a run of 1000 instances is a few kilobytes."""
    if not decisions:
        return b""
    rows = [
        [one.instance_id, one.group, one.subgroup, one.verdict, int(one.recovered), one.silence_id,
         *deliveries.get(one.instance_id, ())]
        for one in decisions
    ]  # fmt: skip
    return zlib.compress(json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode(), 1)


def _unpacked(packed: bytes) -> Iterator[Executed]:
    for name, group, subgroup, verdict, recovered, silence_id, *delivery_ids in json.loads(zlib.decompress(packed)):
        decision = Decision(name, group, subgroup, Verdict(verdict), bool(recovered), silence_id)
        yield Executed(decision, tuple(delivery_ids))


def _execution(row: Sequence[Any]) -> Execution:
    account, alert_id, number, scheduled_at, started_at, duration_us, status, *rest = row
    error_reason, error_message, missed, log_position, packed = rest
    return Execution(
        account=account,
        alert_id=alert_id,
        number=number,
        scheduled_at=scheduled_at,
        started_at=started_at,
        duration_us=duration_us,
        status=AlertStatus(status),
        error=RunError(RunErrorReason(error_reason), error_message) if error_reason else None,
        missed=missed,
        log_position=log_position,
        instances=tuple(_unpacked(packed)) if packed else (),
    )


def _make_due(transaction: Transaction, account: str, alert_id: str) -> int | None:
    """Have an alert run now, and give the number that the run will be above; None while a run is under way."""
    alert = read_alert(transaction.connection, account, alert_id)
    if not alert.enabled:
        raise TocsinError(Reason.ALERT_DISABLED, f"alert {alert_id!r} is disabled: enable it to run it")
    (lease_until,) = transaction.connection.execute(
        "SELECT lease_until FROM alert_tasks WHERE account = ? AND alert_id = ?", (account, alert_id)
    ).fetchone()
    if lease_until > transaction.log.created_at:
        return None
    # A lease that is over may have a run that is not: what it found is too old to be the answer.
    (number,) = transaction.connection.execute(
        "UPDATE alert_tasks SET run_number = run_number + (lease_until <> 0), lease_until = 0, next_run_at = ?"
        " WHERE account = ? AND alert_id = ? RETURNING run_number",
        (transaction.log.created_at, account, alert_id),
    ).fetchone()
    return int(number)


def _newer(connection: sqlite3.Connection, account: str, alert_id: str, after: int) -> Execution | None:
    """Read the oldest execution above a number; ALERT_DISABLED or NOT_FOUND when there will be none."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM alert_executions WHERE account = ? AND alert_id = ? AND number > ?"
        " ORDER BY number LIMIT 1",
        (account, alert_id, after),
    ).fetchone()
    if row is None:
        if not read_alert(connection, account, alert_id).enabled:
            raise TocsinError(Reason.ALERT_DISABLED, f"alert {alert_id!r} was disabled before it ran")
        return None
    return _execution(row)


def _page(connection: sqlite3.Connection, query: ExecutionQuery, under: int | None, size: int) -> Iterator[Execution]:
    read_alert(connection, query.account, query.alert_id)
    conditions = ["account = ?", "alert_id = ?"]
    values: list[object] = [query.account, query.alert_id]
    bounds = {"number < ?": under, "started_at >= ?": query.since, "started_at < ?": query.before}
    for condition, value in bounds.items():
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if query.statuses:
        conditions.append(f"status IN ({','.join('?' * len(query.statuses))})")
        values.extend(query.statuses)
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM alert_executions WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?",
        [*values, size],
    )
    taken = 0
    for row in rows:
        taken += len(row[-1])
        yield _execution(row)
        if taken > PAGE_BYTES_MAX:
            return


def _summary(connection: sqlite3.Connection, account: str, alert_id: str, since_of: Callable[[Alert], int]) -> Summary:
    alert = read_alert(connection, account, alert_id)
    since = since_of(alert)
    memory, _ = read_memory(connection, alert)
    errors = connection.execute(
        "SELECT started_at, error_message FROM alert_executions INDEXED BY alert_executions_failed"
        " WHERE account = ? AND alert_id = ? AND error_reason <> '' AND started_at >= ?"
        " ORDER BY started_at DESC LIMIT ?",
        (account, alert_id, since, ERRORS_MAX),
    ).fetchall()
    changed = frozenset(_changed(connection, account, alert_id, since))
    return Summary(alert, memory.instances, changed - memory.instances.keys(), tuple(reversed(errors)))


def _changed(connection: sqlite3.Connection, account: str, alert_id: str, since: int) -> Iterator[str]:
    """Read from the log which instances became active or recovered."""
    rows = connection.execute(
        "SELECT position, crc, body FROM events INDEXED BY events_by_resource"
        " WHERE account = ? AND resource_id = ? AND resource_id <> ''"
        f" AND timestamp >= ? AND service = ? AND resource_type = ? AND type IN ({','.join('?' * len(CHANGES))})"
        " AND deleted_at = 0 ORDER BY timestamp DESC, position DESC LIMIT ?",
        (account, alert_id, since, OWN_SERVICE, RESOURCE_TYPE, *CHANGES, CHANGES_MAX),
    )
    for row in rows:
        details = wire.decode(wire.checked(*row)).details
        if isinstance(details, dict):
            yield str(details.get("instance_id", ""))
