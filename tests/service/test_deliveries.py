"""Asking about deliveries and acting on them by hand, through a real server and a real receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.domain.deliveries import DeliveryQuery
from tocsin_server.store import delivery_lists, recovery, watching
from tocsin_server.store.delivery_store import Deliveries

from tests.service.test_notifications import created, settled, webhook
from tests.support.dispatch_house import DispatchHouse
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, Refusal, refused

OTHER = (("x-tocsin-account", "acme"),)


async def statistics(api: Api, **query: Any) -> pb.GetDeliveryStatisticsResponse:
    """Read the sums; those of promise P3 hold."""
    found = await api.notifications.GetDeliveryStatistics(pb.GetDeliveryStatisticsRequest(**query))
    assert found.routed == found.delivered + found.exhausted + found.cancelled + found.silenced + found.open
    return found


async def listed(api: Api, **query: Any) -> list[pb.Delivery]:
    found: list[pb.Delivery] = []
    request = pb.ListDeliveriesRequest(**query)
    while True:
        page = await api.notifications.ListDeliveries(request)
        found += page.deliveries
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


@dataclass
class Watching:
    """A watch in the background: the states of each delivery, in the order in which they were told."""

    call: Any
    states: dict[str, list[int]] = field(default_factory=dict)
    refusal: Refusal | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self) -> None:
        try:
            async for answer in self.call:
                async with self.changed:
                    for delivery in answer.deliveries:
                        self.states.setdefault(delivery.id, []).append(delivery.state)
                    self.changed.notify_all()
        except grpc.aio.AioRpcError as error:
            self.refusal = Refusal(error)
        except asyncio.CancelledError:
            pass

    async def until(self, *ends: int) -> None:
        """Wait until the newest states of all that were told are these."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: sorted(s[-1] for s in self.states.values()) == sorted(ends))


@asynccontextmanager
async def watching_deliveries(api: Api, metadata: Any = (), **query: Any) -> AsyncIterator[Watching]:
    call = api.notifications.WatchDeliveries(pb.WatchDeliveriesRequest(**query), metadata=metadata)
    first = await anext(aiter(call))
    assert not first.deliveries
    watch = Watching(call)
    reading = asyncio.create_task(watch.read())
    try:
        yield watch
    finally:
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_deliveries_are_found_by_how_they_failed(api: Api, hook: WebhookReceiver) -> None:
    """A34: four configurations of one kind."""
    answers = {"/a": 422, "/b": 503, "/c": 200}
    hook.answer = lambda posted: answers[posted.path]
    made = {path: await created(api, webhook(hook.url.replace("/hook", path))) for path in answers}
    refused_ = await created(api, webhook("http://127.0.0.1:9/"))
    await api.append("t")
    async with asyncio.timeout(20):
        while len([d for d in await listed(api) if d.error_class or d.end_time.seconds]) < 4:
            await asyncio.sleep(0.01)

    async def found(**query: Any) -> set[str]:
        return {d.configuration_id for d in await listed(api, **query)}

    assert await found(status_codes=["422"]) == {made["/a"].id}
    assert await found(status_codes=["4xx", "5xx"]) == {made["/a"].id, made["/b"].id}
    assert await found(status_codes=["2xx"], states=[pb.DELIVERY_STATE_DELIVERED]) == {made["/c"].id}
    assert await found(error_classes=[pb.ERROR_CLASS_CONNECTION_REFUSED]) == {refused_.id}
    assert await found(error_classes=[pb.ERROR_CLASS_REFUSED, pb.ERROR_CLASS_SERVER_ERROR]) == {
        made["/a"].id, made["/b"].id,
    }  # fmt: skip
    routed_at = (await listed(api))[0].create_time
    later = Timestamp(seconds=routed_at.seconds + 60)
    assert await found(since=later) == set()
    assert len(await found(until=later)) == 4
    assert await found(since=routed_at, configuration_id=refused_.id) == {refused_.id}
    (attempt,) = (
        await api.notifications.GetDelivery(
            pb.GetDeliveryRequest(id=(await listed(api, configuration_id=refused_.id))[0].id)
        )
    ).delivery.attempts
    assert attempt.error_class == pb.ERROR_CLASS_CONNECTION_REFUSED
    assert attempt.error.startswith("CONNECTION_REFUSED: ")


async def test_a_look_for_few_among_many_is_bounded(
    api: Api, hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_lists, "SCAN_ROWS_MAX", 7)
    hook.answer = lambda posted: 422 if posted.verified()["data"]["type"] == "bad" else 200
    await created(api, webhook(hook.url))
    for number in range(30):
        await api.append("bad" if number in (3, 17) else "fine")
    await hook.until(30)
    await settled(api)
    page = await api.notifications.ListDeliveries(pb.ListDeliveriesRequest(status_codes=["422"]))
    assert not page.deliveries
    assert page.next_page_token
    assert len(await listed(api, status_codes=["422"])) == 2
    assert len(await listed(api, status_codes=["422"], page_size=1)) == 2


