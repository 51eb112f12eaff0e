"""Claims ahead: a quick receiver's next deliveries are claimed while others are sent, and are sent in their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.domain import lane
from tocsin_server.domain.lane import WINDOW_MAX

from tests.service.test_notifications import created
from tests.service.test_webhooks import webhook
from tests.support.receivers import Held, WebhookReceiver
from tests.support.servers import Api

AHEAD = 32  # few, so that all of them can be looked at
ALL = WINDOW_MAX + AHEAD


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "AHEAD_MAX", AHEAD)


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
