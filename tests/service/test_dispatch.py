"""Routing, delivering and following at the moments that matter: on real parts, stepped by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.dispatch.loop import Loop
from tocsin_server.domain.event_log import Batch, Checkpoint, OwnEvent
from tocsin_server.domain.lane import WINDOW_FIRST
from tocsin_server.domain.notifications import Delivery, State
from tocsin_server.domain.selection import EventFilter
from tocsin_server.store import event_log

from tests.support.dispatch_house import DispatchHouse
from tests.support.receivers import WebhookReceiver

NOWHERE = "http://127.0.0.1:9/"


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[DispatchHouse]:
    running = DispatchHouse(tmp_path / "tocsin.db")
    yield running
    await running.close()


@pytest.mark.parametrize("told", [True, False])
async def test_an_event_after_a_selector_is_routed_however_late_the_router_hears_of_it(
    house: DispatchHouse, told: bool
) -> None:
    """The fence: what old configurations have passed over is looked at again with the new ones."""
    await house.configure(NOWHERE, "other.*")
    await house.router.begin()
    new = await house.configure(NOWHERE, "user.*")
    await house.append("user.a")  # wakes the router before it has heard of the selector
    assert await house.router.step()
    if told:
        house.router.stale()
    else:
        await house.append("other.b")  # the fence refuses what the old configurations say
    while await house.router.step():
        pass
    routed = house.sql("SELECT event_position FROM deliveries WHERE configuration_id = ?", new.id)
    assert routed == [(1,)]


class _Racing:
    """The tail; a commit lands between the first and the second look at its head."""

    def __init__(self, house: DispatchHouse) -> None:
        self._house = house
        self._looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._house.tail, name)

    @property
    def head(self) -> int:
        seen = self._house.tail.head
        self._looks += 1
        if self._looks == 1:
            self._house.writer.run_sync(lambda tx: tx.append([OwnEvent("admin", "system.x", "m", {})]))
        return seen


async def test_a_follower_misses_nothing_that_is_committed_while_it_begins(house: DispatchHouse) -> None:
    await house.append("user.a")
    house.following._tail = _Racing(house)  # type: ignore[assignment]
    house.following.start()
    async with asyncio.timeout(10):
        async for step in house.following.follow(EventFilter("admin"), 1, 10, 0.1):
            if isinstance(step, Batch | Checkpoint):
                break
    await house.following.stop()
    assert isinstance(step, Batch)
    assert step.position == 2


async def test_an_ended_lease_is_taken_up_again(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """XD6: the sender is gone without a word."""
    await house.configure(hook.url)
    await house.router.begin()
    await house.append("user.a")
    await house.router.step()  # claimed and started, but nobody sends
    house.change("UPDATE deliveries SET lease_until = 1")
    await house.deliver()
    assert house.sql("SELECT state, attempt FROM deliveries") == [("DELIVERED", 2)]
    errors = [error for (error,) in house.sql("SELECT error FROM attempts ORDER BY number")]
    assert errors == ["interrupted: the outcome is not known", ""]


async def test_what_was_under_way_to_a_configuration_that_is_off_now_is_held(
    house: DispatchHouse, hook: WebhookReceiver
) -> None:
    """XD28, after a crash."""
    configuration = await house.configure(hook.url)
    await house.router.begin()
    await house.append("user.a")
    await house.router.step()
    await house.notifications.update("admin", configuration.id, lambda old: replace(old, enabled=False))
    await house.router.begin()  # as at a start
    await house.deliver()
    assert house.sql("SELECT state FROM deliveries") == [("PAUSED",)]
    assert not hook.posted


async def test_a_delivery_to_a_configuration_that_is_not_known_yet_waits_for_it(
    house: DispatchHouse, hook: WebhookReceiver
) -> None:
    await house.router.begin()
    configuration = await house.configure(hook.url)  # the router has not read it yet
    now = house.runtime.now()
    route_key = "alert/x/1/i/0"
    row = Delivery("admin", "d1", route_key, configuration.id, "webhook", State.PENDING, now, now, alert_id="x")
    await house.outbox.insert(row)
    await house.deliver()
    assert house.sql("SELECT state FROM deliveries") == [("RETRYING",)]
    await house.router.reload()
    house.change("UPDATE deliveries SET due_at = 1")
    await house.deliver()
    assert house.sql("SELECT state FROM deliveries") == [("DELIVERED",)]


async def test_a_test_that_a_crash_cut_off_is_not_sent_again(house: DispatchHouse) -> None:
    configuration = await house.configure(NOWHERE)
    now = house.runtime.now()
    row = Delivery("admin", "d1", "test/d1", configuration.id, "webhook", State.SENDING, now, now, attempt=1)
    await house.outbox.insert(row)
    await house.router.begin()
    assert house.sql("SELECT state, reason FROM deliveries") == [("EXHAUSTED", "ATTEMPTS")]


async def test_a_receiver_that_hangs_leaves_the_others_room(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """XD12: head-of-line."""
    let_go = asyncio.Event()

    async def hang() -> int:
        await let_go.wait()
        return 200

    hook.answer = lambda posted: hang() if posted.path == "/slow" else 200
    await house.configure(hook.url.replace("/hook", "/slow"), account="a")
    await house.configure(hook.url, account="b")
    await house.router.begin()
    await house.append(*["user.a"] * 100, account="a")
    await house.append("user.b", account="b")
    while await house.router.step():
        pass
    house.change("UPDATE deliveries SET state = 'PENDING', attempt = 0, lease_until = 0")
    house.change("DELETE FROM attempts")
    while await house.deliverer.step():
        pass
    posted = await hook.until(WINDOW_FIRST + 1)
    assert sorted(p.path for p in posted) == ["/hook"] + ["/slow"] * WINDOW_FIRST
    let_go.set()
    await house.settled()


async def test_a_place_is_free_before_the_record_is_made(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """The receiver has taken it; that the disk is slow is nothing to the next delivery."""
    house.sends_at_once = True
    await house.configure(hook.url)
    await house.router.begin()
    await house.append("user.a")
    await house.router.step()
    go_on = threading.Event()
    blocked = asyncio.create_task(house.writer.run(lambda tx: go_on.wait(10)))
    await hook.until(1)
    async with asyncio.timeout(10):
        while house.deliverer.lanes.under_way:
            await asyncio.sleep(0)
    assert house.sql("SELECT state FROM deliveries") == [("SENDING",)]
    go_on.set()
    await blocked
    await house.settled()
    assert house.sql("SELECT state FROM deliveries") == [("DELIVERED",)]
    assert house.deliverer.lanes.under_way == 0
    assert not house.deliverer._unrecorded


async def test_rows_that_find_no_place_are_told_of(house: DispatchHouse) -> None:
    told: list[bool] = []
    house.router.queued = lambda: told.append(True)
    await house.configure(NOWHERE)
    await house.router.begin()
    await house.append(*["user.a"] * (WINDOW_FIRST + 1))
    await house.router.step()
    states = dict(house.sql("SELECT state, count(*) FROM deliveries GROUP BY state"))
    assert states == {"SENDING": WINDOW_FIRST, "PENDING": 1}
    assert told


async def test_an_event_that_is_deleted_before_it_is_routed_does_not_hold_up_deletions(house: DispatchHouse) -> None:
    await house.configure(NOWHERE)
    await house.router.begin()
    await house.append(pb.Event(type="user.x", id="X"))
    await house.writer.run(lambda tx: event_log.delete_one(tx, "admin", "X", 1))
    assert house.tail.head == 1
    while await house.router.step():
        pass
    house.router._flush_now()
    await house.router.step()
    async with asyncio.timeout(5):
        await house.reads.routed(1)


async def test_an_event_that_came_after_the_call_began_is_not_deleted_by_it(house: DispatchHouse) -> None:
    await house.append(pb.Event(type="user.x", id="X"))
    with pytest.raises(Exception, match="does not exist"):
        await house.writer.run(lambda tx: event_log.delete_one(tx, "admin", "X", 0))
    assert house.sql("SELECT count(*) FROM events") == [(1,)]


async def test_a_loop_keeps_one_timer_however_often_it_is_woken() -> None:
    steps = 0
    looked = asyncio.Event()

    async def step() -> bool:
        nonlocal steps
        steps += 1
        loop.wake_in(3600)
        looked.set()
        return False

    loop = Loop("test", step, 3600)
    running = asyncio.create_task(loop.run())
    timers = set()
    for _ in range(50):
        await looked.wait()
        looked.clear()
        timers.add(loop._timer)
        loop.wake()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert steps >= 50
    assert len(timers) == 1
