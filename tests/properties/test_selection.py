"""A filter means the same in SQL as in memory, and the index finds what selectors choose."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain.event_log import OWN_SERVICE, EventHead
from tocsin_server.domain.explanation import missed
from tocsin_server.domain.selection import EventFilter, Selector, SelectorIndex, glob
from tocsin_server.store import selection

WORDS = ["a", "b", "user", "user_x", "system"]
TYPES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(".".join)
PATTERNS = st.one_of(
    TYPES,
    st.lists(st.sampled_from([*WORDS, "*", "user.*", "*.b", "us*r", "*_*", "."]), min_size=1, max_size=3).map("".join),
)
VALUES = st.sampled_from(["", "x", "y"])
LABELS = st.dictionaries(st.sampled_from(["k", 'q"uote', "$.a"]), st.sampled_from(["v", "", "1"]), max_size=2)
HEADS = st.builds(
    EventHead,
    account=st.sampled_from(["admin", "acme"]),
    type=TYPES,
    subtype=VALUES,
    level=st.sampled_from([1, 2]),
    resource_type=VALUES,
    resource_id=VALUES,
    user_id=VALUES,
    service=st.sampled_from(["", "x", OWN_SERVICE]),
    host=VALUES,
    labels=LABELS,
    timestamp=st.integers(0, 5),
)


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=2, unique=True).map(tuple)


FILTERS = st.builds(
    EventFilter,
    account=st.sampled_from([None, "admin", "acme"]),
    types=several(PATTERNS),
    subtypes=several(VALUES),
    levels=several(st.sampled_from([1, 2])),
    resource_types=several(VALUES),
    resource_ids=several(VALUES),
    user_ids=several(VALUES),
    services=several(VALUES),
    hosts=several(VALUES),
    labels=LABELS.map(lambda labels: tuple(sorted(labels.items()))),
    since=st.one_of(st.none(), st.integers(0, 5)),
    before=st.one_of(st.none(), st.integers(0, 5)),
)
SELECTORS = st.builds(
    Selector,
    scope=st.sampled_from(["account", "global"]),
    level=st.sampled_from(["*", "info", "error"]),
    type=PATTERNS,
    resource_type=st.sampled_from(["*", "x"]),
    subtype=VALUES,
    service=VALUES,
    after_position=st.integers(0, 2),
    where=st.sampled_from(["", "event.message == 'yes'", "event.level == 'info'", "event.labels['none'] == 'x'"]),
)
OPEN = ("level", "type", "resource_type", "subtype", "service", "after_position", "where")
FRAMES = st.sampled_from(["yes", "no"]).map(
    lambda message: pb.GetEventResponse(event=pb.Event(message=message)).SerializeToString()
)


def table(heads: list[EventHead]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    columns = [*EventHead._fields]
    connection.execute(f"CREATE TABLE events (position INTEGER PRIMARY KEY, {', '.join(columns)})")
    for position, head in enumerate(heads):
        values = [
            json.dumps(head.labels) if name == "labels" and head.labels else getattr(head, name) or ""
            for name in columns
        ]
        values[columns.index("timestamp")] = head.timestamp
        marks = ",".join("?" * (len(columns) + 1))
        connection.execute(f"INSERT INTO events VALUES ({marks})", [position, *[v if v != {} else "" for v in values]])
    return connection


@settings(max_examples=300, deadline=None)
@given(st.lists(HEADS, max_size=12), FILTERS)
def test_a_filter_means_the_same_in_sql_as_in_memory(heads: list[EventHead], event_filter: EventFilter) -> None:
    """XB20: `_` and case are literal in type patterns."""
    connection = table(heads)
    try:
        matches = event_filter.predicate()
        wanted = [position for position, head in enumerate(heads) if matches(head)]
        where = selection.where(event_filter)
        sql = f"SELECT position FROM events WHERE {where.sql} ORDER BY position"
        assert [position for (position,) in connection.execute(sql, where.values)] == wanted
        plan = selection.plan(event_filter)
        conditions = [plan.indexed, *([plan.residual] if plan.residual is not None else [])]
        sql = f"SELECT position FROM events WHERE {' AND '.join(c.sql for c in conditions)} ORDER BY position"
        values = [value for condition in conditions for value in condition.values]
        assert [position for (position,) in connection.execute(sql, values)] == wanted
    finally:
        connection.close()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["admin", "acme"]), SELECTORS), max_size=12), HEADS, st.integers(1, 3), FRAMES
)
def test_the_index_finds_exactly_what_the_selectors_choose(
    selectors: list[tuple[str, Selector]], head: EventHead, position: int, frame: bytes
) -> None:
    index = SelectorIndex()
    for number, (account, selector) in enumerate(selectors):
        index.add(account, str(number), selector)
    wanted = {
        (account, str(number))
        for number, (account, selector) in enumerate(selectors)
        if selector.matches(account, position, head, frame)
    }
    for _ in range(2):  # what it remembers of an event's head is as good
        found = index.matching(position, head, frame)
        assert set(found) == wanted
        assert len(found) == len(wanted)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["admin", "acme"]), SELECTORS, HEADS, st.integers(1, 3), FRAMES)
def test_an_explanation_names_what_is_missed_and_nothing_else(
    account: str, selector: Selector, head: EventHead, position: int, frame: bytes
) -> None:
    found = missed(selector, account, position, head, frame)
    assert (not found) == selector.matches(account, position, head, frame)
    # Each criterion alone: with the others opened, the selector fails just for those that are named.
    for name in OPEN:
        alone = replace(Selector("global", "*", head.type, "*"), **{name: getattr(selector, name)})
        if name != "type":
            alone = replace(alone, type="system.*" if head.service == OWN_SERVICE else "*")
            head_alone = head._replace(type="system.x") if head.service == OWN_SERVICE else head
        else:
            head_alone = head
        assert alone.matches(account, position, head_alone, frame) == (name not in [m.criterion for m in found]), name


def test_a_glob_with_a_dot_star_needs_something_after_the_dot() -> None:
    head = EventHead("admin", "user", "", 1, "", "", "", "", "", {}, 0)
    assert not EventFilter("admin", types=("user.*",)).predicate()(head)
    assert EventFilter("admin", types=("user*",)).predicate()(head)


def test_events_of_tocsin_itself_match_only_a_pattern_that_begins_with_system() -> None:
    head = EventHead("admin", "system.alerting.new_instance", "", 1, "", "", "", OWN_SERVICE, "", {}, 0)
    assert not Selector("account", "*", "*", "*").matches("admin", 1, head)
    assert not Selector("account", "*", "*.alerting.*", "*").matches("admin", 1, head)
    assert Selector("account", "*", "system.*", "*").matches("admin", 1, head)


@given(PATTERNS, TYPES)
def test_a_glob_is_any_run_of_characters(pattern: str, text: str) -> None:
    as_regular_expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert glob(pattern)(text) == (re.fullmatch(as_regular_expression, text) is not None)


def test_a_glob_takes_no_time_however_it_is_made() -> None:
    """XE13: a regular expression would not end."""
    began = time.perf_counter()
    assert not glob("*a*a*a*a*a*a*a*b")("a" * 256)
    assert time.perf_counter() - began < 0.01
