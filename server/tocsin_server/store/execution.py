"""The runs of alerts in the store: claim, perform, settle.

A claim keeps `next_run_at`: it is moved only by the transaction that writes everything the run
leaves behind, so a process that dies in between repeats the run for the same scheduled time, and
nothing of it is written twice. The claim is also a barrier: it goes through the one writer, so every
append stamped before the run's time is stored when the claim is answered.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from tocsin_server.domain.actions import Notification
from tocsin_server.domain.alerting import RUNS_APART_MAX, Alert
from tocsin_server.domain.execution import (
    Claim,
    Claims,
    Performed,
    Run,
    RunOutcome,
    Work,
    executed,
    muted,
    silence,
    too_late,
)
from tocsin_server.domain.instances import Instance
from tocsin_server.domain.navigation import Place, path_of
from tocsin_server.domain.notifications import Delivery, State
from tocsin_server.domain.schedule import Ticks, duration_us
from tocsin_server.domain.transitions import own_event
from tocsin_server.store import delivery_rows, executions, navigations, silenced_actions
from tocsin_server.store.alert_rows import INSTANCE_COLUMNS, instance_row, read_claimed
from tocsin_server.store.database import Readers, at_one_moment
from tocsin_server.store.event_aggregates import EventAggregates, ReadsApart
from tocsin_server.store.writer import Transaction, Writer

T = TypeVar("T")
JUDGED_MAX = 3  # times beside the writer; mutes that change as often meanwhile are asked in the transaction
INSTANCE_MARKS = ",".join("?" * 16)
INSERT_INSTANCE = (
    f"INSERT OR REPLACE INTO alert_instances (account, alert_id, {INSTANCE_COLUMNS}) VALUES ({INSTANCE_MARKS})"
)


class Runs:
    """The store behind `domain.ports.AlertRuns`. `readers` are its own: a slow type delays no API read."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        # Its threads are made when they are needed; what they wait for ends with the time of its run.
        self._apart = ThreadPoolExecutor(RUNS_APART_MAX, thread_name_prefix="alerts apart")
        self.queued: Callable[[], None] = lambda: None  # told when deliveries wait to be sent
        self.host = ""  # of the server, as its own events name it
        self.ui_url = ""  # where people look at alerts
        self.log_runs = False  # an event for every run, beside those of transitions
        self.written: Callable[[str, str], None] = lambda account, alert_id: None  # told of each run

    async def release(self) -> None:
        """Give back what a process that has ended had claimed: this one has the store for itself."""
        await self._writer.run(_release)

    async def claim(self, limit: int, lease_us: int) -> Claims:
        """Begin runs that are due."""
        return await self._writer.run(lambda tx: _claim(tx, limit, lease_us), patient=True)

    async def perform(self, claim: Claim, work: Work, timeout_s: float) -> Performed | None:
        """Load, perform and judge a run in one visit of a reader's thread, which a query too long does not keep."""
        visit = _Visit(claim, self.ui_url, self.host)
        future = self._readers.submit(lambda connection: visit.whole(connection, work))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            if not future.done():
                visit.interrupt()
            # One that got no thread in its time has failed like any other: that too is written.
            run = visit.run or await self._read(partial(_load, claim=claim, ui_url=self.ui_url))
            return Performed(run, too_late(run, timeout_s)) if run is not None else None

    async def perform_apart(self, claim: Claim, work: Work, timeout_s: float) -> Performed | None:
        """Do the same with the work on a thread that is none of the readers'; its queries end with its time."""
        run = await self._read(lambda connection: _load(connection, claim, self.ui_url))
        if run is None:
            return None
        reads = ReadsApart(self._readers, claim.account, claim.alert_id)
        future = self._apart.submit(work, run, reads)
        try:
            outcome = await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            return Performed(run, too_late(run, timeout_s))
        finally:
            reads.end()
        return await self._read(lambda connection: _judged(connection, run, outcome, self.host))

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def settle(self, performed: Performed) -> bool:
        """Write all that a run leaves behind, or nothing."""
        for _ in range(JUDGED_MAX):
            written = await self._settled(performed, as_judged=True)
            if not isinstance(written, Stale):
                return self._told(performed, written)
            run, outcome = performed.run, performed.outcome
            performed = await self._read(partial(_judged, run=run, outcome=outcome, host=self.host))
        written = await self._settled(performed, as_judged=False)
        assert not isinstance(written, Stale)
        return self._told(performed, written)

    async def _settled(self, performed: Performed, as_judged: bool) -> RunOutcome | Stale | None:
        # A run that tells nobody anything can share a commit: who has asked for it waits a hundredth of a second more.
        patient = not performed.outcome.notifications
        return await self._writer.run(lambda tx: _settle(tx, performed, self.log_runs, as_judged), patient)

    def _told(self, performed: Performed, written: RunOutcome | None) -> bool:
        if written is None:
            return False
        if written.notifications:
            self.queued()
        self.written(performed.run.alert.account, performed.run.alert.id)
        return True


class Stale:
    """What a run was judged by has changed before it was written."""


