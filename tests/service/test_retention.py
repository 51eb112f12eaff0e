"""Retention: what is too old or too many goes in small steps, and who follows is told."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.runtime import system_runtime
from tocsin_server.store import event_log, retention
from tocsin_server.store.database import READER_THREADS

from tests.support.consumers import Client, create, until_status
from tests.support.dispatch_house import DispatchHouse
from tests.support.receivers import Posted, WebhookReceiver
from tests.support.servers import Api, Refusal, Subscriber, refused, serving

HOUR_US = 3600 * 1_000_000
BEGINNING = pb.SubscribeRequest.Beginning()


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ahead_us = 0
        system = system_runtime()
        self.runtime = replace(system, now=lambda: system.now() + self.ahead_us)


@asynccontextmanager
async def keeping(data: Path, clock: Clock | None = None, **rules: Any) -> AsyncIterator[Api]:
    """Run a server whose retention looks often."""
    settings = {f"event_log__retention__{name}": value for name, value in rules.items()}
    async with serving(data, clock.runtime if clock else None, **settings) as api:
        yield api


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_server.app.RETAIN_EVERY_S", 0.05)
    monkeypatch.setattr("tocsin_server.dispatch.dispatcher.SWEEP_EVERY_S", 0.5)


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await look():
            await asyncio.sleep(0.02)


async def append(api: Api, count: int, account: str = "admin") -> list[int]:
    metadata = (("x-tocsin-account", account),)
    request = pb.AppendEventsRequest(events=[pb.Event(type=f"n{number}") for number in range(count)])
    return [r.position for r in (await api.events.AppendEvents(request, metadata=metadata)).results]


async def positions(api: Api, account: str = "admin") -> list[int]:
    request = pb.SubscribeRequest(beginning=BEGINNING, stop_when_caught_up=True)
    call = api.events.Subscribe(request, metadata=(("x-tocsin-account", account),))
    return [event.position async for message in call for event in message.batch.events]


async def started(api: Api, account: str = "admin") -> pb.SubscribeResponse.Started:
    request = pb.SubscribeRequest(beginning=BEGINNING, stop_when_caught_up=True)
    call = api.events.Subscribe(request, metadata=(("x-tocsin-account", account),))
    messages = [message async for message in call]
    return messages[0].started


async def test_events_that_are_too_old_go_in_every_account(tmp_path: Path) -> None:
    clock = Clock()
    async with keeping(tmp_path / "data", clock, max_age=3600) as api:
        await append(api, 450)
        await append(api, 10, "acme")
        clock.ahead_us = 2 * HOUR_US
        kept = await append(api, 5)
        await until(lambda: stand(api, kept))
        assert await positions(api, "acme") == []
        assert (await started(api)).oldest == kept[0]
        assert (await started(api, "acme")).oldest == kept[-1] + 1


async def stand(api: Api, kept: list[int], account: str = "admin") -> bool:
    """Tell whether a list has just these events."""
    request = pb.ListEventsRequest(order=pb.ORDER_OLDEST_FIRST, page_size=1000)
    page = await api.events.ListEvents(request, metadata=(("x-tocsin-account", account),))
    return [event.position for event in page.events] == kept


async def test_each_account_keeps_its_newest(tmp_path: Path) -> None:
    async with keeping(tmp_path / "data", max_events=20) as api:
        mine, theirs = [], []
        for _ in range(30):
            mine += await append(api, 10)
            theirs += await append(api, 1, "acme")
        await until(lambda: stand(api, mine[-20:]))
        await until(lambda: stand(api, theirs[-20:], "acme"))
        assert (await started(api)).oldest == mine[-21] + 1


async def test_counting_all_events_is_done_once_for_many_steps(tmp_path: Path) -> None:
    """Steps are small and cheap however many events there are; whoever else deletes has it counted anew."""
    house = DispatchHouse(tmp_path / "tocsin.db")
    await house.router.begin()
    keeping = retention.Retention(house.writer, house.readers, house.tail, house.runtime, retention.Rules(0, 100))
    counted: list[str] = []

    all_there = threading.Barrier(READER_THREADS, timeout=10)

    def trace(connection: sqlite3.Connection) -> None:
        all_there.wait()  # each of the threads has one
        connection.set_trace_callback(lambda sql: counted.append(sql) if "GROUP BY" in sql else None)

    await asyncio.gather(*(asyncio.wrap_future(house.readers.submit(trace)) for _ in range(READER_THREADS)))
    for _ in range(5):
        newest = await house.append(*["a"] * 500)
    await house.route()
    steps = []
    while await keeping.step():
        steps.append(await left(house))
        if len(steps) == 3:
            await house.writer.run(lambda tx: event_log.delete_one(tx, "admin", newest[0].id, 10_000))
    assert steps == [2300, 2100, 1900, *range(1699, 298, -200), 100]
    assert len(counted) == 3  # at first, after the deletion by somebody else, and in the end
    await house.close()


async def left(house: DispatchHouse) -> int:
    """Count the events that can be read."""
    count = house.readers.submit(lambda c: c.execute("SELECT count(*) FROM events WHERE deleted_at = 0").fetchone())
    return int((await asyncio.wrap_future(count))[0])


async def test_a_position_below_the_horizon_is_refused_with_the_oldest(tmp_path: Path) -> None:
    """XB7: never a silent skip; `beginning` never expires, also after a restart."""
    async with keeping(tmp_path / "data", max_events=5) as api:
        mine = await append(api, 30)
        await until(lambda: stand(api, mine[-5:]))
    async with keeping(tmp_path / "data") as api:
        for position in (0, mine[-7]):
            after = pb.SubscribeRequest.After(position=position)
            refusal = await refused(api.events.Subscribe(pb.SubscribeRequest(after=after)))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_EXPIRED")
            assert refusal.metadata["oldest"] == str(mine[-5])
        just = Subscriber(api, after=pb.SubscribeRequest.After(position=mine[-6]))
        await just.until(count=5)
        assert just.positions == mine[-5:]
        await just.close()
        assert await positions(api) == mine[-5:]


async def test_a_subscriber_that_is_overtaken_is_told_where_to_go_on(tmp_path: Path) -> None:
    """XB7: retention does not wait for readers, and does not pass them in silence."""
    clock = Clock()
    async with keeping(tmp_path / "data", clock, max_age=3600) as api:
        big = [pb.Event(type="big", message="x" * 4000) for _ in range(500)]
        for _ in range(8):
            await api.events.AppendEvents(pb.AppendEventsRequest(events=big))
        call: Any = api.events.Subscribe(pb.SubscribeRequest(beginning=BEGINNING))
        assert (await call.read()).started.oldest == 1  # and reads nothing more for now
        clock.ahead_us = 2 * HOUR_US
        (kept,) = await append(api, 1)
        await until(lambda: stand(api, [kept]))
        seen: list[int] = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                seen += [event.position for event in (await call.read()).batch.events]
        refusal = Refusal(caught.value)
        assert refusal.reason == "POSITION_EXPIRED"
        assert seen == list(range(1, int(refusal.metadata["position"]) + 1))
        assert seen[-1] < int(refusal.metadata["oldest"]) - 1 <= kept - 1  # told as soon as it is overtaken


async def test_bodies_of_events_with_open_deliveries_are_kept_and_hidden(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XA24: what is routed is delivered whole, though the event has vanished from every read; then its body goes."""
    from tests.service.test_notifications import webhook

    refusing = [True]
    hook.answer = lambda posted: 503 if refusing[0] else 200
    clock = Clock()
    async with keeping(tmp_path / "data", clock, max_age=3600) as api:
        wanted = webhook(hook.url)
        wanted.options.retry_schedule[:] = [1] * 20  # when the clock jumps, one may fail twice before it may succeed
        await api.notifications.CreateEndpointConfiguration(webhook_request(wanted))
        sent = await api.append("user.scan.done", message="all of it", details=Value(string_value="why"))
        await hook.until(1)
        clock.ahead_us = 2 * HOUR_US
        await append(api, 1)

        async def is_hidden() -> bool:
            page = await api.events.ListEvents(pb.ListEventsRequest())
            return sent.id not in {event.id for event in page.events}

        await until(is_hidden)
        assert rows(tmp_path)[sent.position] == 1
        refusing[0] = False
        await until(lambda: delivered(hook, sent.id))
        data = next(data for data in map(data_of, reversed(hook.posted)) if data["id"] == sent.id)
        assert (data["type"], data["message"], data["details"]) == ("user.scan.done", "all of it", "why")

        async def is_gone() -> bool:
            return sent.position not in rows(tmp_path)

        await until(is_gone)


