"""The one writer: every change of the store goes through its thread, many in one commit.

Units of work wait in a queue. The writer takes all that wait, up to a bound, runs them in one
transaction - appends merged into one statement, every other unit in a savepoint of its own - and
answers after COMMIT. What it has answered is on disk (WAL, synchronous=FULL). A unit that raises is
undone alone and its neighbours go on; a commit that fails answers every unit of it with
STORAGE_FAILED or STORAGE_FULL, and nothing of it is stored.

A commit is what costs. So a unit for which nobody waits is patient: it goes with the next group that
has to be written, unless that is one of a few appends, which would wait for it. And what follows from an
append at once may go with it (`Company`).
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import Append, Appended, OwnEvent, Stored
from tocsin_server.domain.ports import Runtime
from tocsin_server.store import appending, wire
from tocsin_server.store.database import LogFile, Store, StoreFile
from tocsin_server.store.storage_faults import is_io_fault, is_storage_fault, storage_failure

log = structlog.get_logger("tocsin.store")
T = TypeVar("T")
GROUP_EVENTS_MAX = 1000  # one transaction stays short
GROUP_UNITS_MAX = 512
PATIENCE_S = 0.01  # longest wait of a patient unit
SHARED_FROM = 4  # units of a group with appends with which patient ones go: fewer would wait for these
WINDOW_S = 0.001  # longest wait for company; an append alone never waits
SLOW_COMMIT_S = 0.0005  # below this a commit is cheaper than waiting for company
GROUP_BYTES_MAX = 8 * 1024 * 1024  # and does not hold much in memory
# Beyond these the disk does not keep up: refuse rather than grow.
QUEUE_UNITS_MAX = 20_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024


@dataclass(slots=True)
class Transaction:
    """What a unit of work may do while its transaction is open."""

    connection: sqlite3.Connection
    runtime: Runtime
    log: appending.LogAppender

    @property
    def head(self) -> int:
        """The newest position of the log, the events of this transaction included."""
        return int(self.log.head)

    def append(self, events: Sequence[OwnEvent]) -> list[int]:
        """Append events of tocsin's own and give their positions."""
        now, runtime = self.log.created_at, self.runtime
        return self.log.store([wire.own_draft(event, runtime.new_id(), now, runtime.host) for event in events])


Unit = Callable[[Transaction], T]
# Told after each COMMIT, on the writer's thread: what was stored and which positions were deleted.
OnCommit = Callable[[Sequence[Stored], Sequence[int]], None]


@dataclass(frozen=True, slots=True)
class Company:
    """What goes with appended events into their transaction, in a savepoint of its own.

    `unit` is None where nothing is to be written. `ended` is told, on the writer's thread and before anybody
    hears of the events, whether they are committed, and what the unit has answered: None when it was undone.
    """

    unit: Unit[Any] | None
    ended: Callable[[bool, Any], None]


# Asked before COMMIT, on the writer's thread, what goes with events; the position before them is given too.
Accompany = Callable[[int, Sequence[Stored]], Company | None]


class _Work:
    """A unit or an append, and who waits for it."""

    __slots__ = ("answer", "append", "error", "loop", "size", "unit", "waiter")

    def __init__(self, unit: Unit[Any] | None, append: Append | None) -> None:
        self.unit = unit
        self.append = append
        self.size = sum([len(draft.body) for draft in append.drafts]) if append is not None else 0
        self.answer: Any = None
        self.error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.waiter: asyncio.Future[Any] | Future[Any] | None = None

    def settle(self) -> None:
        waiter = self.waiter
        if waiter is None or waiter.done():
            return
        if self.error is not None:
            waiter.set_exception(self.error)
        else:
            waiter.set_result(self.answer)


