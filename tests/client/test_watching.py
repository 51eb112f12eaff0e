"""Watches of both clients against a server that breaks off in every way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import tocsin
from google.protobuf.message import Message
from tocsin.v1 import notifications_pb2 as pb

from tests.client.conftest import QUICK
from tests.client.scripted import Script, fail, stream

DOWN = fail(grpc.StatusCode.UNAVAILABLE)
DENIED = fail(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
GREETING = pb.WatchDeliveriesResponse()


def told(*ids: str) -> pb.WatchDeliveriesResponse:
    return pb.WatchDeliveriesResponse(deliveries=[pb.Delivery(id=id) for id in ids])


def test_it_begins_anew_after_every_kind_of_break(script: Script, client: Any) -> None:
    script.on(
        "WatchDeliveries",
        DOWN,
        stream(GREETING, told("a"), DOWN),
        stream(GREETING, fail(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")),
        stream(GREETING, told("b", "c"), fail(grpc.StatusCode.ABORTED, "SLOW_CONSUMER")),
        stream(GREETING, told("d")),  # the server ends the stream without an error
        stream(GREETING, DENIED),
    )
    breaks: list[str] = []
    watch = client.watch_deliveries(
        ["retrying"], event_id="e", on_disconnect=lambda error, wait_s: breaks.append(type(error).__name__)
    )
    seen: list[list[str]] = []
    with pytest.raises(tocsin.PermissionDenied), watch:
        for message in watch:
            seen.append([delivery.id for delivery in message.deliveries])
    assert seen == [[], ["a"], [], [], ["b", "c"], [], ["d"], []]
    assert watch.connections == 5
    assert breaks == ["Unavailable", "Unavailable", "ServerDraining", "SlowConsumer", "NoneType"]
    asked = script.requests("WatchDeliveries")
    assert asked == [pb.WatchDeliveriesRequest(states=[pb.DELIVERY_STATE_RETRYING], event_id="e")] * 6


def test_after_a_raised_error_it_has_ended(script: Script) -> None:
    script.on("WatchDeliveries", DENIED)
    with tocsin.connect(script.address) as client:
        watch = client.watch_deliveries()
        with pytest.raises(tocsin.PermissionDenied):
            next(watch)
        assert list(watch) == []


def _held(script: Script) -> Any:
    def behave(request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
        context.add_callback(script.ended.set)
        context.add_callback(script.released.set)
        yield GREETING
        script.released.wait()

    return behave


def test_close_from_another_thread_ends_the_iteration(script: Script) -> None:
    script.on("WatchDeliveries", _held(script))
    with tocsin.connect(script.address) as client:
        watch, greeted = client.watch_deliveries(), threading.Event()

        def read() -> None:
            for _ in watch:
                greeted.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert greeted.wait(10)
        watch.close()
        reader.join(10)
        assert not reader.is_alive()
        assert script.ended.wait(10)


def test_closing_the_client_ends_its_watches(script: Script) -> None:
    script.on("WatchDeliveries", stream(GREETING), _held(script))
    client = tocsin.connect(script.address, backoff=QUICK)
    watch = client.in_context(request_id="r").watch_deliveries()
    assert next(watch) == GREETING
    client.close()
    assert list(watch) == []


async def test_closing_the_client_ends_its_watches_of_asyncio_too(script: Script) -> None:
    script.on("WatchDeliveries", _held(script))
    client = tocsin.connect_async(script.address, backoff=QUICK)
    watch = client.in_context(request_id="r").watch_deliveries()
    assert await anext(watch) == GREETING
    await client.close()
    assert [message async for message in watch] == []
