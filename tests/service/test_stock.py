"""Stock: what is claimed ahead waits in memory for a place; what cannot be sent soon goes back to the store."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin_server.dispatch import stock
from tocsin_server.dispatch.stock import Stock, Stocked
from tocsin_server.domain import lane, lanes
from tocsin_server.domain.health import HealthState
from tocsin_server.domain.lane import WINDOW_FIRST, WINDOW_MAX
from tocsin_server.domain.lanes import Want
from tocsin_server.domain.notifications import LEASE_S, SEND_DEADLINE_S, Delivery, EndpointConfiguration, State
from tocsin_server.domain.selection import Selector
from tocsin_server.domain.verdicts import Verdict
from tocsin_server.endpoints import _http_carrier, _smtp, discover
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.http import HttpDoor
from tocsin_server.store import claims
from tocsin_server.store.writer import Transaction

from tests.support.dispatch_house import Clock, DispatchHouse
from tests.support.receivers import Held, Mailbox, Posted, WebhookReceiver

AHEAD = 32  # few, so that all of them can be looked at
ALL = WINDOW_MAX + AHEAD


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "AHEAD_MAX", AHEAD)


@pytest_asyncio.fixture(name="house")
async def dispatch_house(tmp_path: Path) -> AsyncIterator[DispatchHouse]:
    house = DispatchHouse(tmp_path / "tocsin.db")
    yield house
    await house.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def clocked(tmp_path: Path, clock: Clock) -> AsyncIterator[DispatchHouse]:
    house = DispatchHouse(tmp_path / "clocked.db", clock)
    yield house
    await house.close()


@asynccontextmanager
async def blocked(house: DispatchHouse) -> AsyncIterator[None]:
    """Have the disk's thread do nothing for a while."""
    begun, go_on = threading.Event(), threading.Event()

    def unit(transaction: Transaction) -> None:
        begun.set()
        go_on.wait(20)

    block = asyncio.create_task(house.writer.run(unit))
    await asyncio.to_thread(begun.wait, 20)
    try:
        yield
    finally:
        go_on.set()
        await block


async def has_waiting(house: DispatchHouse, units: int = 1) -> None:
    """Wait until so many units of work wait for the disk's thread."""
    async with asyncio.timeout(10):
        while house.writer.waiting[0] < units:
            await asyncio.sleep(0)


async def until_waiting(house: DispatchHouse, count: int) -> None:
    """Wait until so many deliveries wait again."""
    async with asyncio.timeout(10):
        while house.sql("SELECT count(*) FROM deliveries WHERE state = 'RETRYING'") != [(count,)]:
            await house.writer.passed()


def late(house: DispatchHouse) -> int:
    """Count the attempts that were not made because it was too late."""
    ((count,),) = house.sql("SELECT count(*) FROM attempts WHERE error = 'not sent: there was no place for it in time'")
    return int(count)


