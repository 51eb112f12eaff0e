"""Stock: what is claimed ahead waits in memory for a place; what cannot be sent soon goes back to the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin_server.dispatch import delivery
from tocsin_server.domain import lane, lanes
from tocsin_server.domain.lane import WINDOW_FIRST, WINDOW_MAX
from tocsin_server.domain.lanes import Want
from tocsin_server.domain.notifications import LEASE_S, SEND_DEADLINE_S, EndpointConfiguration
from tocsin_server.endpoints import _http_carrier, _smtp, discover
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.http import HttpDoor
from tocsin_server.store import claims

from tests.support.dispatch_house import DispatchHouse
from tests.support.receivers import Held, WebhookReceiver

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
    await house.route()
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
    while house.sql("SELECT count(*) FROM deliveries WHERE state = 'CANCELLED'") != [(AHEAD,)]:
        await asyncio.wait(house.deliverer.work, return_when=asyncio.FIRST_COMPLETED)
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
    await house.append(*["user.a"] * 10)  # more than fit into stock
    await house.route()
    held.go.set()
    await house.settled()
    block = threading.Event()
    blocked = asyncio.create_task(house.writer.run(lambda tx: block.wait(10)))
    step = asyncio.create_task(house.deliverer.step())
    while not house.deliverer.work:
        await asyncio.sleep(0)
    step.cancel()
    stopping = asyncio.create_task(house.deliverer.stop())
    block.set()
    await asyncio.gather(blocked, stopping)
    assert house.sql("SELECT count(*) FROM deliveries WHERE state = 'SENDING'") == [(0,)]
    assert house.sql("SELECT count(*) FROM attempts WHERE duration_us IS NULL OR error LIKE 'interrupted%'") == [(0,)]


def test_the_longest_attempt_of_each_kind_fits_into_a_lease() -> None:
    """With some time in stock before it: what is sent after its lease may be sent twice."""
    kinds = discover(HttpDoor(Egress([])))
    webhook, email = kinds["webhook"].attempt_max_s, kinds["email"].attempt_max_s
    assert webhook > SEND_DEADLINE_S + _http_carrier.BODY_DEADLINE_S
    assert email > _smtp.PLACE_S + SEND_DEADLINE_S + _smtp.ALIVE_DEADLINE_S
    assert max(webhook + delivery.STOCKED_MAX_S, email) < LEASE_S - delivery.LEASE_SPARE_S + 0.1
