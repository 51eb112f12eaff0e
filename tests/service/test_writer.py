"""The writer over a real SQLite file: group commits, units that fail alone, positions that are not wasted."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import Append, Draft, EventHead, OwnEvent, Stored
from tocsin_server.runtime import system_runtime
from tocsin_server.store.database import Store, open_store
from tocsin_server.store.writer import QUEUE_BYTES_MAX, QUEUE_UNITS_MAX, SHARED_FROM, Transaction, Writer

RUNTIME = system_runtime()


class House:
    """A running writer and what it has told after each commit."""

    def __init__(self, store: Store) -> None:
        self.commits: list[list[Stored]] = []
        self.deleted: list[int] = []
        self.store = store
        self.writer = Writer(store, RUNTIME, self._committed)

    def _committed(self, stored: Sequence[Stored], deleted: Sequence[int]) -> None:
        self.commits.append(list(stored))
        self.deleted.extend(deleted)

    def rows(self) -> list[tuple[int, str]]:
        connection = sqlite3.connect(self.store.path)
        try:
            return connection.execute("SELECT position, type FROM events ORDER BY position").fetchall()
        finally:
            connection.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    store = open_store(f"sqlite:///{tmp_path / 'tocsin.db'}", RUNTIME.new_id)
    running = House(store)
    running.writer.start()
    yield running
    running.writer.stop()
    store.close()


def one(event_type: str, account: str = "admin") -> Append:
    head = EventHead(account, event_type, "", 1, "", "", "", "", "", {}, 0)
    return Append(account, "AppendEvent", "", b"", (Draft(RUNTIME.new_id(), head, None, b"\x22\x01a\x30\x01"),))


def own(transaction: Transaction, event_type: str) -> int:
    (position,) = transaction.append([OwnEvent("admin", event_type, "m", {})])
    return position


async def held(house: House, *work: object) -> list[object]:
    """Put several pieces of work into one group: the writer is busy while they are queued."""
    busy, go = threading.Event(), threading.Event()

    def block(transaction: Transaction) -> None:
        busy.set()
        go.wait(10)

    blocker = asyncio.create_task(house.writer.run(block))
    await asyncio.to_thread(busy.wait, 10)
    waiting: list[asyncio.Future[Any]] = [
        house.writer.append(w) if isinstance(w, Append) else asyncio.create_task(house.writer.run(w))  # type: ignore[arg-type]
        for w in work
    ]
    await asyncio.sleep(0)  # every task has put its work into the queue
    go.set()
    await blocker
    answers: list[object] = await asyncio.gather(*waiting, return_exceptions=True)
    return answers


async def test_what_waits_is_committed_together(house: House) -> None:
    answers = await held(house, *(one("a") for _ in range(64)))
    assert sorted(a[0].position for a in answers) == list(range(1, 65))  # type: ignore[index]
    assert [len(commit) for commit in house.commits] == [64]


async def test_a_unit_that_raises_is_undone_alone_and_wastes_no_position(house: House) -> None:
    def fails(transaction: Transaction) -> None:
        own(transaction, "undone")
        transaction.connection.execute("INSERT INTO endpoints VALUES ('undone', 1)")
        raise TocsinError(Reason.CONFLICT, "on purpose")

    def mistaken(transaction: Transaction) -> None:
        own(transaction, "undone")
        transaction.connection.execute("SELECT * FROM no_such_table")

    answers = await held(
        house, one("before"), fails, lambda tx: own(tx, "first"), mistaken, lambda tx: own(tx, "second"), one("after")
    )
    assert isinstance(answers[1], TocsinError)
    assert isinstance(answers[3], sqlite3.OperationalError)
    assert (answers[2], answers[4]) == (3, 4)
    assert [position for position, _ in house.rows()] == [1, 2, 3, 4]
    assert {event_type for _, event_type in house.rows()} == {"before", "after", "first", "second"}
    assert [[s.head.type for s in commit] for commit in house.commits] == [[t for _, t in house.rows()]]
    connection = sqlite3.connect(house.store.path)
    assert connection.execute("SELECT count(*) FROM endpoints").fetchone() == (0,)
    connection.close()


async def test_a_full_disk_fails_the_group_and_stores_nothing(house: House) -> None:
    """XA6: the store says so, and goes on when there is room again."""

    def limit(pages: int) -> None:
        house.writer.run_sync(lambda tx: tx.connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())

    await asyncio.to_thread(limit, 1)  # SQLite keeps the pages that are there and refuses more
    with pytest.raises(TocsinError) as caught:
        for _ in range(1000):
            head = one("a").drafts[0]
            await house.writer.append(
                Append("admin", "AppendEvent", "", b"", (head._replace(body=b"\x3a\x80\x40" + b"x" * 8192),))
            )
    assert caught.value.reason is Reason.STORAGE_FULL
    stored = len(house.rows())
    assert stored == sum(len(commit) for commit in house.commits)
    await asyncio.to_thread(limit, 1_000_000)
    (appended,) = await house.writer.append(one("again"))
    assert appended.position == stored + 1


async def test_a_caller_that_leaves_does_not_disturb_the_others(house: House) -> None:
    house.writer.append(one("left")).cancel()
    (appended,) = await house.writer.append(one("stayed"))
    assert appended.position in (1, 2)


async def test_a_queue_without_end_is_refused(house: House) -> None:
    busy, go = threading.Event(), threading.Event()

    def block(transaction: Transaction) -> None:
        busy.set()
        go.wait(10)

    blocker = asyncio.create_task(house.writer.run(block))
    await asyncio.to_thread(busy.wait, 10)
    waiting = [asyncio.create_task(house.writer.run(lambda tx: None)) for _ in range(QUEUE_UNITS_MAX)]
    await asyncio.sleep(0)  # every task has put its work into the queue
    with pytest.raises(TocsinError, match="does not keep up"):
        await house.writer.append(one("a"))
    go.set()
    await blocker
    await asyncio.gather(*waiting)


async def test_too_many_bytes_in_the_queue_are_refused(house: House) -> None:
    """XF16: OVERLOADED, and taken again when the queue is shorter."""
    busy, go = threading.Event(), threading.Event()

    def block(transaction: Transaction) -> None:
        busy.set()
        go.wait(10)

    blocker = asyncio.create_task(house.writer.run(block))
    await asyncio.to_thread(busy.wait, 10)
    large = one("large")
    (draft,) = large.drafts
    large = large._replace(drafts=(draft._replace(body=draft.body + bytes(QUEUE_BYTES_MAX // 4)),))
    waiting = []
    with pytest.raises(TocsinError, match="does not keep up") as refusal:
        for number in range(10):
            (draft,) = large.drafts
            waiting.append(house.writer.append(large._replace(drafts=(draft._replace(id=f"large-{number}"),))))
    assert refusal.value.reason is Reason.OVERLOADED
    assert len(waiting) == 3
    go.set()
    await blocker
    await asyncio.gather(*waiting)
    await house.writer.append(one("small"))


async def test_a_patient_unit_goes_with_the_next_group(house: House) -> None:
    """And is answered with it: one commit for both."""
    committed = count_commits(house)
    patient = asyncio.create_task(house.writer.run(lambda tx: own(tx, "patient"), patient=True))
    await asyncio.sleep(0)
    await house.writer.run(lambda tx: own(tx, "quick"))
    assert await patient == 2
    assert committed == ["committed"]


@pytest.mark.parametrize("appends", [1, SHARED_FROM])
async def test_a_patient_unit_goes_with_many_appends_and_lets_a_few_go_first(house: House, appends: int) -> None:
    """Whoever appends alone waits for nobody else's work; among many, one commit less is less to wait for."""
    go, busy = threading.Event(), threading.Event()

    def block(transaction: Transaction) -> None:
        busy.set()
        go.wait(10)

    blocker = asyncio.create_task(house.writer.run(block))
    await asyncio.to_thread(busy.wait, 10)
    committed = count_commits(house)
    patient = asyncio.create_task(house.writer.run(lambda tx: own(tx, "patient"), patient=True))
    await asyncio.sleep(0)
    waiting = [house.writer.append(one(f"e{number}")) for number in range(appends)]
    go.set()
    await blocker
    await asyncio.gather(*waiting)
    assert await patient == appends + 1
    assert len(committed) == (3 if appends == 1 else 2)  # the one of the blocker is the first


async def test_a_patient_unit_alone_does_not_wait_for_ever(house: House) -> None:
    async with asyncio.timeout(10):
        assert await house.writer.run(lambda tx: own(tx, "patient"), patient=True) == 1


async def test_a_patient_unit_is_run_before_the_writer_stops(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'tocsin.db'}", RUNTIME.new_id)
    running = House(store)
    running.writer.start()
    patient = asyncio.create_task(running.writer.run(lambda tx: own(tx, "patient"), patient=True))
    await asyncio.sleep(0)
    await asyncio.to_thread(running.writer.stop)
    assert await patient == 1
    assert running.rows() == [(1, "patient")]
    store.close()


def count_commits(house: House) -> list[str]:
    """Collect a word for each commit from now on."""
    committed: list[str] = []
    house.writer._moment = lambda name: committed.append(name) if name == "committed" else None
    return committed
