"""What a replay reads: a slide answers what the store answers, and reads each event once."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin_server.domain.aggregation import EventQuestion
from tocsin_server.domain.event_log import EventHead, Stored
from tocsin_server.domain.selection import EventFilter
from tocsin_server.store import replaying
from tocsin_server.store.appending import INSERT_EVENT, event_row
from tocsin_server.store.database import open_store
from tocsin_server.store.event_aggregates import EventAggregates
from tocsin_server.store.replaying import ReplayReads
from tocsin_server.store.wire import created_at_field, frame

from tests.support.alert_house import T0

SECOND = 1_000_000

NUMBERS = st.one_of(st.none(), st.integers(-5, 5), st.floats(-1e3, 1e3), st.sampled_from(["x", True]))
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 60),  # when it happened, seconds
        st.integers(-5, 30),  # how much later it was stored
        st.sampled_from(["", "a", "b"]),  # its resource
        st.sampled_from(["h", "g"]),
        NUMBERS,
    ),
    max_size=40,
)
QUESTIONS = st.fixed_dictionaries(
    {
        "aggregation": st.sampled_from(["count", "distinct", "latest", "sum", "avg", "max", "p90"]),
        "group_by": st.sampled_from([(), ("resource_id",), ("resource_id", "host"), ("details.n",)]),
        "drop_missing": st.booleans(),
        "at_least": st.integers(1, 2),
        "at_most": st.sampled_from([None, 3]),
        "limit": st.sampled_from([1, 1000]),
        "where": st.sampled_from(["", "has(event.details.n)"]),
    }
)


def rows(events: list[tuple[int, int, str, str, Any]]) -> Iterator[tuple[object, ...]]:
    for position, (second, late, resource, host, number) in enumerate(events, 1):
        at, created = T0 + second * SECOND, T0 + (second + late) * SECOND
        message = log_pb.Event(id=f"e{position}", account="acme", type="t", level=log_pb.LEVEL_INFO)
        if number is not None:
            message.details.struct_value.update({"n": number})
        head = EventHead("acme", "t", "", 1, "", resource, "", "", host, {}, at)
        body = frame(message.SerializeToString(), position, created_at_field(created))
        yield event_row(Stored(position, created, message.id, head, body))


@given(
    EVENTS, QUESTIONS, st.integers(1, 20), st.integers(1, 15), st.integers(0, 5), st.sampled_from([0, 1, 3]),
    st.integers(0, 30), st.sampled_from([1, 8, 1000]),
)  # fmt: skip
def test_a_slide_answers_what_the_store_answers(
    events: list[tuple[int, int, str, str, Any]],
    asked: dict[str, Any],
    window: int,
    step: int,
    delay: int,
    references: int,
    apart: int,
    kept: int,
) -> None:
    """At each step, of each reference, whatever came late, whatever the aggregate, however little is kept."""
    field = {"distinct": "host", "sum": "details.n", "avg": "details.n", "max": "details.n", "p90": "details.n"}
    where = asked.pop("where")
    with (
        closing(sqlite3.connect(EMPTY)) as source,
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("tocsin_server.store.replay_feed.KEPT_MAX", kept)
        source.backup(connection)
        connection.executemany(INSERT_EVENT, rows(events))
        slide, store = ReplayReads(connection, "acme", "x"), EventAggregates(connection, "acme", "x")
        for second in range(0, 100, step):
            at = T0 + second * SECOND
            for back in range(references + 1):
                before = at - (delay + back * (window + apart)) * SECOND
                events_ = EventFilter("acme", since=before - window * SECOND, before=before, where=where)
                question = EventQuestion(events_, at, field=field.get(asked["aggregation"], ""), **asked)
                assert slide.aggregate(question) == store.aggregate(question)
        if kept > len(events):
            assert slide.events <= len(events)


def test_a_window_and_its_references_read_each_event_once() -> None:
    """As many as `.event-spike` has, one after another and a while apart; all are followed, not asked anew."""
    with closing(sqlite3.connect(EMPTY)) as source, closing(sqlite3.connect(":memory:")) as connection:
        source.backup(connection)
        connection.executemany(INSERT_EVENT, rows([(second, 0, "a", "h", None) for second in range(100)]))
        for apart in (2, 3):
            slide = ReplayReads(connection, "acme", "x")
            asked: list[object] = []
            slide._store.aggregate = asked.append  # type: ignore[method-assign, assignment]
            for at in range(T0 + 58 * SECOND, T0 + 100 * SECOND, SECOND):
                for before in range(at - 28 * apart * SECOND, at + 1, apart * SECOND):
                    window = EventFilter("acme", since=before - 2 * SECOND, before=before)
                    slide.aggregate(EventQuestion(window, at))
            assert (slide.events, asked) == (100, [])


def test_a_slide_reads_no_more_than_a_preview_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more, by which it is seen that there are too many; whatever the windows and the questions."""
    monkeypatch.setattr(replaying, "EVENTS_MAX", 10, raising=False)
    with closing(sqlite3.connect(EMPTY)) as source, closing(sqlite3.connect(":memory:")) as connection:
        source.backup(connection)
        connection.executemany(INSERT_EVENT, rows([(second, 0, "a", "h", None) for second in range(50)]))
        read: list[int] = []
        for window, names in ((5, ()), (5, ("host",)), (50, ()), (500, ())):
            slide = ReplayReads(connection, "acme", "x")
            for second in range(0, 60, 2):
                at = T0 + second * SECOND
                events_ = EventFilter("acme", since=at - window * SECOND, before=at)
                slide.aggregate(EventQuestion(events_, at, group_by=names))
                slide.aggregate(EventQuestion(events_, at, group_by=("resource_id",)))
            read.append(slide.events)
        assert read == [11] * 4


def _empty() -> Path:
    folder = Path(__file__).parents[2] / ".cache" / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"empty-{random.getrandbits(64):x}.db"
    open_store(f"sqlite:///{path}", lambda: "0" * 32).close()
    return path


EMPTY = _empty()
