"""Routing in the transaction that appends: what joins it, what the tailer does, and that each event is routed once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.dispatch.loop import Loop
from tocsin_server.dispatch.routing import JOIN_EVENTS_MAX, JOIN_ROWS_MAX
from tocsin_server.domain.event_log import Stored
from tocsin_server.domain.notifications import EndpointConfiguration
from tocsin_server.domain.selection import EventFilter, Selector
from tocsin_server.domain.silences import QUICK_MAX, Silence
from tocsin_server.store.outbox import Fenced
from tocsin_server.store.silences import SilenceStore

from tests.support.dispatch_house import DispatchHouse
from tests.support.receivers import SECRET, WebhookReceiver

NOWHERE = "http://127.0.0.1:9/"
ROUTED = "SELECT event_position FROM deliveries ORDER BY event_position"


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[DispatchHouse]:
    running = DispatchHouse(tmp_path / "tocsin.db")
    yield running
    await running.outbox.accompany(None)
    await running.close()


async def test_whoever_waits_for_a_place_that_is_given_back_is_looked_for(house: DispatchHouse) -> None:
    await house.configure(NOWHERE)
    await house.router.begin()
    told = asyncio.Event()
    house.router.queued = told.set
    house.change("UPDATE cursors SET epoch = epoch + 1")  # another router has taken over
    await house.append("user.a")
    with pytest.raises(Fenced):
        await house.router.step()
    async with asyncio.timeout(10):
        await told.wait()
    assert house.deliverer.lanes.under_way == 0


async def joined(house: DispatchHouse, *configured: str) -> None:
    """Configure webhooks by type, then let the router go along with appends; it takes no step."""
    for event_type in configured:
        await house.configure(NOWHERE, event_type)
    await house.router.begin()
    await house.outbox.accompany(house.router)


def commits(house: DispatchHouse) -> list[int]:
    """Count commits from now on."""
    count = [0]
    told = house.writer._moment

    def moment(name: str) -> None:
        count[0] += name == "committed"
        told(name)

    house.writer._moment = moment
    return count


async def test_an_event_is_routed_by_the_commit_that_stores_it(house: DispatchHouse, hook: WebhookReceiver) -> None:
    house.sends_at_once = True
    await house.configure(hook.url)
    await joined(house)
    count = commits(house)
    await house.append("user.a")
    assert count == [1]
    assert house.sql("SELECT event_position, state, attempt FROM deliveries") == [(1, "SENDING", 1)]
    await hook.until(1)
    await house.settled()
    assert house.sql("SELECT state FROM deliveries") == [("DELIVERED",)]
    assert house.deliverer.lanes.under_way == 0
    assert not await house.router.step()  # and has nothing left to do
    assert house.sql(ROUTED) == [(1,)]


async def test_what_nobody_wants_is_looked_at_and_writes_nothing(house: DispatchHouse) -> None:
    await joined(house, "user.*")
    count = commits(house)
    await house.append("other.a")
    assert count == [1]
    assert house.router._position == 1
    assert house.router._cursor == 0
    assert not await house.router.step()
    house.router._flush_now()
    await house.router.step()
    assert house.router._cursor == 1


async def test_many_events_are_left_to_the_tailer(house: DispatchHouse) -> None:
    await joined(house, "user.*")
    await house.append(*["user.a"] * (JOIN_EVENTS_MAX + 1))
    assert house.sql(ROUTED) == []
    await house.append("user.b")  # nor is the next one routed before them
    assert house.sql(ROUTED) == []
    while await house.router.step():
        pass
    assert len(house.sql(ROUTED)) == JOIN_EVENTS_MAX + 2
    await house.append("user.c")  # and the router is abreast again
    assert len(house.sql(ROUTED)) == JOIN_EVENTS_MAX + 3


async def test_many_receivers_are_left_to_the_tailer(house: DispatchHouse) -> None:
    await joined(house, *["user.*"] * (JOIN_ROWS_MAX + 1))
    await house.append("user.a")
    assert house.sql(ROUTED) == []
    while await house.router.step():
        pass
    assert len(house.sql(ROUTED)) == JOIN_ROWS_MAX + 1


async def test_conditions_do_not_hold_appends_up(house: DispatchHouse) -> None:
    """A condition may take its time; only events that meet one are left to the tailer."""
    draft = EndpointConfiguration(
        "", "admin", "webhook", "n", "", True, {"url": NOWHERE, "secret": SECRET},
        (Selector("account", "*", "slow.*", "*", where="event.details.a == 1"),),
    )  # fmt: skip
    await house.notifications.create(draft, "", b"")
    await joined(house, "user.*")
    await house.append("user.a")
    assert house.sql(ROUTED) == [(1,)]
    await house.append("slow.a")
    assert house.router._position == 1
    assert await house.router.step()
    assert house.router._position == 2


async def test_silences_with_conditions_do_not_hold_appends_up(house: DispatchHouse) -> None:
    now = house.runtime.now()
    silence = Silence(
        id="s", account="admin", filter=EventFilter("admin", where="event.details.a == 1"), starts_at=now,
        ends_at=now + 3_600_000_000, author="a", comment="c", created_at=now,
    )  # fmt: skip
    await SilenceStore(house.writer, house.readers).create(silence, lambda now: None, "", b"")
    await joined(house, "user.*")
    (appended,) = await house.append("user.a")
    assert house.sql(ROUTED) == []
    while await house.router.step():
        pass
    assert house.sql(ROUTED) == [(appended.position,)]


async def test_many_silences_do_not_hold_appends_up(house: DispatchHouse) -> None:
    now = house.runtime.now()
    store = SilenceStore(house.writer, house.readers)
    for number in range(QUICK_MAX + 1):
        silence = Silence(
            id=f"s{number}", account="admin", filter=EventFilter("admin", types=("x",)), starts_at=now,
            ends_at=now + 3_600_000_000, author="a", comment="c", created_at=now,
        )  # fmt: skip
        await store.create(silence, lambda now: None, "", b"")
    await joined(house, "user.*")
    await house.append("user.a")
    assert house.sql(ROUTED) == []


async def test_a_step_that_came_while_an_append_was_looked_at_is_not_lost(
    house: DispatchHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's thread gives its turn back without having routed, and wakes who was sent away."""
    await joined(house, "user.*")
    woken = asyncio.Event()
    house.router.wake = woken.set
    looked, go_on = threading.Event(), threading.Event()

    def slow(events: Sequence[Stored]) -> bool:
        looked.set()
        go_on.wait(10)
        return False

    monkeypatch.setattr(house.router, "_is_quick", slow)
    appending = asyncio.create_task(house.append("user.a"))
    await asyncio.to_thread(looked.wait, 10)
    assert not await house.router.step()
    go_on.set()
    await appending
    async with asyncio.timeout(10):
        await woken.wait()
    assert await house.router.step()
    assert house.sql(ROUTED) == [(1,)]


