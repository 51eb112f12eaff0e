"""Faults of the store and of the clock: a busy file, a long read, repeats at once, time that jumps."""

from __future__ import annotations

import ast
import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import tocsin_server
from tocsin.v1 import annotations_pb2
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.runtime import system_runtime
from tocsin_server.store import database
from tocsin_server.store.database import Readers, StoreError, open_store

from tests.support.servers import Api, Refusal, Subscriber, refused, serving

BEGINNING = pb.SubscribeRequest.Beginning()
BEGIN = re.compile(r"\s*BEGIN(\s+(DEFERRED|IMMEDIATE|EXCLUSIVE|TRANSACTION))*\s*;?\s*", re.IGNORECASE)
SOURCE = Path(tocsin_server.__file__).parent


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[None]:
    """Hold the write lock of a store from outside."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_busy_file_is_waited_for_and_then_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XA8: a bounded wait, then UNAVAILABLE with the time to wait; nothing is lost and nothing stored twice."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.3)
    request = pb.AppendEventRequest(event=pb.Event(id="e", type="t"))
    async with serving(tmp_path) as api:
        async with writing(tmp_path / "tocsin.db"):
            refusal = await refused(api.events.AppendEvent(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_FAILED")
        assert refusal.retry_s is not None
        assert (await api.events.AppendEvent(request)).event.position == 1


async def test_a_short_lock_is_not_even_noticed(tmp_path: Path) -> None:
    """XA8."""
    async with serving(tmp_path) as api:
        async with writing(tmp_path / "tocsin.db"):
            appending = asyncio.ensure_future(api.append("t"))
            await api.events.ListEvents(pb.ListEventsRequest())  # reads go on
        assert (await appending).position == 1


# Of Peewee, which only the store knows.
BEGINNERS = {"atomic", "transaction", "savepoint", "manual_commit", "session_start", "begin"}


def transactions_in(source: str, peewee: bool) -> list[str]:
    """Give what begins a transaction in a text: a statement, however it is executed, or a call of Peewee's."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and BEGIN.fullmatch(node.value):
            found.append(node.value)
        if (
            peewee
            and isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in BEGINNERS
        ):
            found.append(f"{ast.unparse(node.func)}()")
    return found


def test_only_the_writer_begins_transactions_and_always_to_write() -> None:
    """XA9: no read is ever turned into a write: it would fail at once, whatever the timeout."""
    begins = {
        str(path.relative_to(SOURCE)): found
        for path in SOURCE.rglob("*.py")
        if (found := transactions_in(path.read_text(encoding="utf-8"), "store" in path.parts))
    }
    assert begins == {
        "store/writer.py": ["BEGIN IMMEDIATE"],
        # At start, before there is a writer, over Peewee's database of it: that one begins to write.
        # And a few reads as of one commit, over connections that cannot write.
        "store/database.py": ["database.atomic()", "BEGIN"],
        # One snapshot, over a connection that cannot write.
        "store/checking.py": ["BEGIN"],
    }
    text = "c.execute(sql='begin deferred'); db.atomic(); 'It may BEGIN'"
    assert sorted(transactions_in(text, peewee=True)) == ["begin deferred", "db.atomic()"]


def test_the_start_begins_to_write_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XA9: whatever Peewee begins in a start, migrations included, it begins to write."""
    said: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(said.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    open_store(f"sqlite:///{tmp_path / 'tocsin.db'}", lambda: "0" * 32).close()
    assert {sql for sql in said if BEGIN.fullmatch(sql)} == {"BEGIN IMMEDIATE"}


def test_readers_cannot_write(tmp_path: Path) -> None:
    """XA9."""
    store = open_store(f"sqlite:///{tmp_path / 'tocsin.db'}", lambda: "0" * 32)
    readers = Readers(store)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        readers.submit(lambda c: c.execute("UPDATE log_head SET head = 7")).result()
    readers.close()
    store.close()


async def test_streams_hold_no_read_open(tmp_path: Path) -> None:
    """XA10: with subscribers and a page half read the log can be written back and cut off."""
    async with serving(tmp_path) as api:
        await api.events.AppendEvents(pb.AppendEventsRequest(events=[pb.Event(type="t")] * 500))
        subscribers = [Subscriber(api, beginning=BEGINNING) for _ in range(20)]
        await asyncio.gather(*(s.until(step="caught_up") for s in subscribers))
        await api.events.ListEvents(pb.ListEventsRequest(page_size=10))
        with sqlite3.connect(tmp_path / "tocsin.db") as connection:
            busy, left, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.close()
        assert (busy, left) == (0, 0)
        await asyncio.gather(*(s.close() for s in subscribers))


async def test_a_log_that_a_long_read_made_long_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XA10: while somebody else reads, the log grows; when the read is over, it is short again."""
    monkeypatch.setattr(database, "WAL_BYTES_KEPT", 1024 * 1024)
    monkeypatch.setattr(database, "WAL_LOOK_S", 0.0)
    log = tmp_path / "tocsin.db-wal"
    big = pb.AppendEventsRequest(events=[pb.Event(type="t", message="x" * 4000)] * 300)
    async with serving(tmp_path) as api:
        await api.append("t")
        reader = sqlite3.connect(tmp_path / "tocsin.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        for _ in range(3):
            await api.events.AppendEvents(big)
        grown = log.stat().st_size
        assert grown > 3 * 1024 * 1024
        reader.execute("COMMIT")
        reader.close()
        await api.append("t")
        async with asyncio.timeout(10):
            while log.stat().st_size > 1024 * 1024:
                await api.append("t")
        assert (await api.events.GetLogStatus(pb.GetLogStatusRequest())).event_count >= 902


@pytest.mark.parametrize(("pragma", "value"), [("synchronous", "normal"), ("journal_mode", "delete")])
def test_a_store_that_would_not_be_durable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pragma: str, value: str
) -> None:
    """XA13."""
    monkeypatch.setitem(database.PRAGMAS, pragma, value)
    with pytest.raises(StoreError, match="would not be safe"):
        open_store(f"sqlite:///{tmp_path / 'tocsin.db'}", lambda: "0" * 32)