async def test_a_watcher_sees_each_delivery_to_its_end_and_none_of_others(api: Api, hook: WebhookReceiver) -> None:
    configuration = await created(api, webhook(hook.url))
    async with (
        watching_deliveries(api) as whole,
        watching_deliveries(api, configuration_id="none") as nothing,
        watching_deliveries(api, metadata=OTHER) as theirs,
        watching_deliveries(api, states=[pb.DELIVERY_STATE_DELIVERED], configuration_id=configuration.id) as ends,
    ):
        for _ in range(20):
            await api.append("t")
        await whole.until(*[pb.DELIVERY_STATE_DELIVERED] * 20)
        await ends.until(*[pb.DELIVERY_STATE_DELIVERED] * 20)
        assert all(states == sorted(states) for states in whole.states.values())
        assert {tuple(states) for states in ends.states.values()} == {(pb.DELIVERY_STATE_DELIVERED,)}
        assert (nothing.states, theirs.states) == ({}, {})


async def test_a_watch_costs_writers_nothing_when_it_is_over(tmp_path: Path) -> None:
    house = DispatchHouse(tmp_path / "tocsin.db")

    def triggers() -> int:
        count = "SELECT count(*) FROM temp.sqlite_master WHERE type = 'trigger'"
        return int(house.writer.run_sync(lambda tx: tx.connection.execute(count).fetchone()[0]))

    store = Deliveries(house.writer, house.readers)
    changes = [store.follow(DeliveryQuery("admin")) for _ in range(2)]
    for change in changes:
        assert await anext(change) == []
    assert triggers() == 2
    for change in changes:
        await change.aclose()
    assert triggers() == 0
    await house.close()


