"""Subscriptions of both clients against a server that breaks off in every way."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest
import tocsin

from tests.client.conftest import QUICK
from tests.client.scripted import LOG_ID, Script, batch, caught_up, checkpoint, fail, started, stream

DOWN = fail(grpc.StatusCode.UNAVAILABLE)


def positions(subscription: Any) -> list[int]:
    return [event.position for event in subscription]


def test_it_resumes_after_every_kind_of_break(script: Script, client: Any) -> None:
    script.on(
        "Subscribe",
        DOWN,
        stream(started(0), batch(1, 2, through=4), DOWN),
        stream(started(4), checkpoint(6), fail(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")),
        stream(started(6), batch(7), caught_up(7), fail(grpc.StatusCode.ABORTED, "SLOW_CONSUMER")),
        stream(started(7), batch(7, 8)),  # the server ends the stream without an error
        stream(started(8), batch(9), fail(grpc.StatusCode.CANCELLED)),
        stream(started(9), batch(10), fail(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")),
    )
    seen, subscription = [], client.subscribe(start="beginning", types=["a.*"])
    with pytest.raises(tocsin.PermissionDenied):
        for event in subscription:
            seen.append(event.position)
            assert subscription.position == event.position
    assert seen == [1, 2, 7, 8, 9, 10]
    assert subscription.connections == 6
    requests = script.requests("Subscribe")
    assert [request.WhichOneof("start") for request in requests[:2]] == ["beginning"] * 2
    places = [(request.after.position, request.after.log_id) for request in requests[2:]]
    assert places == [(position, LOG_ID) for position in (4, 6, 7, 8, 9)]
    assert all(list(request.filter.types) == ["a.*"] for request in requests)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "LOG_CHANGED", tocsin.LogChanged),
        (grpc.StatusCode.OUT_OF_RANGE, "POSITION_AHEAD", tocsin.PositionAhead),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", tocsin.InvalidField),
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", tocsin.Unauthenticated),
    ],
)
def test_what_cannot_be_resumed_is_raised(
    script: Script, client: Any, code: grpc.StatusCode, reason: str, kind: type[tocsin.TocsinError]
) -> None:
    script.on("Subscribe", fail(code, reason))
    with pytest.raises(kind):
        positions(client.subscribe(start=tocsin.After(5, LOG_ID)))
    assert len(script.seen) == 1


def test_after_a_raised_error_it_has_ended(script: Script) -> None:
    script.on("Subscribe", fail(grpc.StatusCode.FAILED_PRECONDITION, "LOG_CHANGED"))
    with tocsin.connect(script.address) as client:
        subscription = client.subscribe()
        with pytest.raises(tocsin.LogChanged):
            next(subscription)
        assert list(subscription) == []


def test_items_tell_of_catching_up(script: Script, client: Any) -> None:
    script.on("Subscribe", stream(started(0), batch(1), caught_up(1)))
    subscription = client.subscribe(start="beginning", stop_when_caught_up=True)
    items = list(subscription.items())
    assert [type(item).__name__ for item in items] == ["Event", "CaughtUp"]
    assert subscription.after == tocsin.After(1, LOG_ID)


def test_breaks_are_told(script: Script, client: Any) -> None:
    breaks: list[tuple[Any, float]] = []
    script.on("Subscribe", DOWN, stream(started(0)), stream(started(0), caught_up(0)))
    subscription = client.subscribe(
        stop_when_caught_up=True, on_disconnect=lambda error, wait_s: breaks.append((error, wait_s))
    )
    assert positions(subscription) == []
    assert [type(error) for error, _ in breaks] == [tocsin.Unavailable, type(None)]
    assert all(0 < wait_s <= QUICK.most_s for _, wait_s in breaks)


def test_close_from_another_thread_ends_the_iteration(script: Script) -> None:
    script.on("Subscribe", script.hold())
    with tocsin.connect(script.address) as client:
        subscription, seen = client.subscribe(start=tocsin.After(3)), list[object]()
        reader = threading.Thread(target=lambda: seen.extend(subscription))
        reader.start()
        assert script.holding.wait(10)
        subscription.close()
        reader.join(10)
        assert not reader.is_alive()
        assert script.ended.wait(10)
    assert seen == []


def test_closing_the_client_ends_its_subscriptions(script: Script) -> None:
    script.on("Subscribe", stream(started(0), batch(1)), script.hold())
    client = tocsin.connect(script.address, backoff=QUICK)
    subscription = client.in_context(request_id="r").subscribe()
    assert next(subscription).position == 1
    client.close()
    assert list(subscription) == []


def test_leaving_the_block_cancels_the_call(script: Script) -> None:
    script.on("Subscribe", script.hold(batch(1)))
    with tocsin.connect(script.address) as client:
        with client.subscribe() as subscription:
            assert next(subscription).position == 1
        assert list(subscription) == []
        assert script.ended.wait(10)


async def test_close_from_another_task_ends_the_iteration(script: Script) -> None:
    script.on("Subscribe", script.hold())
    async with tocsin.connect_async(script.address) as client:
        subscription = client.subscribe()

        async def read() -> list[int]:
            return [event.position async for event in subscription]

        reader = asyncio.create_task(read())
        assert await asyncio.to_thread(script.holding.wait, 10)
        subscription.close()
        assert await reader == []
        assert await asyncio.to_thread(script.ended.wait, 10)


async def test_a_cancelled_task_cancels_the_call(script: Script) -> None:
    script.on("Subscribe", script.hold())
    async with tocsin.connect_async(script.address) as client:
        subscription = client.subscribe()
        reader = asyncio.create_task(anext(subscription))
        assert await asyncio.to_thread(script.holding.wait, 10)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert await asyncio.to_thread(script.ended.wait, 10)
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)


async def test_leaving_the_async_block_cancels_the_call(script: Script) -> None:
    script.on("Subscribe", script.hold())
    async with tocsin.connect_async(script.address) as client:
        async with client.subscribe() as subscription:
            reader = asyncio.create_task(anext(subscription))
            assert await asyncio.to_thread(script.holding.wait, 10)
        with pytest.raises(StopAsyncIteration):
            await reader
        assert await asyncio.to_thread(script.ended.wait, 10)
