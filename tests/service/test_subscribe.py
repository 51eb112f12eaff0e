"""Following the log through a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain.event_log import CHECKPOINT_EVENTS

from tests.support.servers import Api, Subscriber, refused, serving

BEGINNING = pb.SubscribeRequest.Beginning()


@pytest_asyncio.fixture
async def follow(api: Api) -> AsyncIterator[type]:
    """Make subscribers that end with the test."""
    made: list[Subscriber] = []

    def make(**request: object) -> Subscriber:
        made.append(Subscriber(api, **request))  # type: ignore[arg-type]
        return made[-1]

    yield make  # type: ignore[misc]
    for subscriber in made:
        await subscriber.close()


async def test_history_then_what_comes_without_a_seam(api: Api, follow: type) -> None:
    for _ in range(3):
        await api.append("t")
    subscriber = follow(beginning=BEGINNING)
    await subscriber.until(step="caught_up")
    for _ in range(2):
        await api.append("t")
    await subscriber.until(count=5)
    assert subscriber.positions == [1, 2, 3, 4, 5]
    assert [kind for kind, _ in subscriber.steps[:3]] == ["started", "batch", "caught_up"]
    assert subscriber.started.log_id == api.app.log_id
    assert (subscriber.started.head, subscriber.started.oldest) == (3, 1)


async def test_without_a_start_only_new_events_come(api: Api, follow: type) -> None:
    await api.append("old")
    subscriber = follow()
    await subscriber.until(step="caught_up")
    await api.append("new")
    await subscriber.until(count=1)
    assert [e.type for e in subscriber.events] == ["new"]


async def test_starts_after_a_position_and_by_time(api: Api, follow: type) -> None:
    events = [await api.append("t") for _ in range(5)]
    after = follow(after=pb.SubscribeRequest.After(position=3, log_id=api.app.log_id), stop_when_caught_up=True)
    await after.until(step="end")
    assert after.positions == [4, 5]
    by_time = follow(start_time=events[2].created_at, stop_when_caught_up=True)
    await by_time.until(step="end")
    assert by_time.positions == [3, 4, 5]


async def test_only_what_matches_comes_and_the_position_goes_on(api: Api, follow: type) -> None:
    subscriber = follow(beginning=BEGINNING, filter=pb.EventFilter(types=["user.*"]), stop_when_caught_up=True)
    await subscriber.until(step="end")
    for event_type in ("system.a", "user.a", "system.b"):
        await api.append(event_type)
    subscriber = follow(beginning=BEGINNING, filter=pb.EventFilter(types=["user.*"]), stop_when_caught_up=True)
    await subscriber.until(step="end")
    assert subscriber.positions == [2]
    assert subscriber.steps[-2] == ("caught_up", 3)


async def test_deleted_events_are_passed_over_live_and_from_the_store(api: Api, follow: type) -> None:
    events = [await api.append("t") for _ in range(3)]
    await api.events.DeleteEvent(pb.DeleteEventRequest(id=events[1].id))
    subscriber = follow(beginning=BEGINNING, stop_when_caught_up=True)
    await subscriber.until(step="end")
    assert subscriber.positions == [1, 3]


async def test_batches_hold_as_much_as_asked(api: Api, follow: type) -> None:
    await api.events.AppendEvents(pb.AppendEventsRequest(events=[pb.Event(type="t")] * 10))
    subscriber = follow(beginning=BEGINNING, batch_max=4, stop_when_caught_up=True)
    await subscriber.until(step="end")
    assert [position for kind, position in subscriber.steps if kind == "batch"] == [4, 8, 10]
    assert subscriber.positions == list(range(1, 11))


async def test_a_silent_subscription_beats_and_its_checkpoint_advances(api: Api, follow: type) -> None:
    """XB11: nothing matches, but the position moves."""
    request = {"filter": pb.EventFilter(types=["none"])}
    subscriber = follow(**request)
    subscriber.call.cancel()
    beating = pb.SubscribeRequest(filter=pb.EventFilter(types=["none"]))
    beating.heartbeat_interval.FromSeconds(1)
    call: Any = api.events.Subscribe(beating)
    kinds = [(await call.read()).WhichOneof("message") for _ in range(2)]
    assert kinds == ["started", "caught_up"]
    await api.append("other")
    async with asyncio.timeout(5):
        message = await call.read()
    assert message.checkpoint.position == 1
    call.cancel()


async def test_much_scanning_without_a_match_is_told(api: Api, follow: type) -> None:
    subscriber = follow(filter=pb.EventFilter(types=["none"]))
    await subscriber.until(step="caught_up")
    batch = pb.AppendEventsRequest(events=[pb.Event(type="t")] * 1000)
    for _ in range(CHECKPOINT_EVENTS // 1000):
        await api.events.AppendEvents(batch)
    await subscriber.until(step="checkpoint")
    assert subscriber.steps[-1] == ("checkpoint", CHECKPOINT_EVENTS)


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        ({"after": pb.SubscribeRequest.After(position=9)}, grpc.StatusCode.OUT_OF_RANGE, "POSITION_AHEAD"),
        (
            {"after": pb.SubscribeRequest.After(position=0, log_id="0" * 32)},
            grpc.StatusCode.FAILED_PRECONDITION,
            "LOG_CHANGED",
        ),
    ],
)
async def test_a_position_that_makes_no_sense_is_refused(
    api: Api, request_: dict[str, object], code: grpc.StatusCode, reason: str
) -> None:
    """XB8: a position ahead of the head; XB9: one of another log."""
    request = pb.SubscribeRequest(**request_)  # type: ignore[arg-type]
    refusal = await refused(api.events.Subscribe(request))
    assert (refusal.code, refusal.reason) == (code, reason)


async def test_a_filter_with_times_is_refused(api: Api) -> None:
    request = pb.SubscribeRequest()
    request.filter.since.GetCurrentTime()
    assert list((await refused(api.events.Subscribe(request))).fields) == ["filter.since"]


async def test_a_stopping_server_tells_the_position_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """XB14: drain; a hundred subscribers do not hold it up."""
    async with serving(tmp_path_factory.mktemp("data")) as api:
        subscribers = [Subscriber(api, beginning=BEGINNING) for _ in range(100)]
        await api.append("t")
        for subscriber in subscribers:
            await subscriber.until(count=1)
        async with asyncio.timeout(5):
            await api.app.stop()
        for subscriber in subscribers:
            await subscriber.until(step="end")
            assert subscriber.error is not None
            assert subscriber.error.code == grpc.StatusCode.UNAVAILABLE
            assert subscriber.error.reason == "SERVER_DRAINING"
            assert subscriber.error.metadata["position"] == "1"


async def test_followers_see_every_event_once_in_order_while_many_append(api: Api, follow: type) -> None:
    subscribers = [follow(beginning=BEGINNING) for _ in range(3)]

    async def produce(name: str) -> None:
        for number in range(50):
            await api.append("t", id=f"{name}-{number}")

    await asyncio.gather(*(produce(f"p{n}") for n in range(8)))
    for subscriber in subscribers:
        await subscriber.until(count=400)
        assert subscriber.positions == list(range(1, 401))
