"""DeleteEvents while everything goes on: appends, streams, deliveries, the router; and what becomes of the file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1 import notifications_pb2
from tocsin_server.api import event_log as api_event_log
from tocsin_server.runtime import system_runtime
from tocsin_server.store import event_log, retention

from tests.service.test_explanations import routed
from tests.service.test_notifications import webhook
from tests.service.test_retention import data_of, rows, until
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, Subscriber, refused, serving

BEGINNING = pb.SubscribeRequest.Beginning()
BEFORE = 1500  # events that stand when a deletion begins
READERS = 5
REQUESTS = {
    "a filter": pb.DeleteEventsRequest(filter=pb.EventFilter(types=["user.scratch"])),
    "all": pb.DeleteEventsRequest(all=True),
}


class Producer:
    """Appends events one after the other for as long as the block runs, every third one of a kind that is kept."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.begun: list[str] = []
        self.stored: dict[str, pb.Event] = {}

    async def append(self, name: str) -> pb.Event:
        kind = "user.kept" if len(self.begun) % 3 == 0 else "user.scratch"
        self.begun.append(name)
        self.stored[name] = await self._api.append(kind, id=name)
        return self.stored[name]

    async def _go_on(self, name: str) -> None:
        number = 0
        while True:
            await self.append(f"{name}-{number}")
            number += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._go_on(f"p{number}")) for number in range(4)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def filled(api: Api) -> list[pb.Event]:
    """Append what stands before a deletion, kinds turn by turn; give it in order."""
    for first in range(0, BEFORE, 500):
        names = [(f"before-{n}", "user.scratch" if n % 2 else "user.kept") for n in range(first, first + 500)]
        batch = pb.AppendEventsRequest(events=[pb.Event(id=name, type=kind) for name, kind in names])
        await api.events.AppendEvents(batch)
    return await standing(api)


async def standing(api: Api) -> list[pb.Event]:
    """Give what stands, in the order of positions."""
    request = pb.SubscribeRequest(beginning=BEGINNING, stop_when_caught_up=True)
    return [event async for message in api.events.Subscribe(request) for event in message.batch.events]


@pytest.mark.parametrize("what", list(REQUESTS))
async def test_a_deletion_amid_appends_and_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """XA22: it takes all that stood and nothing that came later; streams go on, in order, and miss nothing that stands.

    Whoever begins to read in its midst may still see what is deleted a moment later, but nothing out of order.
    """
    monkeypatch.setattr(api_event_log, "DELETE_STEP_EVENTS", 15)  # fifty steps or more, between which others come

    def is_meant(event: pb.Event) -> bool:
        return what == "all" or event.type == "user.scratch"

    async with serving(tmp_path) as api:
        before = await filled(api)
        whole, live = Subscriber(api, beginning=BEGINNING, batch_max=20), Subscriber(api)
        await live.until(step="caught_up")
        producer, readers, gone = Producer(api), list[Subscriber](), list[str]()
        async with producer.running():
            call: Any = api.events.DeleteEvents(REQUESTS[what])
            gone += (await call.read()).progress.ids
            begun_before = set(producer.begun)
            while (step := await call.read()).HasField("progress"):
                gone += step.progress.ids
                if len(readers) < READERS:
                    readers.append(Subscriber(api, beginning=BEGINNING, batch_max=20))
            assert step.done.deleted_count == len(gone)
        last = await api.append("user.kept", id="last")
        every = {event.id: event for event in [*before, *producer.stored.values(), last]}
        left = await standing(api)
        # What is gone are the first of those meant, in order: all that stood, and nothing that began to come later.
        meant = sorted((event for event in every.values() if is_meant(event)), key=lambda event: event.position)
        assert gone == [event.id for event in meant[: len(gone)]]
        assert {event.id for event in before if is_meant(event)} <= set(gone)
        assert set(gone) <= begun_before | {event.id for event in before}
        assert len(producer.stored) > len(begun_before & producer.stored.keys()), "nothing was appended meanwhile"
        wanted = {name: event for name, event in every.items() if name not in set(gone)}
        assert {event.id for event in left} >= wanted.keys(), "what came later is gone"
        assert len(readers) == READERS
        for stream in (whole, live, *readers):
            await stream_is_whole(stream, left, BEFORE if stream is live else 0)


async def stream_is_whole(stream: Subscriber, left: list[pb.Event], after: int) -> None:
    """Check that a stream has told all that stands after a position, in order, and goes on."""
    async with asyncio.timeout(20):
        while not stream.positions or stream.positions[-1] < left[-1].position:
            await stream.until(count=len(stream.events) + 1)
    assert stream.error is None
    assert "end" not in {kind for kind, _ in stream.steps}
    assert stream.positions == sorted(set(stream.positions))
    assert {event.position for event in left if event.position > after} <= set(stream.positions)
    await stream.close()