async def test_a_watcher_that_falls_behind_is_ended(
    api: Api, hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BEHIND_MAX", 3)
    monkeypatch.setattr(watching, "BATCH", 1)
    await created(api, webhook(hook.url))
    async with watching_deliveries(api) as watch:
        async with asyncio.timeout(20):
            while watch.refusal is None:
                await asyncio.gather(*[api.append("t") for _ in range(20)])
    assert (watch.refusal.code, watch.refusal.reason) == (grpc.StatusCode.ABORTED, "SLOW_CONSUMER")


async def test_a_watcher_is_told_when_the_server_stops(api: Api) -> None:
    async with watching_deliveries(api) as watch:
        await api.app.stop()
        async with asyncio.timeout(10):
            while watch.refusal is None:
                await asyncio.sleep(0.01)
    assert (watch.refusal.code, watch.refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")


async def test_a_delivery_is_tried_now_and_one_that_was_given_up_begins_anew(api: Api, hook: WebhookReceiver) -> None:
    """XD16: replayed by hand."""
    hook.answer = lambda posted: 500
    wanted = webhook(hook.url)
    wanted.options.retry_schedule[:] = [3600]
    await created(api, wanted)
    await api.append("t")
    await hook.until(1)
    async with asyncio.timeout(20):
        while not (waiting := await listed(api, states=[pb.DELIVERY_STATE_RETRYING])):
            await asyncio.sleep(0.01)
    async with watching_deliveries(api) as watch:
        await api.notifications.RetryDelivery(pb.RetryDeliveryRequest(id=waiting[0].id))
        await watch.until(pb.DELIVERY_STATE_EXHAUSTED)
        hook.answer = lambda posted: 200
        begun = await api.notifications.RetryDelivery(pb.RetryDeliveryRequest(id=waiting[0].id))
        assert begun.delivery.state == pb.DELIVERY_STATE_PENDING
        await watch.until(pb.DELIVERY_STATE_DELIVERED)
    assert {posted.id for posted in hook.posted} == {waiting[0].id}
    refusal = await refused(api.notifications.RetryDelivery(pb.RetryDeliveryRequest(id=waiting[0].id)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DELIVERY_STATE")
    assert refusal.metadata["state"] == "DELIVERED"
    assert (await statistics(api)).delivered == 1


async def test_a_delivery_that_waits_is_cancelled(api: Api, hook: WebhookReceiver) -> None:
    hook.answer = lambda posted: 500
    await created(api, webhook(hook.url))
    await api.append("t")
    async with asyncio.timeout(20):
        while not (waiting := await listed(api, states=[pb.DELIVERY_STATE_RETRYING])):
            await asyncio.sleep(0.01)
    request = pb.CancelDeliveryRequest(id=waiting[0].id)
    cancelled = (await api.notifications.CancelDelivery(request)).delivery
    assert (cancelled.state, cancelled.reason) == (pb.DELIVERY_STATE_CANCELLED, "BY_HAND")
    assert (await refused(api.notifications.CancelDelivery(request))).reason == "DELIVERY_STATE"
    assert (await statistics(api)).cancelled == 1


async def test_a_range_is_recovered_in_steps(api: Api, hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """XD13, XD16: what ended undelivered is kept and can be sent after all."""
    monkeypatch.setattr(recovery, "STEP", 4)
    monkeypatch.setattr(recovery, "RECOVERED_MAX", 8)
    hook.answer = lambda posted: 422
    configuration = await created(api, webhook(hook.url))
    other = await created(api, webhook(hook.url))
    for _ in range(10):
        await api.append("t")
    await hook.until(20)
    await settled(api)
    hook.answer = lambda posted: 200
    request = pb.RecoverDeliveriesRequest(configuration_id=configuration.id)
    last = (await listed(api, configuration_id=configuration.id))[0].create_time
    none = pb.RecoverDeliveriesRequest(configuration_id=configuration.id, since=Timestamp(seconds=last.seconds + 60))
    assert (await api.notifications.RecoverDeliveries(none)).recovered_count == 0
    first = await api.notifications.RecoverDeliveries(request)
    assert (first.recovered_count, first.more) == (8, True)
    second = await api.notifications.RecoverDeliveries(request)
    assert (second.recovered_count, second.more) == (2, False)
    done = await settled(api, configuration_id=configuration.id)
    assert {d.state for d in done} == {pb.DELIVERY_STATE_DELIVERED}
    assert {d.state for d in await listed(api, configuration_id=other.id)} == {pb.DELIVERY_STATE_EXHAUSTED}
    found = await statistics(api)
    assert (found.routed, found.delivered, found.exhausted) == (20, 10, 10)


async def test_statistics_of_every_account_are_the_admins(api: Api, hook: WebhookReceiver) -> None:
    await created(api, webhook(hook.url))
    await api.append("t")
    await settled(api)
    assert (await statistics(api, all_accounts=True)).routed == 1
    request = pb.GetDeliveryStatisticsRequest(all_accounts=True)
    refusal = await refused(api.notifications.GetDeliveryStatistics(request, metadata=OTHER))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED


async def test_tests_are_answered_one_by_one_and_bounded(api: Api, hook: WebhookReceiver) -> None:
    """XD34: a test of a receiver that hangs is answered with its attempt, and nobody can pile them up."""
    let_go = asyncio.Event()

    async def hang() -> int:
        await let_go.wait()
        return 503

    hook.answer = lambda posted: hang()
    configuration = await created(api, webhook(hook.url))
    request = pb.TestEndpointConfigurationRequest(id=configuration.id)
    running = [asyncio.ensure_future(api.notifications.TestEndpointConfiguration(request)) for _ in range(4)]
    await hook.until(4)
    refusal = await refused(api.notifications.TestEndpointConfiguration(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TESTS")
    assert refusal.retry_s == 1.0
    let_go.set()
    for answer in await asyncio.gather(*running):
        assert not answer.delivered
        assert (answer.attempt.status_code, answer.attempt.error_class) == (503, pb.ERROR_CLASS_SERVER_ERROR)
    kept = await api.notifications.GetEndpointConfiguration(pb.GetEndpointConfigurationRequest(id=configuration.id))
    assert kept.configuration.health.state == pb.HEALTH_STATE_HEALTHY  # a test that fails says nothing new


async def test_health_is_shown_and_a_test_that_passes_clears_it(api: Api, hook: WebhookReceiver) -> None:
    hook.answer = lambda posted: 410
    configuration = await created(api, webhook(hook.url))
    await api.append("t")
    await settled(api)
    shown = pb.GetEndpointConfigurationRequest(id=configuration.id)
    health = (await api.notifications.GetEndpointConfiguration(shown)).configuration.health
    assert (health.state, health.reason) == (pb.HEALTH_STATE_DISABLED, "GONE")
    assert health.since.seconds > 0
    assert health.consecutive_failures == 1
    hook.answer = lambda posted: 200
    test = pb.TestEndpointConfigurationRequest(id=configuration.id)
    assert (await api.notifications.TestEndpointConfiguration(test)).delivered
    health = (await api.notifications.GetEndpointConfiguration(shown)).configuration.health
    assert (health.state, health.reason) == (pb.HEALTH_STATE_HEALTHY, "")
    before = len(hook.posted)
    await api.append("u")
    await hook.until(before + 1)
