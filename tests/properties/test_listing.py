"""Pages, totals and summaries of the real store say what the filter means in memory, in both orders."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain.event_log import Draft, EventHead, Key, Stored
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.summary import SummaryQuery
from tocsin_server.store import listing, selection, summary
from tocsin_server.store.appending import INSERT_EVENT, event_row
from tocsin_server.store.database import open_store
from tocsin_server.store.listing import Listing
from tocsin_server.store.wire import created_at_field, frame

from tests.properties.test_selection import FILTERS, HEADS

WHERES = st.sampled_from([
    "", "", 'event.level == "error"', "event.details.n > 1", "event.details.n == 2 || event.subtype == 'x'",
    'event.labels["k"] == "v"', "!has(event.details.n)", "event.timestamp < timestamp('1970-01-01T00:00:00.000003Z')",
])  # fmt: skip
DETAILS = st.sampled_from([None, 1, 2, "two"])
ROWS = st.lists(st.tuples(HEADS, DETAILS, st.booleans()), max_size=14)


def stored(position: int, head: EventHead, n: Any) -> Stored:
    """Make an event as the server stores it."""
    event = pb.Event(
        id=str(position), account=head.account, type=head.type, subtype=head.subtype,
        level=pb.Level.ValueType(head.level), labels=head.labels,
    )  # fmt: skip
    event.timestamp.nanos = head.timestamp * 1000
    if n is not None:
        event.details.struct_value.update({"n": n})
    draft = Draft(event.id, head, None, event.SerializeToString())
    return Stored(position, 1, draft.id, head, frame(draft.body, position, created_at_field(1)))


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("listing") / "tocsin.db"
    store = open_store(f"sqlite:///{path}", lambda: uuid.uuid4().hex)
    store.writer.connect(reuse_if_open=True)
    yield store.writer.connection()
    store.close()


def filled(connection: sqlite3.Connection, rows: list[tuple[EventHead, Any, bool]]) -> list[Stored]:
    """Put events into the empty store, some of them deleted; give those that stand."""
    connection.execute("DELETE FROM events")
    events = [stored(position, head, n) for position, (head, n, _) in enumerate(rows, 1)]
    connection.executemany(INSERT_EVENT, [event_row(event) for event in events])
    gone = [position for position, (_, _, deleted) in enumerate(rows, 1) if deleted]
    connection.executemany("UPDATE events SET deleted_at = 1 WHERE position = ?", [(p,) for p in gone])
    return [event for event in events if event.position not in gone]


def meant(events: list[Stored], wanted: EventFilter) -> list[Stored]:
    matches = wanted.matcher()
    return [event for event in events if matches(event.head, event.frame)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ROWS,
    FILTERS,
    WHERES,
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([2, 5, 20_000]),
    st.sampled_from([1, 3, 500]),
)
def test_pages_are_what_the_filter_means_in_order(
    connection: sqlite3.Connection, rows: Any, wanted: Any, where: str, newest_first: bool, size: int, scan: int,
    streams: int,
) -> None:  # fmt: skip
    """XB18, XB20: no event twice, none left out, however little one page may look at."""
    wanted = EventFilter(**{name: getattr(wanted, name) for name in wanted.__slots__} | {"where": where})
    events = filled(connection, rows)
    found: list[bytes] = []
    after: Key | None = None
    with patch.object(listing, "SCAN_EVENTS_MAX", scan), patch.object(selection, "STREAMS_MAX", streams):
        for _ in range(100):
            page = Listing(connection, wanted, newest_first).page(after, size, lambda: 0.0)
            assert len(page.frames) <= size
            found += page.frames
            if page.next_key is None:
                break
            assert after is None or page.next_key != after
            after = page.next_key
        total = Listing(connection, wanted).total(lambda: 0.0)
    ordered = sorted(meant(events, wanted), key=lambda e: (e.head.timestamp, e.position), reverse=newest_first)
    assert found == [event.frame for event in ordered]
    assert total.count == len(ordered) or (total.capped and total.count < len(ordered))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ROWS,
    FILTERS,
    WHERES,
    st.sampled_from(["", "type", "level", "host", "labels.k"]),
    st.integers(0, 2),
    st.sampled_from([2, 20_000]),
)
def test_summaries_count_what_the_filter_means(
    connection: sqlite3.Connection, rows: Any, wanted: Any, where: str, group_by: str, top: int, slice_: int
) -> None:
    wanted = EventFilter(**{name: getattr(wanted, name) for name in wanted.__slots__} | {"where": where})
    events = meant(filled(connection, rows), wanted)

    async def read(query: Any) -> Any:
        return query(connection)

    query = SummaryQuery(wanted, group_by, top, 2, None)
    with patch.object(summary, "SUMMARY_SLICE_EVENTS", slice_):
        answer = asyncio.run(summary.summarize(read, query, lambda: 0.0))
    assert answer.total == len(events)
    assert answer.counted_since is None
    values = Counter(value(event, group_by) for event in events) if group_by else Counter()
    largest = sorted(values.items(), key=lambda group: (-group[1], group[0]))[: top or 10]
    assert list(answer.groups) == largest
    assert answer.others == (len(events) - sum(count for _, count in largest) if group_by else 0)
    in_time = Counter(event.head.timestamp // 2 * 2 for event in events)
    assert {b.start: b.count for b in answer.buckets if b.count} == in_time
    starts = [b.start for b in answer.buckets]
    assert starts == list(range(starts[0], starts[-1] + 2, 2)) if starts else not events
    for bucket in answer.buckets:
        there = [event for event in events if event.head.timestamp // 2 * 2 == bucket.start]
        assert list(bucket.group_counts) == [sum(value(e, group_by) == name for e in there) for name, _ in largest]


def value(event: Stored, group_by: str) -> str:
    if group_by == "level":
        return {1: "info", 2: "error"}[event.head.level]
    if group_by == "labels.k":
        return event.head.labels.get("k", "")
    return str(getattr(event.head, group_by))


def test_a_page_looks_at_no_more_than_it_may(connection: sqlite3.Connection) -> None:
    """However rare the match: the page ends, short, and says where to go on."""
    heads = [EventHead("admin", "a", "x" if n == 0 else "", 1, "", "", "", "", "", {}, n) for n in range(30)]
    filled(connection, [(head, None, False) for head in heads])
    with patch.object(listing, "SCAN_EVENTS_MAX", 10):
        page = Listing(connection, EventFilter("admin", subtypes=("x",))).page(None, 5, lambda: 0.0)
        assert (page.frames, page.next_key) == ([], Key(20, 21))
        total = Listing(connection, EventFilter("admin", subtypes=("x",))).total(lambda: 0.0)
        assert (total.count, total.capped) == (0, True)


@pytest.mark.parametrize("where", ["", "event.type == 'a'"])
def test_a_summary_ends_at_its_bound_and_says_how_far_it_counted(connection: sqlite3.Connection, where: str) -> None:
    heads = [EventHead("admin", "a", "", 1, "", "", "", "", "", {}, n) for n in range(30)]
    filled(connection, [(head, None, False) for head in heads])

    async def read(query: Any) -> Any:
        return query(connection)

    query = SummaryQuery(EventFilter("admin", where=where), "type", 0, 10, None)
    with patch.object(summary, "SUMMARY_SLICE_EVENTS", 4), patch.object(summary, "SUMMARY_EVENTS_MAX", 8):
        answer = asyncio.run(summary.summarize(read, query, lambda: 0.0))
    assert (answer.total, answer.counted_since, answer.groups) == (8, 22, (("a", 8),))
    assert [(bucket.start, bucket.count) for bucket in answer.buckets] == [(20, 8)]


def test_a_where_is_asked_for_a_bounded_time(connection: sqlite3.Connection) -> None:
    heads = [EventHead("admin", "a", "", 1, "", "", "", "", "", {}, n) for n in range(30)]
    filled(connection, [(head, None, False) for head in heads])
    ticks = iter(range(1000))
    page = Listing(connection, EventFilter("admin", where="event.subtype == 'x'")).page(
        None, 5, lambda: next(ticks) / 10
    )
    assert page.frames == []
    assert page.next_key is not None
    assert page.next_key.timestamp > 20


def test_what_a_filter_says_uses_its_index(connection: sqlite3.Connection) -> None:
    """Each exact criterion, several values of it, and a glob over types is a run of an index in order."""
    filled(
        connection,
        [(EventHead("admin", t, "", 1, "", "r", "", "s", "h", {}, 1), None, False) for t in ("a.b", "a.c", "b")],
    )
    for wanted, index, runs in (
        (EventFilter("admin"), "events_by_time", 1),
        (EventFilter("admin", types=("a.b",)), "events_by_type", 1),
        (EventFilter("admin", types=("a.*",)), "events_by_type", 2),
        (EventFilter("admin", types=("*.c", "b")), "events_by_type", 2),
        (EventFilter("admin", types=("*",)), "events_by_time", 1),
        (EventFilter("admin", hosts=("h", "i")), "events_by_host", 2),
        (EventFilter("admin", services=("s",)), "events_by_service", 1),
        (EventFilter("admin", resource_ids=("r", "q")), "events_by_resource", 2),
        (EventFilter("admin", levels=(2,)), "events_errors", 1),
        (EventFilter(None), "events_by_time", 1),
    ):
        found = selection.streams(connection, wanted)
        assert (found.index, len(found.each), found.residual) == (index, runs, None), wanted
        for stream in found.each:
            run = f"events INDEXED BY {index} WHERE {stream.sql}"
            sql = f"SELECT position FROM {run} ORDER BY timestamp DESC, position DESC"
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", stream.values).fetchall()
            assert not [row for row in plan if "TEMP B-TREE" in row[3]], plan