async def test_the_file_gives_its_space_back_without_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is deleted by hand is given back like what retention deletes, and in few transactions."""
    monkeypatch.setattr("tocsin_server.app.RETAIN_EVERY_S", 0.05)
    monkeypatch.setattr(retention, "FREE_PAGES_KEPT", 100)
    path = tmp_path / "data" / "tocsin.db"
    big = pb.AppendEventsRequest(events=[pb.Event(type="big", message="x" * 4000)] * 500)
    moments: list[str] = []
    runtime = replace(system_runtime(), moment=moments.append)
    never = {"event_log__retention__max_age": 0, "event_log__retention__max_events": 0}
    async with serving(tmp_path / "data", runtime, **never) as api:
        for _ in range(4):
            await api.events.AppendEvents(big)
        assert pages(path) > 2000
        kept = await api.append("kept")
        request = pb.DeleteEventsRequest(filter=pb.EventFilter(types=["big"]))
        moments.clear()
        assert [step.done.deleted_count async for step in api.events.DeleteEvents(request)][-1] == 2000

        async def is_small() -> bool:
            return pages(path) < 500

        await until(is_small)
        # Four of the deletion, four of the pages; a look costs one even if there is nothing to give back yet.
        assert moments.count("committed") < 60
        assert [event.id for event in await standing(api)] == [kept.id]
    assert path.stat().st_size < 500 * 4096


def pages(path: Path) -> int:
    """Give how many pages the file has, for those who read it."""
    with sqlite3.connect(path) as connection:
        (count,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    return int(count)


async def test_bodies_that_deliveries_need_are_kept_and_hidden(
    tmp_path: Path, hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XA24: what a filter deletes and is routed is delivered whole, though nobody can read it; then its body goes."""
    monkeypatch.setattr("tocsin_server.dispatch.dispatcher.SWEEP_EVERY_S", 0.2)
    refusing = [True]
    hook.answer = lambda posted: 503 if refusing[0] else 200
    async with serving(tmp_path / "data") as api:
        selector = notifications_pb2.Selector(scope="account", level="*", type="user.sent", resource_type="*")
        wanted = webhook(hook.url, selector)
        wanted.options.retry_schedule[:] = [1] * 20
        await api.notifications.CreateEndpointConfiguration(
            notifications_pb2.CreateEndpointConfigurationRequest(configuration=wanted)
        )
        sent = await api.append("user.sent", message="all of it", details=Value(string_value="why"))
        other = await api.append("user.other")
        await hook.until(1)
        request = pb.DeleteEventsRequest(filter=pb.EventFilter(types=["user.*"]))
        told = await all_ids(api, request)
        assert told == [sent.id, other.id]
        assert not {sent.id, other.id} & {event.id for event in await standing(api)}
        assert (await refused(api.events.GetEvent(pb.GetEventRequest(id=sent.id)))).reason == "NOT_FOUND"
        kept = rows(tmp_path)  # the one hidden; the other, which nobody needs, is gone
        assert (kept[sent.position], other.position in kept) == (1, False)
        again = [step.done.deleted_count async for step in api.events.DeleteEvents(request)]
        assert again == [0]
        so_far = len(hook.posted)
        refusing[0] = False
        data = data_of((await hook.until(so_far + 1))[so_far])
        assert (data["id"], data["message"], data["details"]) == (sent.id, "all of it", "why")

        async def is_gone() -> bool:
            return sent.position not in rows(tmp_path)

        await until(is_gone)


async def test_a_deletion_waits_for_the_router_and_says_so_when_it_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: nothing is deleted that was not routed yet; the caller hears why after a bounded time, and goes on later."""
    monkeypatch.setattr(event_log, "ROUTED_MAX_S", 0.3)
    async with serving(tmp_path) as api:
        first, second = await api.append("user.a", id="first"), await api.append("user.a", id="second")
        await routed(api, second.position)
        by_filter = pb.DeleteEventsRequest(filter=pb.EventFilter(types=["user.a"]))
        stuck = set_router(tmp_path / "tocsin.db", first.position)  # behind the first one
        for call in (
            api.events.DeleteEvents(by_filter),
            api.events.DeleteEvents(REQUESTS["all"]),
            api.events.DeleteEvent(pb.DeleteEventRequest(id="second")),
        ):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
            assert refusal.text == f"events up to position {stuck} are not routed yet; nothing was deleted"
            assert refusal.retry_s is not None
        assert [event.id for event in await standing(api)] == ["first", "second"]
        monkeypatch.setattr(event_log, "ROUTED_MAX_S", 20.0)
        deleting = asyncio.create_task(all_ids(api, by_filter))
        assert [event.id for event in await standing(api)] == ["first", "second"]
        set_router(tmp_path / "tocsin.db", stuck)  # it comes after all
        assert await deleting == ["first", "second"]


async def all_ids(api: Api, request: pb.DeleteEventsRequest) -> list[str]:
    """Delete, and give the ids that were told."""
    return [name async for step in api.events.DeleteEvents(request) for name in step.progress.ids]


def set_router(path: Path, position: int) -> int:
    """Have the store say that the router has come so far; give how far it was."""
    with sqlite3.connect(path) as connection:
        (before,) = connection.execute("SELECT position FROM cursors WHERE name = 'router'").fetchone()
        connection.execute("UPDATE cursors SET position = ? WHERE name = 'router'", (position,))
    connection.close()
    return int(before)
