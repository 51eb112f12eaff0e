"""Retention: events that are too old, or more than an account keeps, go in small steps; then the file shrinks.

The *horizon* of an account is the oldest position that it can still read. It is raised in memory before
a step deletes anything, so that nobody who follows the log passes over what is gone without being told,
and it is stored in the transaction of the step. Events that the router has not passed stay, and bodies
that open deliveries need are hidden, not forgotten.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from tocsin_server.domain.ports import Runtime
from tocsin_server.store.database import Readers
from tocsin_server.store.event_log import ROUTER, cursor_position, delete_rows, position_before
from tocsin_server.store.tail import EVERYBODY, Tail
from tocsin_server.store.writer import Transaction, Writer

T = TypeVar("T")
log = structlog.get_logger("tocsin.store")
STEP_EVENTS = 200  # about 10 ms of the writer
SCAN_EVENTS = 20_000  # looked at in one step where an account's events are sparse
PAUSE_S = 0.1  # longest pause between steps: half of the writer's time stays with the others
FREE_PAGES_KEPT = 2_500  # 10 MB that the next events will fill; what is beyond it is given back
VACUUM_PAGES = 500  # pages given back in one step


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept: events younger than `max_age_us`, the newest `max_events` of each account; 0 is no bound."""

    max_age_us: int
    max_events: int


@dataclass(frozen=True, slots=True)
class _Step:
    """What one step deletes: rows of (position, account, id), and whose horizon rises to where."""

    account: str
    rows: list[tuple[int, str, str]]
    reached: int


@dataclass(slots=True)
class _Excess:
    """How many events accounts have too many, as long as nobody else deletes: counting looks at every event."""

    of: dict[str, int]
    deleted: int  # by anybody, when it was counted and since then by these steps

    def lower(self, step: _Step) -> None:
        """Take over that a step is done."""
        self.deleted += len(step.rows)
        self.of[step.account] -= len(step.rows)
        if self.of[step.account] <= 0:
            del self.of[step.account]


class Retention:
    """Takes one short step at a time."""

    def __init__(self, writer: Writer, readers: Readers, tail: Tail, runtime: Runtime, rules: Rules) -> None:
        self._writer = writer
        self._readers = readers
        self._tail = tail
        self._runtime = runtime
        self._rules = rules
        self._excess: _Excess | None = None
        # The router moves only now and then while nobody waits for events: retention has it move.
        self.nudge_router: Callable[[], None] = lambda: None

    async def step(self) -> bool:
        """Delete some of what need not be kept, or give some space back; False when there is nothing to do."""
        began = self._runtime.monotonic()
        old = await self._read(self._too_old)
        found = old or await self._read(self._too_many)
        if found is not None:
            await self._delete(found)
            if self._excess is not None and old is None:
                self._excess.lower(found)
        elif not await self._writer.run(_give_space_back):
            return False
        await asyncio.sleep(min(self._runtime.monotonic() - began, PAUSE_S))
        return True

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def _delete(self, step: _Step) -> None:
        self._tail.raise_horizon(step.account, step.reached + 1)
        self._runtime.moment("horizon raised")

        def unit(transaction: Transaction) -> None:
            delete_rows(transaction, step.rows)
            transaction.connection.execute(
                "INSERT INTO horizons (account, position) VALUES (?, ?)"
                " ON CONFLICT (account) DO UPDATE SET position = max(position, excluded.position)",
                (step.account, step.reached + 1),
            )

        await self._writer.run(unit)
        log.debug("retention deleted events", account=step.account or "all", upto=step.reached, count=len(step.rows))

    def _too_old(self, connection: sqlite3.Connection) -> _Step | None:
        if not self._rules.max_age_us:
            return None
        upto = position_before(connection, self._runtime.now() - self._rules.max_age_us)
        upto = min(upto, self._routed(connection, upto))
        after = self._tail.horizon(EVERYBODY) - 1
        rows = connection.execute(
            "SELECT position, account, id FROM events NOT INDEXED"
            " WHERE position > ? AND position <= ? AND deleted_at = 0 ORDER BY position LIMIT ?",
            (after, upto, STEP_EVENTS),
        ).fetchall()
        return _Step(EVERYBODY, rows, rows[-1][0] if len(rows) == STEP_EVENTS else upto) if rows else None

    def _routed(self, connection: sqlite3.Connection, wanted: int) -> int:
        routed = cursor_position(connection, ROUTER)
        if routed < wanted:
            self.nudge_router()
        return routed

    def _too_many(self, connection: sqlite3.Connection) -> _Step | None:
        if not self._rules.max_events:
            return None
        excess = self._excess
        if excess is None or not excess.of or excess.deleted != self._tail.deleted:
            deleted = self._tail.deleted  # looked at first: what is deleted meanwhile has it counted again
            excess = self._excess = _Excess(self._count(connection), deleted)
        steps = (self._oldest(connection, account, count) for account, count in excess.of.items())
        found = next((step for step in steps if step is not None), None)
        if found is None:
            self._excess = None
        return found

    def _count(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Count what accounts have too many: milliseconds for each hundred thousand events that there are."""
        # Hidden events stand for nobody: whoever keeps 5,000 can read 5,000, whatever is still being delivered.
        hidden = (
            "(SELECT count(*) FROM events AS hidden INDEXED BY events_hidden"
            " WHERE hidden.deleted_at <> 0 AND hidden.account = events.account)"
        )
        most = self._rules.max_events
        counts = connection.execute(
            f"SELECT account, count(*) - {hidden} FROM events INDEXED BY events_by_time"
            f" GROUP BY account HAVING count(*) > ? AND count(*) - {hidden} > ?",
            (most, most),
        )
        return {account: count - most for account, count in counts}

    def _oldest(self, connection: sqlite3.Connection, account: str, excess: int) -> _Step | None:
        """Find the oldest events of an account that has too many."""
        routed = self._routed(connection, self._tail.head)
        after = self._tail.horizon(account) - 1
        limit = min(excess, STEP_EVENTS)
        while after < routed:
            upto = min(after + SCAN_EVENTS, routed)
            rows = connection.execute(
                "SELECT position, account, id FROM events NOT INDEXED"
                " WHERE position > ? AND position <= ? AND account = ? AND deleted_at = 0 ORDER BY position LIMIT ?",
                (after, upto, account, limit),
            ).fetchall()
            if rows:
                return _Step(account, rows, rows[-1][0])
            after = upto
        return None


def _give_space_back(transaction: Transaction) -> bool:
    """Return free pages to the file system, some at a time; False when few are free."""
    (free,) = transaction.connection.execute("PRAGMA freelist_count").fetchone()
    if free <= FREE_PAGES_KEPT:
        return False
    (mode,) = transaction.connection.execute("PRAGMA auto_vacuum").fetchone()
    if not mode:
        return False  # a store from before: only VACUUM could, and nobody could write meanwhile
    for _ in range(min(VACUUM_PAGES, free - FREE_PAGES_KEPT)):
        # One page at a time: of a pragma without columns Python takes only the first row, and so the first page.
        transaction.connection.execute("PRAGMA incremental_vacuum(1)")
    return True


def horizons(connection: sqlite3.Connection) -> dict[str, int]:
    """Read the horizons that are stored."""
    return dict(connection.execute("SELECT account, position FROM horizons").fetchall())