class Writer:
    """Runs units of work in group commits on one thread; see the module's docstring."""

    def __init__(self, store: Store, runtime: Runtime, on_commit: OnCommit) -> None:
        self._store = store
        self._runtime = runtime
        self._moment = runtime.moment
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._patient: deque[_Work] = deque()
        self._company: tuple[Company, Any] | None = None  # with the answer of its unit
        self.accompany: Accompany = lambda before, events: None
        # Bytes of all appends that were ever put into the queue and taken out of it, each counted by one thread.
        self._bytes_put = self._bytes_taken = 0
        self._thread = threading.Thread(target=self._loop, name="writer", daemon=True)
        self._connection: sqlite3.Connection
        self._file, self._log_file = StoreFile(store.path), LogFile(store.path)
        self._last_group = 1
        self._last_commit_s = 0.0
        self.fatal: Callable[[BaseException], None] = lambda error: None
        self.full: Callable[[], None] = lambda: None  # told on the writer's thread when there is no room on the disk
        self.after_commit: Callable[[], None] = lambda: None  # told after each COMMIT, on the writer's thread

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Run what waits, then end the thread. Later units are never answered."""
        self.hurry()
        self._queue.put(None)
        self._thread.join()

    def append(self, append: Append) -> asyncio.Future[list[Appended]]:
        """Store events; durable when the answer is there. Appends are stored in the order of these calls."""
        work = _Work(None, append)
        self.refuse(work.size)
        waiter = self._await(work)
        self._bytes_put += work.size
        return waiter

    def refuse(self, size: int) -> None:
        """Refuse an append of so many bytes if it would have to wait behind too many; OVERLOADED."""
        if self._bytes_put - self._bytes_taken + size > QUEUE_BYTES_MAX:
            raise overloaded()

    @property
    def waiting(self) -> tuple[int, int]:
        """How many units of work wait, and how many bytes the appends have that do."""
        return self._queue.qsize() + len(self._patient), max(self._bytes_put - self._bytes_taken, 0)

    async def run(self, unit: Unit[T], patient: bool = False) -> T:
        """Run a unit of work in a transaction; committed when this returns. A patient one may wait for company."""
        answer: T = await self._await(_Work(unit, None), patient)
        return answer

    async def passed(self) -> None:
        """Wait until what was put into the queue before is done, however long the queue is."""
        work = _Work(lambda transaction: None, None)
        work.loop = asyncio.get_running_loop()
        work.waiter = work.loop.create_future()
        self._queue.put(work)
        await work.waiter

    def run_sync(self, unit: Unit[T]) -> T:
        """Run a unit of work from a thread that has no event loop."""
        work = _Work(unit, None)
        waiter: Future[T] = Future()
        work.waiter = waiter
        self._queue.put(work)
        return waiter.result()

    def _await(self, work: _Work, patient: bool = False) -> asyncio.Future[Any]:
        if self._queue.qsize() >= QUEUE_UNITS_MAX:
            raise overloaded()
        work.loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = work.loop.create_future()
        work.waiter = waiter
        if patient:
            self._patient.append(work)
            work.loop.call_later(PATIENCE_S, self._hurry, work)
        else:
            self._queue.put(work)
        return waiter

    def hurry(self) -> None:
        """Let no patient unit wait any longer: somebody waits for one of them."""
        for work in list(self._patient):
            self._hurry(work)

    def _hurry(self, work: _Work) -> None:
        """Let a patient unit wait no longer, if it still does."""
        try:
            self._patient.remove(work)
        except ValueError:
            return
        self._queue.put(work)

    def _loop(self) -> None:
        database = self._store.writer
        database.connect(reuse_if_open=True)
        self._connection = database.connection()
        try:
            while (first := self._queue.get()) is not None:
                group, ended = self._gather(first)
                self._step(group)
                self._shorten_log()
                if ended:
                    break
        finally:
            database.close()

    def _shorten_log(self) -> None:
        try:
            self._log_file.keep_short(self._connection, self._runtime.monotonic())
        except sqlite3.Error as error:  # a full disk or a busy file: the next time will do
            if is_io_fault(error):
                self.fatal(error)

    def _gather(self, first: _Work) -> tuple[list[_Work], bool]:
        """Take what waits; wait a moment for company when the last group had some."""
        group, events, size = [first], _events(first), first.size
        window_end = 0.0
        if self._last_group > 1 and self._last_commit_s > SLOW_COMMIT_S:
            window_end = self._runtime.monotonic() + WINDOW_S
        while events < GROUP_EVENTS_MAX and len(group) < GROUP_UNITS_MAX and size < GROUP_BYTES_MAX:
            try:
                work = self._next(window_end if len(group) < self._last_group else 0.0)
            except queue.Empty:
                break
            if work is None:
                return group, True
            group.append(work)
            events, size = events + _events(work), size + work.size
        self._last_group = len(group)
        if len(group) >= SHARED_FROM or all(work.append is None for work in group):
            group += self._patient_ones(GROUP_UNITS_MAX - len(group))
        self._bytes_taken += size
        return group, False

    def _patient_ones(self, most: int) -> list[_Work]:
        found: list[_Work] = []
        while self._patient and len(found) < most:
            try:
                found.append(self._patient.popleft())
            except IndexError:  # the last one was in a hurry just now
                break
        return found

    def _next(self, window_end: float) -> _Work | None:
        wait = window_end - self._runtime.monotonic() if window_end else 0.0
        return self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()

    def _step(self, group: list[_Work]) -> None:
        """Run one group in one transaction, tell of it, and answer everybody in it."""
        self._moment("group taken")
        try:
            log = self._commit(group)
        except BaseException as error:
            with suppress(Exception):  # its own fault; those who wait are answered all the same
                self._end_company(committed=False)
            failure = storage_failure(error)
            if isinstance(failure, TocsinError) and failure.reason is Reason.STORAGE_FULL:
                self.full()
            for work in group:
                work.error = failure
            if is_io_fault(error) or not isinstance(error, Exception):
                # After a failed fsync the page cache cannot be trusted: reopen the store from disk.
                self.fatal(error)
        else:
            self._publish(log)
            self._moment("published")
        self._answer(group)
        self._moment("answered")

    def _end_company(self, committed: bool) -> None:
        if self._company is not None:
            company, answer = self._company
            self._company = None
            company.ended(committed, answer)

    def _publish(self, log: appending.LogAppender) -> None:
        """Tell of what is committed. It stands whatever happens here; without it followers would miss events."""
        try:
            self._end_company(committed=True)
            if log.stored or log.deleted:
                self._on_commit(log.stored, log.deleted)
            self.after_commit()
        except BaseException as error:
            self.fatal(error)

    def _commit(self, group: list[_Work]) -> appending.LogAppender:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        self._moment("transaction begun")
        try:
            log = self._run_group(connection, group)
            self._moment("rows written")
            self._file.require()
            began = self._runtime.monotonic()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._last_commit_s = self._runtime.monotonic() - began
        self._moment("committed")
        return log

    def _run_group(self, connection: sqlite3.Connection, group: list[_Work]) -> appending.LogAppender:
        log = appending.LogAppender(connection, self._runtime.now())
        appends = [work for work in group if work.append is not None]
        outcomes = log.append_all([work.append for work in appends if work.append is not None])
        for work, outcome in zip(appends, outcomes, strict=True):
            if isinstance(outcome, TocsinError):
                work.error = outcome
            else:
                work.answer = outcome
        if len(appends) < len(group):
            transaction = Transaction(connection, self._runtime, log)
            for work in group:
                if work.unit is not None:
                    self._run_unit(work, transaction)
        log.flush()
        if log.stored and not log.deleted:
            self._take_company(Transaction(connection, self._runtime, log))
        return log

    def _take_company(self, transaction: Transaction) -> None:
        """Run what goes with the events of this transaction; its failure is not theirs."""
        events = transaction.log.stored
        company = self.accompany(events[0].position - 1, events)
        if company is None:
            return
        self._company = company, None
        if company.unit is not None:
            work = _Work(company.unit, None)
            self._run_unit(work, transaction)
            self._company = company, work.answer
            if work.error is not None:
                log.error("what goes with events was undone", exc_info=work.error)

    @staticmethod
    def _run_unit(work: _Work, transaction: Transaction) -> None:
        assert work.unit is not None
        mark = transaction.log.mark()
        transaction.connection.execute("SAVEPOINT unit")
        try:
            work.answer = work.unit(transaction)
        except Exception as error:
            if is_storage_fault(error):
                raise
            transaction.connection.execute("ROLLBACK TO unit")
            transaction.log.rewind(mark)
            work.error = error
        transaction.connection.execute("RELEASE unit")

    @staticmethod
    def _answer(group: list[_Work]) -> None:
        """Wake the waiters: one call into each event loop for the whole group."""
        by_loop: dict[asyncio.AbstractEventLoop | None, list[_Work]] = {}
        for work in group:
            by_loop.setdefault(work.loop, []).append(work)
        for loop, works in by_loop.items():
            if loop is None:
                _settle_all(works)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(_settle_all, works)


def _settle_all(works: list[_Work]) -> None:
    for work in works:
        work.settle()


def overloaded() -> TocsinError:
    """Refuse what would have to wait in memory for a disk that does not keep up."""
    return TocsinError(Reason.OVERLOADED, "the store does not keep up; nothing was stored, try again", retry_s=1.0)


def _events(work: _Work) -> int:
    return len(work.append.drafts) if work.append is not None else 1