class _Visit:
    """What one run does on a reader's thread, and what is known of it elsewhere."""

    def __init__(self, claim: Claim, ui_url: str, host: str) -> None:
        self._claim = claim
        self._ui_url = ui_url
        self._host = host
        self._connection: sqlite3.Connection | None = None
        self.run: Run | None = None

    def whole(self, connection: sqlite3.Connection, work: Work) -> Performed | None:
        self._connection = connection
        try:
            run = self.run = _load(connection, self._claim, self._ui_url)
            if run is None:
                return None
            outcome = work(run, EventAggregates(connection, run.alert.account, run.alert.id))
            return _judged(connection, run, outcome, self._host)
        finally:
            self._connection = None

    def interrupt(self) -> None:
        """End the query under way."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()


def _release(transaction: Transaction) -> None:
    transaction.connection.execute("UPDATE alert_tasks SET lease_until = 0 WHERE lease_until <> 0")


def _claim(transaction: Transaction, limit: int, lease_us: int) -> Claims:
    connection, now = transaction.connection, transaction.log.created_at
    rows = connection.execute(
        "SELECT t.account, t.alert_id, a.alert_type_id, t.next_run_at, t.run_number, a.spec ->> '$.interval'"
        " FROM alert_tasks AS t JOIN alerts AS a ON a.account = t.account AND a.id = t.alert_id"
        " WHERE t.next_run_at <= ? AND t.lease_until <= ? ORDER BY t.next_run_at LIMIT ?",
        (now, now, limit),
    ).fetchall()
    claims = tuple(_claimed(transaction, row, lease_us) for row in rows)
    # What is due and leased is under way here: its end is noticed without asking.
    next_due = connection.execute(
        "SELECT next_run_at FROM alert_tasks WHERE next_run_at > ? ORDER BY next_run_at LIMIT 1", (now,)
    ).fetchone()
    return Claims(claims, now if len(claims) == limit else next_due[0] if next_due else None)


def _claimed(transaction: Transaction, row: tuple[str, str, str, int, int, str], lease_us: int) -> Claim:
    account, alert_id, alert_type_id, next_run_at, run_number, interval = row
    now = transaction.log.created_at
    due = _ticks(alert_id, interval).due(next_run_at, now)
    assert due is not None, "a row that is due has a tick"
    transaction.connection.execute(
        "UPDATE alert_tasks SET run_number = ?, lease_until = ?, log_position = ? WHERE account = ? AND alert_id = ?",
        (run_number + 1, now + lease_us, transaction.head, account, alert_id),
    )
    return Claim(
        account=account,
        alert_id=alert_id,
        alert_type_id=alert_type_id,
        number=run_number + 1,
        scheduled_at=due.scheduled_at,
        started_at=now,
        log_position=transaction.head,
        missed=due.missed,
    )


def _ticks(alert_id: str, interval: str) -> Ticks:
    return Ticks.of(alert_id, duration_us(interval))


def _load(connection: sqlite3.Connection, claim: Claim, ui_url: str) -> Run | None:
    with at_one_moment(connection):
        found = read_claimed(connection, claim.account, claim.alert_id, claim.number)
        if found is None:
            return None
        alert, memory, previous_started_at = found
        path = path_of(navigations.holding(connection, alert), alert) if alert.spec.actions else ""
    return Run(claim, alert, memory, previous_started_at, Place.of(ui_url, path))


def _judged(connection: sqlite3.Connection, run: Run, outcome: RunOutcome, host: str) -> Performed:
    """Ask mutes and silences as they stand now, on a thread that reads: the transaction only asks what has changed."""
    if not outcome.decisions:
        return Performed(run, outcome)
    mutes = _mutes(connection, run)
    if mutes is not None:
        run, outcome = muted(run, outcome, *mutes)
    return Performed(run, outcome, silenced_actions.judge(connection, run, outcome, run.claim.started_at, host))


def _settle(
    transaction: Transaction, performed: Performed, log_run: bool, as_judged: bool = False
) -> RunOutcome | Stale | None:
    """Write all that a run leaves behind and give it; None when the claim does not hold any more.

    Writes nothing where mutes have changed since, when it is to be written `as_judged`: a thousand messages that are
    rendered in the transaction would have everybody wait who appends.
    """
    run, outcome, judgement = performed.run, performed.outcome, performed.judgement
    mutes = _mutes(transaction.connection, run)
    if mutes is None:
        return None
    if judgement is not None and mutes != (run.alert.mute_all, run.alert.muted_instance_ids):
        if as_judged:
            return Stale()
        run, outcome = muted(run, outcome, *mutes)
        judgement = silenced_actions.anew(transaction, run, outcome)
    alert, claim = run.alert, run.claim
    silences = silenced_actions.silences_of(transaction, run, outcome, judgement)
    if silences:
        outcome = silence(run, outcome, silences)
    _write_task(transaction, run, outcome)
    _write_instances(transaction.connection, run, outcome.instances)
    transitions = (*outcome.transitions, executed(run, outcome)) if log_run else outcome.transitions
    transaction.append([own_event(alert, transition, claim.scheduled_at) for transition in transitions])
    rows = list(_deliveries(transaction, run, outcome))
    delivery_rows.insert(transaction, rows)
    made: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        made[row.subject["instance_id"]].append(row.id)
    executions.record(transaction, run, outcome, made)
    return outcome


def _mutes(connection: sqlite3.Connection, run: Run) -> tuple[bool, tuple[str, ...]] | None:
    """Read what is muted now; None when the claim does not hold any more."""
    row = connection.execute(
        "SELECT t.run_number, a.version, a.mute_all, a.muted_instance_ids FROM alert_tasks AS t"
        " JOIN alerts AS a ON a.account = t.account AND a.id = t.alert_id"
        " WHERE t.account = ? AND t.alert_id = ? AND t.next_run_at IS NOT NULL",
        (run.alert.account, run.alert.id),
    ).fetchone()
    if row is None or row[:2] != (run.claim.number, run.alert.version):
        return None
    return bool(row[2]), tuple(json.loads(row[3])) if row[3] != "[]" else ()


def _write_task(transaction: Transaction, run: Run, outcome: RunOutcome) -> None:
    alert, claim = run.alert, run.claim
    error = outcome.error
    previous = run.previous_started_at if error else claim.started_at
    next_run_at = _ticks(alert.id, alert.spec.interval).after(claim.scheduled_at)
    transaction.connection.execute(
        "UPDATE alert_tasks SET next_run_at = ?, lease_until = 0, status = ?, last_execution_at = ?,"
        " error_reason = ?, error_message = ?, state = ?, previous_started_at = ?"
        " WHERE account = ? AND alert_id = ?",
        (next_run_at, outcome.status, claim.started_at, error.reason if error else "",
         error.message if error else "", json.dumps(outcome.state), previous, alert.account, alert.id),
    )  # fmt: skip


def _write_instances(connection: sqlite3.Connection, run: Run, instances: Iterable[Instance]) -> None:
    account, alert_id, known = run.alert.account, run.alert.id, run.memory.instances
    active = {instance.id: instance for instance in instances}
    connection.executemany(
        "DELETE FROM alert_instances WHERE account = ? AND alert_id = ? AND id = ?",
        [(account, alert_id, gone) for gone in known if gone not in active],
    )
    changed = [instance for instance in active.values() if known.get(instance.id) != instance]
    connection.executemany(INSERT_INSTANCE, [instance_row(account, alert_id, i) for i in changed])


def _deliveries(transaction: Transaction, run: Run, outcome: RunOutcome) -> Iterable[Delivery]:
    notifications = outcome.notifications
    if not notifications:
        return
    waiting = _waiting(transaction.connection, run.alert)
    verdicts = {decision.instance_id: decision.verdict for decision in outcome.decisions}
    navigation = {"navigation": run.place.path} if run.place.path else {}
    for notification in notifications:
        kind, state, reason = waiting.get(notification.configuration_id, ("", State.CANCELLED, "DELETED"))
        if notification.error:
            state, reason = State.EXHAUSTED, "RENDER"
        more = {"verdict": verdicts[notification.instance_id], **navigation}
        row = _delivery(transaction, run, notification, (kind, state, reason), more)
        is_silenced = notification.silence_id and state is not State.CANCELLED
        yield silenced_actions.silenced(row, notification.silence_id) if is_silenced else row


def _waiting(connection: sqlite3.Connection, alert: Alert) -> dict[str, tuple[str, State, str]]:
    """Say for each configuration of the alert's actions how a delivery to it waits."""
    ids = sorted({action.configuration_id for action in alert.spec.actions})
    rows = connection.execute(
        "SELECT c.id, c.kind, c.enabled AND coalesce(e.enabled, 1) FROM endpoint_configurations AS c"
        " LEFT JOIN endpoints AS e ON e.kind = c.kind"
        f" WHERE c.account = ? AND c.id IN ({','.join('?' * len(ids))})",
        [alert.account, *ids],
    )
    return {id: (kind, State.PENDING, "") if on else (kind, State.PAUSED, "DISABLED") for id, kind, on in rows}


def _delivery(
    transaction: Transaction,
    run: Run,
    notification: Notification,
    wait: tuple[str, State, str],
    more: Mapping[str, str],
) -> Delivery:
    kind, state, reason = wait
    now = transaction.log.created_at
    alert, number = run.alert, run.claim.number
    place = f"{number}/{notification.instance_id}/{notification.action_index}"
    subject = {
        "alert_id": alert.id,
        "instance_id": notification.instance_id,
        "action_group": notification.group,
        "run_number": number,
        **more,
    }
    return Delivery(
        account=alert.account,
        id=transaction.runtime.new_id(),
        route_key=f"alert/{alert.id}/{place}",
        configuration_id=notification.configuration_id,
        kind=kind,
        state=state,
        reason=reason,
        created_at=now,
        due_at=now,
        ended_at=now if state in (State.CANCELLED, State.EXHAUSTED) else 0,
        alert_id=alert.id,
        subject=subject,
        content=notification.params if isinstance(notification.params, dict) else {},
    )