async def test_events_that_are_hidden_take_nobodys_place(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XA24: an account keeps as many as it may, however many bodies wait for their delivery."""
    from tests.service.test_notifications import webhook

    off = webhook(hook.url)
    off.enabled = False  # its deliveries wait, without an attempt that fails and a notice about it in the log
    async with keeping(tmp_path / "data", max_events=20) as api:
        await api.notifications.CreateEndpointConfiguration(webhook_request(off))
        sent = [(await api.append("user.scan.done")).position for _ in range(8)]
        mine = await append(api, 20)
        await until(lambda: stand(api, mine))
        assert [position for position, is_hidden in rows(tmp_path).items() if is_hidden] == sent
        mine += await append(api, 10)
        await until(lambda: stand(api, mine[-20:]))
        assert (await started(api)).oldest == mine[-20]
        everything = [message async for message in api.events.DeleteEvents(pb.DeleteEventsRequest(all=True))]
        assert everything
        status = await api.events.GetLogStatus(pb.GetLogStatusRequest())
        assert (status.event_count, status.oldest) == (0, status.head + 1)  # what is hidden cannot be read


def data_of(posted: Posted) -> Any:
    """Give the event of a request; it is signed for the time of the moved clock, so its signature is not asked."""
    return json.loads(posted.body)["data"]


async def delivered(hook: WebhookReceiver, event_id: str) -> bool:
    """Tell whether an event has come more than once: the first time it was refused."""
    return [data_of(posted)["id"] for posted in hook.posted].count(event_id) > 1


def rows(folder: Path) -> dict[int, int]:
    """Give what the file holds: positions, and whether each is hidden."""
    with sqlite3.connect(folder / "data" / "tocsin.db") as connection:
        found = dict(connection.execute("SELECT position, deleted_at <> 0 FROM events").fetchall())
    connection.close()
    return found


def webhook_request(configuration: Any) -> Any:
    from tocsin.v1 import notifications_pb2

    return notifications_pb2.CreateEndpointConfigurationRequest(configuration=configuration)


async def test_the_file_gives_its_space_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FREE_PAGES_KEPT", 100)
    path = tmp_path / "data" / "tocsin.db"
    async with keeping(tmp_path / "data", max_events=10) as api:
        big = [pb.Event(type="big", message="x" * 4000) for _ in range(500)]
        for _ in range(4):
            await api.events.AppendEvents(pb.AppendEventsRequest(events=big))
        head = (await api.events.GetLogStatus(pb.GetLogStatusRequest())).head
        await until(lambda: stand(api, list(range(head - 9, head + 1))))

        async def is_small() -> bool:
            with sqlite3.connect(path) as connection:
                (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.close()
            return bool(pages < 500)

        await until(is_small)
    assert path.stat().st_size < 500 * 4096


async def test_what_a_consumer_did_not_see_in_time_counts_as_skipped(tmp_path: Path) -> None:
    async with keeping(tmp_path, max_events=2) as api:
        await create(api, start="new")
        await append(api, 6)
        await until(lambda: stand(api, [5, 6]))
        client = Client(api)
        await client.until(count=2)
        assert client.positions == [5, 6]
        client.ack()
        found = await until_status(api, lambda s: s.floor == 6)
        assert (found.lag, found.parked, found.waiting) == (0, 0, 0)
        await client.close()


async def test_a_global_consumer_passes_over_one_accounts_horizon_and_sees_the_others_events(tmp_path: Path) -> None:
    """XB7: the horizon of one account hides nothing that another account still has."""
    async with keeping(tmp_path, max_events=2) as api:
        await append(api, 1, "quiet")
        await create(api, filter=pb.EventFilter(scope=pb.SCOPE_GLOBAL, types=["n*"]))
        await append(api, 6)
        await until(lambda: stand(api, [6, 7]))
        client = Client(api)
        await client.until(count=3)
        assert client.positions == [1, 6, 7]
        await client.close()