async def warmed(house: DispatchHouse, hook: WebhookReceiver, event_type: str) -> EndpointConfiguration:
    """Have a receiver show that it is quick."""
    house.sends_at_once = True
    configuration = await house.configure(hook.url, event_type)
    for _ in range(WINDOW_MAX // WINDOW_FIRST):  # its window grows
        await house.append(*[event_type] * WINDOW_FIRST)
        await house.deliver_all()
    return configuration


async def stocked(house: DispatchHouse, hook: WebhookReceiver) -> Held:
    """Have a receiver hold all that it is sent, with some more in stock for it."""
    held = Held(hook)
    await house.router.begin()
    await warmed(house, hook, "user.a")
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
    clocked: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """A lease has to hold for as long as the attempt takes."""
    held = await stocked(clocked, hook)
    clock.pass_s(stock.STOCKED_MAX_S + 0.1)
    clocked.deliverer._stock_look_at = 0.0  # it is time to look
    await clocked.deliverer.step()
    await until_waiting(clocked, AHEAD)
    assert clocked.sql("SELECT DISTINCT due_at = created_at FROM deliveries WHERE state = 'RETRYING'") == [(1,)]
    held.go.set()
    await clocked.deliver_all()
    assert late(clocked) == AHEAD
    assert len({posted.id for posted in hook.posted}) == len(hook.posted) == ALL


async def test_what_is_late_is_not_sent_though_a_place_is_free(
    clocked: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    held = await stocked(clocked, hook)
    clock.pass_s(stock.STOCKED_MAX_S + 0.1)
    held.go.set()
    await clocked.settled()
    assert len(hook.posted) == WINDOW_MAX
    await clocked.deliver_all()
    assert late(clocked) == AHEAD
    assert len({posted.id for posted in hook.posted}) == len(hook.posted) == ALL


async def test_what_was_claimed_for_too_long_is_not_sent(
    clocked: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """The disk was slow: the lease may end before the attempt."""
    await clocked.router.begin()
    clocked.sends_at_once = True
    await clocked.configure(hook.url)
    clocked.deliverer.lanes.open = False
    await clocked.append("user.a")
    await clocked.route()
    clocked.deliverer.lanes.open = True
    clocked.deliverer._look_at = math.inf  # the claim is the first that it asks of the disk
    async with blocked(clocked):
        step = asyncio.create_task(clocked.deliverer.step())
        await has_waiting(clocked)
        clock.pass_s(26)
    await step
    await clocked.settled()
    assert not hook.posted
    await clocked.deliver_all()
    assert late(clocked) == len(hook.posted) == 1


async def test_a_server_that_stops_says_what_it_has_not_sent(house: DispatchHouse, hook: WebhookReceiver) -> None:
    held = await stocked(house, hook)
    stopping = asyncio.create_task(house.deliverer.stop())
    await until_waiting(house, AHEAD)
    held.go.set()
    await stopping
    assert len(hook.posted) == WINDOW_MAX
    assert house.sql("SELECT DISTINCT error FROM attempts WHERE error <> ''") == [("not sent: the server was stopped",)]
    assert house.sums().open == AHEAD


async def test_a_large_event_is_read_again_when_its_turn_comes(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """What is in stock does not hold much in memory."""
    held = await stocked(house, hook)
    await house.append(log_pb.Event(type="user.a", message="x" * lanes.AHEAD_BYTES_MAX))
    await house.route()
    held.go.set()
    await house.deliver_all()
    assert [len(posted.body) > lanes.AHEAD_BYTES_MAX for posted in hook.posted].count(True) == 1


async def test_a_claim_reads_no_large_events_of_those_that_have_no_place(
    house: DispatchHouse, hook: WebhookReceiver
) -> None:
    """The disk's thread would have to read them all at once."""
    configuration = await house.configure(hook.url)
    await house.router.begin()
    house.deliverer.lanes.open = False
    large = log_pb.Event(type="user.a", message="x" * lanes.AHEAD_BYTES_MAX)
    await house.append(large, large, "user.a")
    await house.route()
    wants = [Want(("admin", configuration.id), 3, ahead=2)]
    (claimed,) = await house.writer.run(lambda tx: claims.claim(tx, wants))
    assert [frame is not None for frame in claimed.frames] == [True, False, True]


async def test_what_finds_no_place_makes_others_pass_theirs_on(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """Else a lane that sends from stock would keep all places until it has none left."""
    await house.router.begin()
    await warmed(house, hook, "user.b")
    held = await stocked(house, hook)
    house.deliverer.lanes._left = 0  # as if others had all places
    woken: list[float] = []
    house.deliverer.wake_in = woken.append
    hook.posted.clear()
    await house.append("user.b")
    while await house.router.step():
        pass
    assert 0.0 in woken
    assert not await house.deliverer.step()
    held.go.set()
    await house.deliver()
    assert "user.b" in [posted.verified()["type"] for posted in hook.posted[:3]]
    assert house.sums().open == 0


async def test_what_is_in_stock_for_a_configuration_that_is_deleted_ends_at_once(
    house: DispatchHouse, hook: WebhookReceiver
) -> None:
    held = await stocked(house, hook)
    ((name,),) = house.sql("SELECT id FROM endpoint_configurations")
    await house.notifications.delete("admin", name)
    await house.router.reload()
    async with asyncio.timeout(10):
        while house.sql("SELECT count(*) FROM deliveries WHERE state = 'CANCELLED'") != [(AHEAD,)]:
            await house.writer.passed()
    held.go.set()
    await house.settled()
    assert len(hook.posted) == WINDOW_MAX


async def test_a_receiver_that_has_failed_once_is_quick_again(house: DispatchHouse, hook: WebhookReceiver) -> None:
    held = Held(hook)
    await house.router.begin()
    configuration = await warmed(house, hook, "user.a")
    its = house.deliverer.lanes.lane((configuration.account, configuration.id))
    held.status = 422
    await house.append("user.a")
    await house.deliver_all()
    assert house.deliverer.lanes.room(its) == 0
    held.status = 200
    for _ in range(2):  # the first one makes it well, the second finds it so
        await house.append("user.a")
        await house.deliver_all()
    assert house.deliverer.lanes.room(its) == AHEAD


async def test_a_stop_waits_for_a_claim_that_is_under_way(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """What it has claimed is known here: nobody has to doubt whether it was sent."""
    held = await stocked(house, hook)
    await house.append(*["user.a"] * (ALL + 4))  # more than fit into stock
    await house.route()
    async with blocked(house):
        held.go.set()
        await hook.until(ALL)
        step = asyncio.create_task(house.deliverer.step())
        await has_waiting(house, 2)
        step.cancel()
        stopping = asyncio.create_task(house.deliverer.stop())
    await stopping
    assert house.sql("SELECT count(*) FROM deliveries WHERE state = 'SENDING'") == [(0,)]
    assert house.sql("SELECT count(*) FROM attempts WHERE duration_us IS NULL OR error LIKE 'interrupted%'") == [(0,)]
    told = house.sql("SELECT count(*) FROM attempts WHERE error = 'not sent: the server was stopped'")
    assert told == [(AHEAD,)]


async def test_a_stop_ends_though_nothing_can_be_written(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """The next start takes up what it could not give back."""
    held = await stocked(house, hook)
    house.writer.run_sync(lambda tx: tx.connection.execute("PRAGMA query_only = ON"))
    held.go.set()
    async with asyncio.timeout(10):
        await house.deliverer.stop()
    assert house.sql("SELECT count(*) FROM deliveries WHERE state = 'SENDING'") == [(ALL,)]


async def test_a_lane_knows_the_health_that_is_stored(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """A success that is recorded after Retry-After ends it, in memory as in the store."""
    await house.router.begin()
    house.sends_at_once = True
    configuration = await house.configure(hook.url)
    throttled = asyncio.Event()

    async def answer(posted: Posted) -> Any:
        if len(hook.posted) == 1:
            return web.Response(status=429, headers={"retry-after": "3600"})
        await throttled.wait()
        return 200

    hook.answer = answer
    await house.append("user.a", "user.a")
    await house.route()
    async with blocked(house):
        while house.deliverer.attempts["webhook", Verdict.THROTTLED] < 1:
            await asyncio.sleep(0)
        throttled.set()
        while house.deliverer.attempts["webhook", Verdict.DELIVERED] < 1:
            await asyncio.sleep(0)
    await house.settled()
    lane = house.deliverer.lanes.lane((configuration.account, configuration.id))
    assert lane.health.state is (await house.health(configuration)).state is HealthState.HEALTHY


async def test_mails_are_not_claimed_ahead(house: DispatchHouse, box: Mailbox) -> None:
    """They may wait long for a connection to their server: nothing of a lease is left for a wait before that."""
    await house.router.begin()
    house.sends_at_once = True
    connection = {
        "host": "127.0.0.1",
        "port": box.port,
        "security": "NONE",
        "from_address": "a@b.example",
        "recipients": ["c@d.example"],
    }
    selector = Selector("account", "*", "user.*", "*")
    draft = EndpointConfiguration("", "admin", "email", "n", "", True, connection, (selector,))
    configuration = await house.notifications.create(draft, "", b"")
    for _ in range(3):
        await house.append(*["user.a"] * 100)
        await house.deliver_all()
    assert not house.deliverer.lanes.lane(("admin", configuration.id)).may_stock
    assert house.sql("SELECT DISTINCT error FROM attempts") == [("",)]
    assert house.sql("SELECT state, max(attempt), count(*) FROM deliveries GROUP BY 1") == [("DELIVERED", 1, 300)]


def test_a_large_event_is_not_kept_in_stock() -> None:
    held, key = Stock(), ("a", "c")
    row = Delivery("a", "d", "r", "c", "webhook", State.SENDING, 1, 1)
    for size in (lanes.AHEAD_BYTES_MAX, lanes.AHEAD_BYTES_MAX + 1):
        held.add(key, Stocked(row, b"x" * size, 1))
    assert [held.pop(key).frame is not None for _ in range(2)] == [True, False]
    assert not held


def test_the_longest_attempt_of_each_kind_fits_into_a_lease() -> None:
    """With some time in stock before it: what is sent after its lease may be sent twice."""
    kinds = discover(HttpDoor(Egress([])))
    webhook, email = kinds["webhook"].attempt_max_s, kinds["email"].attempt_max_s
    assert webhook > SEND_DEADLINE_S + _http_carrier.BODY_DEADLINE_S
    assert webhook + stock.STOCKED_MAX_S + stock.LEASE_SPARE_S <= LEASE_S
    assert email > _smtp.PLACE_S + SEND_DEADLINE_S + _smtp.ALIVE_DEADLINE_S
    assert email + stock.LEASE_SPARE_S <= LEASE_S
