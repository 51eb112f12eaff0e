"""Claims ahead: a quick receiver's next deliveries are claimed while others are sent, and are sent in their turn.

Those that wait for a place are in stock; what cannot be sent soon goes back to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.dispatch import delivery
from tocsin_server.domain import lanes
from tocsin_server.domain.lanes import WINDOW_FIRST, WINDOW_MAX

from tests.service.test_notifications import created
from tests.service.test_webhooks import webhook
from tests.support.dispatch_house import DispatchHouse
from tests.support.receivers import Posted, WebhookReceiver
from tests.support.servers import Api

AHEAD = 32  # few, so that all of them can be looked at
ALL = WINDOW_MAX + AHEAD


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "AHEAD_MAX", AHEAD)


class Held:
    """Answers of a receiver that hold until they are let go, and how many were asked for at a time."""

    def __init__(self, hook: WebhookReceiver) -> None:
        self.holds = False
        self.now = self.most = 0
        self.go = asyncio.Event()
        self.status = 200
        hook.answer = self.answer

    async def answer(self, posted: Posted) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.holds:
            await self.go.wait()
        self.now -= 1
        return web.Response(status=self.status, headers={"retry-after": "3600"} if self.status == 429 else {})


async def append(api: Api, count: int) -> None:
    events = [log_pb.Event(type="t") for _ in range(count)]
    await api.events.AppendEvents(log_pb.AppendEventsRequest(events=events))


async def until_states(api: Api, wanted: Mapping[pb.DeliveryState.ValueType, int]) -> list[pb.Delivery]:
    """Wait until so many deliveries are in these states."""
    async for _ in api.notifications.WatchDeliveries(pb.WatchDeliveriesRequest()):  # first as it begins
        listed = (await api.notifications.ListDeliveries(pb.ListDeliveriesRequest(page_size=1000))).deliveries
        counts = {state: sum(one.state == state for one in listed) for state in wanted}
        if counts == wanted:
            return list(listed)
    raise AssertionError("the watch has ended")


async def quick(api: Api, hook: WebhookReceiver) -> Held:
    """Make a receiver that has shown that it is quick, and that answers nothing from now on."""
    held = Held(hook)
    await created(api, webhook(hook.url))
    await append(api, 2 * WINDOW_MAX)
    async with asyncio.timeout(20):
        await until_states(api, {pb.DELIVERY_STATE_DELIVERED: 2 * WINDOW_MAX})
    held.holds, held.most = True, 0
    return held


async def test_no_more_are_sent_at_a_time_than_the_window_has(api: Api, hook: WebhookReceiver) -> None:
    held = await quick(api, hook)
    await append(api, 2 * ALL)
    async with asyncio.timeout(20):
        await until_states(api, {pb.DELIVERY_STATE_SENDING: ALL, pb.DELIVERY_STATE_PENDING: ALL})
    await hook.until(3 * WINDOW_MAX)
    assert held.now == WINDOW_MAX
    held.go.set()
    async with asyncio.timeout(20):
        await until_states(api, {pb.DELIVERY_STATE_DELIVERED: 2 * WINDOW_MAX + 2 * ALL})
    assert held.most == WINDOW_MAX
    assert len({posted.id for posted in hook.posted}) == len(hook.posted)  # each once


@pytest.mark.parametrize("status", [429, 410])
async def test_what_was_claimed_ahead_is_not_sent_to_a_receiver_that_is_held_by_then(
    api: Api, hook: WebhookReceiver, status: int
) -> None:
    """Retry-After throttles the whole configuration, and nothing more goes to one that is gone."""
    held = await quick(api, hook)
    await append(api, ALL)
    async with asyncio.timeout(20):
        await until_states(api, {pb.DELIVERY_STATE_SENDING: ALL})
    held.status = status
    held.go.set()
    there = pb.DELIVERY_STATE_RETRYING if status == 429 else pb.DELIVERY_STATE_CANCELLED
    gone = {there: ALL, pb.DELIVERY_STATE_DELIVERED: 2 * WINDOW_MAX}
    async with asyncio.timeout(20):
        listed = await until_states(api, gone)
    waiting = [one for one in listed if one.state != pb.DELIVERY_STATE_DELIVERED]
    sent = {posted.id for posted in hook.posted}
    ahead = [one for one in waiting if one.id not in sent]
    assert ahead, "some were put back"
    for one in ahead:
        whole = (await api.notifications.GetDelivery(pb.GetDeliveryRequest(id=one.id))).delivery
        assert [attempt.error for attempt in whole.attempts] == ["not sent: its receiver is held since it was claimed"]


@pytest_asyncio.fixture(name="house")
async def dispatch_house(tmp_path: Path) -> AsyncIterator[DispatchHouse]:
    house = DispatchHouse(tmp_path / "tocsin.db")
    yield house
    await house.close()


async def stocked(house: DispatchHouse, hook: WebhookReceiver) -> Held:
    """Have a receiver hold all that it is sent, with some more in stock for it."""
    held = Held(hook)
    house.sends_at_once = True
    await house.configure(hook.url)
    await house.router.begin()
    for _ in range(WINDOW_MAX // WINDOW_FIRST):  # its window grows
        await house.append(*["user.a"] * WINDOW_FIRST)
        await house.deliver_all()
    held.holds = True
    hook.posted.clear()
    await house.append(*["user.a"] * ALL)
    await house.route()
    await hook.until(WINDOW_MAX)
    assert house.sql("SELECT count(*) FROM deliveries WHERE state = 'SENDING'") == [(ALL,)]
    return held


async def test_an_attempt_has_begun_when_it_was_sent_not_when_it_was_claimed(
    house: DispatchHouse, hook: WebhookReceiver
) -> None:
    held = await stocked(house, hook)
    released = house.runtime.now()
    held.go.set()
    await house.deliver_all()
    ((first, later),) = house.sql(
        "SELECT sum(started_at < ?1), sum(started_at >= ?1) FROM"
        " (SELECT started_at FROM attempts ORDER BY started_at DESC LIMIT ?2)",
        released,
        ALL,
    )
    assert (first, later) == (WINDOW_MAX, AHEAD)


async def test_what_gets_no_place_in_time_goes_back(
    house: DispatchHouse, hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease has to hold for as long as the attempt takes."""
    held = await stocked(house, hook)
    monkeypatch.setattr(delivery, "STOCKED_MAX_S", -1.0)
    await house.router.reload()
    monkeypatch.undo()
    while house.sql("SELECT count(*) FROM deliveries WHERE state = 'RETRYING'") != [(AHEAD,)]:
        await asyncio.wait(house.deliverer.work, return_when=asyncio.FIRST_COMPLETED)
    held.go.set()
    await house.deliver_all()
    assert house.sums().open == 0
    told = house.sql("SELECT error, count(*) FROM attempts WHERE error <> '' GROUP BY error")
    assert told == [("not sent: there was no place for it in time", AHEAD)]
    assert len({posted.id for posted in hook.posted}) == len(hook.posted) == ALL


async def test_a_server_that_stops_says_what_it_has_not_sent(house: DispatchHouse, hook: WebhookReceiver) -> None:
    held = await stocked(house, hook)
    stopping = asyncio.create_task(house.deliverer.stop())
    while house.sql("SELECT count(*) FROM deliveries WHERE state = 'RETRYING'") != [(AHEAD,)]:
        await house.writer.passed()
    held.go.set()
    await stopping
    assert len(hook.posted) == WINDOW_MAX
    assert house.sql("SELECT DISTINCT error FROM attempts WHERE error <> ''") == [("not sent: the server was stopped",)]
    assert house.sums().open == AHEAD


async def test_a_large_event_is_read_again_when_its_turn_comes(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """What is in stock does not hold much in memory."""
    held = await stocked(house, hook)
    await house.append(log_pb.Event(type="user.a", message="x" * delivery.FRAME_STOCKED_MAX))
    await house.route()
    held.go.set()
    await house.deliver_all()
    assert [len(posted.body) > delivery.FRAME_STOCKED_MAX for posted in hook.posted].count(True) == 1
