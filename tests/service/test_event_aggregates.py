"""What SQL answers is what the filter and the aggregation mean as functions."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tocsin_server.domain.aggregation import EventQuestion
from tocsin_server.domain.event_log import OWN_SERVICE, EventHead, Level, OwnEvent, Stored
from tocsin_server.domain.selection import EventFilter, sees_own_events
from tocsin_server.domain.transitions import RESOURCE_TYPE
from tocsin_server.store import event_aggregates
from tocsin_server.store.event_aggregates import EventAggregates
from tocsin_server.store.writer import Transaction

from tests.support.alert_house import T0, House

SEED = 11
EVENTS = 400
ALERT = "the-alert"


def event(chance: random.Random) -> OwnEvent:
    own = chance.random() < 0.3
    return OwnEvent(
        account=chance.choice(["acme", "other"]),
        type=chance.choice(["system.alerting.new_instance", "system.x", "user.image.failed", "user.image.ok"]),
        message="",
        details={},
        level=chance.choice(list(Level)),
        resource_type=RESOURCE_TYPE if own else chance.choice(["", "image_tag"]),
        resource_id=chance.choice([ALERT, "another"]) if own else chance.choice(["", "a", "b/c", "é"]),
    )


async def stored(house: House, chance: random.Random) -> list[Stored]:
    """Append events, some of them of clients; give all as they are stored."""

    def unit(transaction: Transaction) -> list[Stored]:
        transaction.append([event(chance) for _ in range(EVENTS)])
        for index, one in enumerate(transaction.log.stored):
            service = chance.choice([OWN_SERVICE, "scanner", "feeds", ""])
            head = one.head._replace(service=service, host=chance.choice(["", "h1"]), timestamp=T0 + index)
            transaction.log.stored[index] = one._replace(head=head, created_at=T0 + index // 2)
        return list(transaction.log.stored)

    return await house.writer.run(unit)


def filters(chance: random.Random) -> Iterator[EventFilter]:
    types = ["*", "system.*", "system.alerting.*", "user.*", "user.image.failed", "*.image.*", "system.x"]
    for _ in range(80):
        yield EventFilter(
            account="other",  # whatever it says, the owner's account is read
            types=tuple(chance.sample(types, chance.randrange(3))),
            levels=tuple(chance.sample([1, 2], chance.choice([0, 0, 1, 2]))),
            resource_ids=tuple(chance.sample(["a", "b/c", ALERT], chance.choice([0, 0, 1, 2]))),
            services=tuple(chance.sample([OWN_SERVICE, "scanner"], chance.choice([0, 0, 1, 2]))),
            hosts=tuple(chance.sample(["h1", "h2"], chance.choice([0, 0, 1]))),
            since=T0 + chance.randrange(EVENTS // 2),
            before=T0 + chance.randrange(EVENTS // 2, EVENTS),
        )


def meant(one: Stored, wanted: EventFilter, created_before: int) -> bool:
    head: EventHead = one.head
    if one.created_at >= created_before or not replace(wanted, account="acme").predicate()(head):
        return False
    if head.service != OWN_SERVICE:
        return True
    own = tuple(pattern for pattern in wanted.types if sees_own_events(pattern))
    about_itself = (head.resource_type, head.resource_id) == (RESOURCE_TYPE, ALERT)
    return bool(own) and EventFilter("acme", types=own).predicate()(head) and not about_itself


async def test_counts_are_those_of_the_predicate(house: House) -> None:
    chance = random.Random(SEED)
    events = await stored(house, chance)
    seen = 0
    with sqlite3.connect(house.path) as connection:
        reads = EventAggregates(connection, "acme", ALERT)
        for wanted in filters(chance):
            before = T0 + chance.randrange(EVENTS // 4, EVENTS // 2 + 2)
            fields = tuple(chance.sample(["type", "service", "host", "resource_id"], chance.randrange(1, 4)))
            at_least, at_most = chance.choice([(1, None), (2, 5), (3, None)])
            matching = [one for one in events if meant(one, wanted, before)]
            (whole,) = reads.aggregate(EventQuestion(wanted, before))
            assert (whole.values, whole.count, whole.value) == ((), len(matching), len(matching))
            expected = Counter(tuple(getattr(one.head, name) for name in fields) for one in matching)
            found = reads.aggregate(EventQuestion(wanted, before, fields, at_least=at_least, at_most=at_most, limit=3))
            fitting = [(v, n) for v, n in expected.items() if n >= at_least and (at_most is None or n <= at_most)]
            assert [(g.values, g.count) for g in found] == sorted(fitting, key=lambda g: (-g[1], g[0]))[:3]
            seen += len(matching)
    assert seen > EVENTS


async def test_samples_are_found_in_one_look_at_the_newest_events(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many groups there are; what is older than the bound shows none."""
    events = [one for one in await stored(house, random.Random(SEED)) if one.head.account == "acme"]
    asked = EventQuestion(EventFilter("acme", types=("user.*",)), T0 + EVENTS, ("host", "resource_id"))
    newest = [one for one in reversed(events) if meant(one, asked.events, asked.created_before)]
    with sqlite3.connect(house.path) as connection:
        reads = EventAggregates(connection, "acme", ALERT)
        groups = [group.values for group in reads.aggregate(asked)]
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        for bound in (EVENTS, 3):
            monkeypatch.setattr(event_aggregates, "SAMPLES_SOUGHT_MAX", bound, raising=False)
            statements.clear()
            samples = reads.samples(asked, groups, 2)
            assert len([text for text in statements if "INDEXED BY" in text]) == 1
            for values in groups:
                mine = [o.head.timestamp for o in newest[:bound] if (o.head.host, o.head.resource_id) == values]
                assert [sample.timestamp for sample in samples[values]] == mine[:2]
    assert len(groups) > 3
