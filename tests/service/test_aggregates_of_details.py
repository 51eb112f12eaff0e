"""The store's answers are those of the pure function, whatever is asked: columns, labels and details alike."""

from __future__ import annotations

import random
import sqlite3

import pytest
from tocsin_server.domain.aggregation import AGGREGATIONS, DETAILS, NUMERIC, EventQuestion
from tocsin_server.domain.alerting import RunErrorReason
from tocsin_server.domain.event_log import OwnEvent, Stored
from tocsin_server.domain.instances import RunFailure
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.variables import Json
from tocsin_server.store import event_aggregates
from tocsin_server.store.event_aggregates import EventAggregates
from tocsin_server.store.wire import decode
from tocsin_server.store.writer import Transaction

from tests.support.alert_house import T0, House
from tests.support.executors import MemoryLog, Seen

SEED = 5
EVENTS = 300
NUMBERS: list[Json] = [0, 1, -2.5, 1e300, 5, 5, 80.0]
VALUES: list[Json] = [*NUMBERS, "text", "", "5", True, None, [1], {"b": 2}, "x" * 2000]
LABELS = [{}, {"team": "ops"}, {"team": "", "a.b": "é"}, {"a.b": "x/y"}]
FIELDS = [
    "host",
    "resource_id",
    "labels.team",
    "labels.a.b",
    "labels.none",
    "details.n",
    "details.at.zone",
    "details.x.y",
]


def event(chance: random.Random) -> OwnEvent:
    details: dict[str, Json] = {"n": chance.choice(VALUES)}
    if chance.random() < 0.7:
        details["at"] = {"zone": chance.choice(["é/1", "b", "", None, 3])}
    return OwnEvent(
        account="acme",
        type=chance.choice(["user.a", "user.b.c"]),
        message="a message",
        details=details,
        resource_id=chance.choice(["", "a", "b/c"]),
        labels=chance.choice(LABELS),
    )


async def log_of(house: House, chance: random.Random) -> MemoryLog:
    """Append events as a client would; give the same log in memory."""

    def unit(transaction: Transaction) -> list[Stored]:
        transaction.append([event(chance) for _ in range(EVENTS)])
        for index, one in enumerate(transaction.log.stored):
            head = one.head._replace(service="scanner", host=chance.choice(["", "h1", "h2"]), timestamp=T0 + index)
            transaction.log.stored[index] = one._replace(head=head, created_at=T0 + index)
        return list(transaction.log.stored)

    return MemoryLog([seen(one) for one in await house.writer.run(unit)])


def seen(stored: Stored) -> Seen:
    head, whole = stored.head, decode(stored.frame)
    return Seen(
        timestamp=head.timestamp,
        host=head.host,
        details=whole.details,  # type: ignore[arg-type]
        labels=head.labels,
        type=head.type,
        level=head.level,
        resource_id=head.resource_id,
        created_at=stored.created_at,
    )


def question(chance: random.Random) -> EventQuestion:
    aggregation = chance.choice([*AGGREGATIONS[:6], "p50", "p95", "p99", "latest"])
    details = [name for name in FIELDS if name.startswith(DETAILS)]
    field = chance.choice(details if aggregation in NUMERIC else FIELDS)
    low = chance.choice([1, 1, 2, 5])
    return EventQuestion(
        events=EventFilter(
            account=None,
            types=tuple(chance.sample(["user.a", "user.*"], chance.randrange(2))),
            hosts=tuple(chance.sample(["h1"], chance.randrange(2))),
            since=T0 + chance.randrange(EVENTS // 2),
            before=T0 + chance.randrange(EVENTS // 2, EVENTS),
        ),
        created_before=T0 + chance.randrange(EVENTS // 2, EVENTS),
        group_by=tuple(chance.sample(FIELDS, chance.randrange(5))),
        aggregation=aggregation,
        field=field if aggregation in NUMERIC or aggregation == "distinct" else "",
        drop_missing=chance.random() < 0.3,
        at_least=low,
        at_most=chance.choice([None, None, low + 10]),
        limit=chance.choice([3, 1000]),
    )


async def test_the_store_answers_what_the_function_does(house: House) -> None:
    chance = random.Random(SEED)
    log = await log_of(house, chance)
    answered = 0
    with sqlite3.connect(house.path) as connection:
        reads = EventAggregates(connection, "acme", "the-alert")
        for _ in range(400):
            asked = question(chance)
            groups = log.aggregate(asked)
            assert reads.aggregate(asked) == groups, asked
            wanted = [group.values for group in groups[:4]]
            of_the_store, in_memory = reads.samples(asked, wanted, 3), log.samples(asked, wanted, 3)
            for values in wanted:
                assert [s.timestamp for s in of_the_store[values]] == [s.timestamp for s in in_memory[values]]
                assert {s.message for s in of_the_store[values]} == {"a message"}
            answered += len(groups)
    assert answered > 400


async def test_a_where_is_asked_of_every_event(house: House) -> None:
    log = await log_of(house, random.Random(SEED))
    where = 'event.type == "user.a" && event.details.n == 5.0'
    asked = EventQuestion(EventFilter(None, where=where), T0 + EVENTS)
    expected = [e for e in log.events if e.type == "user.a" and e.value("details.n") == 5]
    with sqlite3.connect(house.path) as connection:
        (group,) = EventAggregates(connection, "acme", "the-alert").aggregate(asked)
    assert group.count == len(expected) > 5


async def test_only_so_many_events_are_decoded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is everybody's: what would take too long is an error, and no verdict of a part."""
    await log_of(house, random.Random(SEED))
    asked = EventQuestion(EventFilter(None), T0 + EVENTS, aggregation="sum", field="details.n")
    with sqlite3.connect(house.path) as connection:
        reads = EventAggregates(connection, "acme", "the-alert")
        monkeypatch.setattr(event_aggregates, "EVENTS_DECODED_MAX", EVENTS)
        assert reads.aggregate(asked)[0].count > 100
        monkeypatch.setattr(event_aggregates, "EVENTS_DECODED_MAX", EVENTS - 1)
        with pytest.raises(RunFailure) as failed:
            reads.aggregate(asked)
        assert failed.value.error.reason is RunErrorReason.LIMIT
        assert reads.aggregate(EventQuestion(EventFilter(None), T0 + EVENTS))[0].count == EVENTS


async def test_since_when_the_log_is_there(house: House) -> None:
    """The oldest event that stands, or what retention has left; nothing while the log is empty."""
    with sqlite3.connect(house.path) as connection:
        reads = EventAggregates(connection, "acme", "the-alert")
        assert reads.recorded_since() is None
        await log_of(house, random.Random(SEED))
        assert reads.recorded_since() == T0
        for account, position in (("other", 50), ("acme", 10), ("", 20)):
            connection.execute("INSERT INTO horizons (account, position) VALUES (?, ?)", (account, position))
        assert reads.recorded_since() == T0 + 19
        connection.rollback()