async def test_a_clock_that_jumps_changes_no_order(tmp_path: Path) -> None:
    """XA19: an hour back, a year ahead and back again; positions and times of storing never fall."""
    system = system_runtime()
    jump_s = [0]
    runtime = replace(system, now=lambda: system.now() + jump_s[0] * 1_000_000)
    async with serving(tmp_path, runtime) as api:
        follower = Subscriber(api)
        await follower.until(step="caught_up")
        for jump_s[0] in (0, -3600, 365 * 86_400, 0, -7200):
            await api.append("t")
        await follower.until(count=5)
        assert follower.positions == [1, 2, 3, 4, 5]
        stored = [event.created_at.ToMicroseconds() for event in follower.events]
        assert stored == sorted(stored)
        await follower.close()
        jump_s[0] = 0
    async with serving(tmp_path) as api:  # a start does not forget it either
        assert (await api.append("t")).created_at.ToMicroseconds() >= stored[-1]


@pytest.mark.parametrize("given", ["id", "request_id"])
async def test_concurrent_repeats_are_one_event(api: Api, given: str) -> None:
    """XA21, in one process: one wins, the others answer its position."""
    event = pb.Event(id="e", type="t") if given == "id" else pb.Event(type="t")
    request = pb.AppendEventRequest(event=event, request_id="r" if given == "request_id" else "")
    answers = await asyncio.gather(*(api.events.AppendEvent(request) for _ in range(50)))
    assert {answer.event.position for answer in answers} == {1}
    assert len({answer.event.id for answer in answers}) == 1
    assert (await api.events.GetLogStatus(pb.GetLogStatusRequest())).head == 1


DIGESTS = re.compile(r"known digest ([0-9a-f]{32}), given ([0-9a-f]{32})")


async def appended(api: Api, way: str, event: pb.Event) -> tuple[int, tuple[str, str]]:
    """Append an event by one of the three ways: give its position, or 0 and the digests of the refusal."""
    if way == "Ingest":
        (told,) = [answer async for answer in api.events.Ingest(iter([pb.IngestRequest(events=[event])]))]
        (batch,) = told.batches
        if not batch.HasField("refusal"):
            return batch.results[0].position, ("", "")
        assert batch.refusal.reason == annotations_pb2.ERROR_REASON_ID_REUSED
        return 0, digests(batch.refusal.violations[0].description)
    try:
        if way == "AppendEvent":
            answer = await api.events.AppendEvent(pb.AppendEventRequest(event=event))
            return answer.event.position, ("", "")
        answers = await api.events.AppendEvents(pb.AppendEventsRequest(events=[event]))
        return answers.results[0].position, ("", "")
    except grpc.aio.AioRpcError as error:
        refusal = Refusal(error)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ID_REUSED")
        (description,) = refusal.fields.values()
        return 0, digests(description)


def digests(text: str) -> tuple[str, str]:
    """Give the known and the given digest that a refusal names."""
    found = DIGESTS.search(text)
    assert found is not None, text
    return found[1], found[2]


@pytest.mark.parametrize("contents", ["the same", "others"])
async def test_an_id_that_comes_at_once_by_every_way_is_one_event(api: Api, contents: str) -> None:
    """XA20, XA21: the same content is stored once and everybody is told where; of others one wins, the rest hear it."""
    ways = ["AppendEvent", "AppendEvents", "Ingest"] * 15
    for place in range(1, 7):
        ways = ways[1:] + ways[:1]  # another one is first
        events = [pb.Event(id=f"e{place}", type="t" if contents == "the same" else f"t{n}") for n in range(len(ways))]
        answers = await asyncio.gather(*(appended(api, *one) for one in zip(ways, events, strict=True)))
        stored = (await api.events.GetEvent(pb.GetEventRequest(id=f"e{place}"))).event
        assert (await api.events.GetLogStatus(pb.GetLogStatusRequest())).head == stored.position == place
        if contents == "the same":
            assert answers == [(place, ("", ""))] * len(ways)
            continue
        (winner,) = [n for n, (position, _) in enumerate(answers) if position]
        assert (answers[winner][0], events[winner].type) == (place, stored.type)
        losers = [told for position, told in answers if not position]
        assert len({known for known, _ in losers}) == 1
        assert len({given for _, given in losers}) == len(losers) == len(ways) - 1
        assert losers[0][0] not in {given for _, given in losers}


async def test_a_deletion_takes_what_stood_when_it_began(api: Api) -> None:
    """XA22: events that come meanwhile stay, and a call that breaks off can be repeated."""
    for _ in range(3):
        await api.events.AppendEvents(pb.AppendEventsRequest(events=[pb.Event(type="t")] * 1000))
    broken: Any = api.events.DeleteEvents(pb.DeleteEventsRequest(all=True))
    gone = list((await broken.read()).progress.ids)
    broken.cancel()
    call: Any = api.events.DeleteEvents(pb.DeleteEventsRequest(all=True))
    first = await call.read()
    late = await api.append("late")
    again = list(first.progress.ids)
    while (step := await call.read()) is not grpc.aio.EOF:
        again += step.progress.ids
    assert late.id not in again
    assert not set(gone) & set(again)
    assert [event.id for event in (await api.events.ListEvents(pb.ListEventsRequest())).events] == [late.id]