async def test_a_change_of_configurations_that_the_router_has_not_heard_of_is_the_fence(house: DispatchHouse) -> None:
    await joined(house, "user.*")
    new = await house.configure(NOWHERE, "user.*")
    await house.append("user.a")
    assert house.sql(ROUTED) == []
    await asyncio.sleep(0)
    assert house.deliverer.lanes.under_way == 0
    while await house.router.step():
        pass
    assert house.sql("SELECT count(*) FROM deliveries WHERE configuration_id = ?", new.id) == [(1,)]
    assert len(house.sql(ROUTED)) == 2


async def test_deliveries_that_cannot_be_stored_are_not_the_fault_of_the_append(house: DispatchHouse) -> None:
    await joined(house, "user.*")
    house.change("CREATE TRIGGER refused BEFORE INSERT ON deliveries BEGIN SELECT RAISE(ABORT, 'no'); END")
    (appended,) = await house.append("user.a")
    assert appended.position == 1
    assert house.sql(ROUTED) == []
    house.change("DROP TRIGGER refused")
    while await house.router.step():
        pass
    assert house.sql(ROUTED) == [(1,)]


async def test_a_transaction_that_is_undone_routes_nothing_and_leaves_no_place_taken(house: DispatchHouse) -> None:
    """The position is given again, to another event: that one is routed."""
    await joined(house, "user.*")
    house.change("CREATE TRIGGER refused BEFORE UPDATE ON log_head BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(Exception, match="no"):
        await house.append("user.a")
    house.change("DROP TRIGGER refused")
    await asyncio.sleep(0)
    assert house.deliverer.lanes.under_way == 0
    await house.append(pb.Event(type="user.b", id="b"))
    while await house.router.step():
        pass
    assert house.sql("SELECT event_id, event_position FROM deliveries") == [("b", 1)]


async def test_an_event_that_cannot_be_routed_is_appended(
    house: DispatchHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await joined(house, "user.*")
    with monkeypatch.context() as broken:
        broken.setattr(house.router, "_index", None)
        await house.append("user.a")
    while await house.router.step():
        pass
    assert house.sql(ROUTED) == [(1,)]


@pytest.mark.parametrize("seed", range(4))
async def test_every_event_is_routed_once_whoever_routes_it(house: DispatchHouse, seed: int) -> None:
    """Single events and batches from many callers, configurations that come and change, the tailer beside it all."""
    chance = random.Random(seed)
    await joined(house, "user.*")
    routing = Loop("routing", house.router.step, 0.05)
    house.router.wake = routing.wake
    loop = asyncio.get_running_loop()
    house.tail.listen(loop, lambda deleted: routing.wake())
    running = asyncio.create_task(routing.run())

    async def produce() -> None:
        for _ in range(40):
            await house.append(*["user.a", "other.b"][: chance.choice([1, 1, 1, 2])] * chance.choice([1, 1, 1, 1, 9]))

    async def configure() -> None:
        for number in range(6):
            made = await house.configure(NOWHERE, chance.choice(["user.*", "other.*"]))
            if number % 2:
                house.router.stale()
                routing.wake()
            await house.notifications.update("admin", made.id, lambda old: replace(old, enabled=False))
            await asyncio.sleep(chance.random() / 50)

    await asyncio.gather(*[produce() for _ in range(6)], configure())
    head = house.tail.head
    async with asyncio.timeout(20):
        await house.reads.routed(head)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    book = await house.outbox.book()
    events = house.sql("SELECT position, type FROM events WHERE service <> 'tocsin'")
    wanted = {
        (position, configuration.id)
        for configuration in book.configurations.values()
        for selector in configuration.selectors
        for position, event_type in events
        if position > selector.after_position and event_type.startswith(selector.type[:-1])
    }
    routed = house.sql("SELECT event_position, configuration_id FROM deliveries")
    assert sorted(routed) == sorted(wanted)
    assert house.deliverer.lanes.under_way == 0
    assert house.sums().routed > 200
