"""Durable consumers through a real server: handing out, settling, sharing, coming back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from tocsin.v1 import event_log_pb2 as pb

from tests.support.consumers import (
    PARK,
    RETRY,
    SKIP,
    Client,
    create,
    millis,
    parked,
    status,
    until_status,
)
from tests.support.servers import Api, refused, serving

Join = Callable[..., Client]


@pytest_asyncio.fixture
async def join(api: Api) -> AsyncIterator[Join]:
    """Make clients of consumers that leave with the test."""
    made: list[Client] = []

    def make(name: str = "c", **fields: object) -> Client:
        made.append(Client(api, name, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        await client.close()


async def fill(api: Api, count: int, event_type: str = "t") -> None:
    batch = [pb.Event(type=event_type) for _ in range(count)]
    await api.events.AppendEvents(pb.AppendEventsRequest(events=batch))


async def test_history_then_what_comes_in_order_and_settled_by_acks(api: Api, join: Join) -> None:
    await fill(api, 3)
    await create(api)
    client = join()
    await client.until(count=3)
    assert client.started is not None
    assert (client.started.log_id, client.started.consumer.name) == (api.app.log_id, "c")
    await api.append("live")
    await client.until(count=4)
    assert client.attempts == [(1, 1), (2, 1), (3, 1), (4, 1)]
    stored = (await api.events.GetEvent(pb.GetEventRequest(id=client.got[3].event.id))).event
    assert client.got[3].event == stored
    before = await status(api)
    assert (before.floor, before.in_flight, before.lag, before.streams) == (0, 4, 0, 1)
    client.ack()
    after = await until_status(api, lambda s: s.in_flight == 0)
    assert (after.floor, after.waiting, after.parked) == (4, 0, 0)


async def test_only_what_matches_is_handed_out(api: Api, join: Join) -> None:
    await create(api, filter=pb.EventFilter(types=["user.*"]))
    for event_type in ("user.a", "system.b", "user.c"):
        await api.append(event_type)
    client = join()
    await client.until(count=2)
    assert [one.event.type for one in client.got] == ["user.a", "user.c"]


async def test_a_condition_decides_what_is_handed_out_and_what_is_behind(api: Api, join: Join) -> None:
    events = [pb.Event(type="user.a", labels={"n": str(number)}) for number in range(40)]
    await api.events.AppendEvents(pb.AppendEventsRequest(events=events))
    where = "event.labels['n'].endsWith('7')"
    made = await create(api, filter=pb.EventFilter(where=where))
    assert made.filter.where == where
    assert (await status(api)).lag == 4
    client = join()
    await client.until(4)
    assert [d.event.labels["n"] for d in client.got] == ["7", "17", "27", "37"]
    assert (await status(api)).lag == 0


async def test_two_clients_share_and_each_event_goes_to_one(api: Api, join: Join) -> None:
    await create(api)
    clients = [join(), join()]
    for client in clients:
        await client.until(told="started")
    await fill(api, 40)
    await until_status(api, lambda s: s.in_flight == 40)
    await asyncio.gather(*(client.until(count=1) for client in clients))
    await clients[0].until(that=lambda: sum(len(c.got) for c in clients) == 40)
    assert sorted(clients[0].positions + clients[1].positions) == list(range(1, 41))


async def test_a_stream_gets_a_fair_share_or_its_own_bound(api: Api, join: Join) -> None:
    await create(api, max_in_flight=10)
    await fill(api, 50)
    alone = join()
    await alone.until(count=10)
    second = join(max_in_flight=2)
    await second.until(told="started")
    assert (await status(api)).in_flight == 10
    alone.ack(*range(1, 7))
    await until_status(api, lambda s: s.floor == 6)
    # Half of ten for the one without a bound: it holds four, takes one; the other takes its two.
    await asyncio.gather(alone.until(count=11), second.until(count=2))
    await until_status(api, lambda s: s.in_flight == 7)
    await second.half_close()
    await alone.until(count=16)
    assert (await status(api)).in_flight == 10


async def test_leases_return_at_once_when_a_stream_breaks(api: Api, join: Join) -> None:
    """XB4: a client dies; its events go to another one long before the lease of ten minutes ends."""
    await create(api, lease=millis(600_000), retry_delay=millis(0))
    await fill(api, 3)
    first = join()
    await first.until(count=3)
    await first.close()
    second = join()
    await second.until(count=3)
    assert second.attempts == [(1, 2), (2, 2), (3, 2)]


async def test_an_expired_lease_is_redelivered_and_its_late_ack_is_no_error(api: Api, join: Join) -> None:
    await create(api, lease=millis(1000), retry_delay=millis(0))
    await fill(api, 1)
    client = join()
    await client.until(count=2)
    assert client.attempts == [(1, 1), (1, 2)]
    client.say(ack=pb.ConsumeRequest.Ack(lease_ids=[client.got[0].lease_id]))
    await api.append("after")
    await client.until(count=3)
    # The late ack settled nothing: the newer lease still stands.
    assert (await status(api)).in_flight == 2
    client.ack()
    await until_status(api, lambda s: s.floor == 2)
    assert client.error is None


async def test_a_refused_event_comes_again_then_is_parked_with_its_reason(api: Api, join: Join) -> None:
    await create(api, max_retries=2, retry_delay=millis(0))
    await fill(api, 2)
    client = join()
    await client.until(count=2)
    for attempt in (1, 2, 3):
        assert client.got[-1].attempt == attempt or attempt == 1
        client.nack(RETRY, 1, reason=f"no {attempt}")
        if attempt < 3:
            await client.until(count=2 + attempt)
    found = await until_status(api, lambda s: s.parked == 1)
    assert (found.in_flight, found.waiting, found.floor) == (1, 0, 1)
    assert client.attempts == [(1, 1), (2, 1), (1, 2), (1, 3)]
    (one,) = await parked(api)
    assert (one.position, one.event_id, one.attempts) == (1, client.got[0].event.id, 3)
    assert (one.cause, one.reason, one.parked_by) == (pb.PARK_CAUSE_RETRIES, "no 3", "admin")
    assert one.event == client.got[0].event
    assert one.HasField("park_time")


async def test_a_refused_event_waits_before_it_comes_again(api: Api, join: Join) -> None:
    await create(api, retry_delay=millis(600_000))
    await fill(api, 2)
    client = join()
    await client.until(count=2)
    client.nack(RETRY, 1)
    found = await until_status(api, lambda s: s.waiting == 1)
    assert (found.in_flight, found.floor) == (1, 0)
    client.ack(2)
    await until_status(api, lambda s: s.in_flight == 0)
    assert client.positions == [1, 2]


async def test_park_and_skip_settle_at_once(api: Api, join: Join) -> None:
    await create(api)
    await fill(api, 3)
    client = join()
    await client.until(count=3)
    client.nack(PARK, 1, reason="not for me")
    client.nack(SKIP, 2)
    client.ack(3)
    found = await until_status(api, lambda s: s.floor == 3)
    assert (found.parked, found.in_flight) == (1, 0)
    (one,) = await parked(api)
    assert (one.position, one.cause, one.reason) == (1, pb.PARK_CAUSE_CLIENT, "not for me")


async def test_what_is_parked_is_replayed_or_purged(api: Api, join: Join) -> None:
    await create(api, max_retries=0)
    await fill(api, 4)
    client = join()
    await client.until(count=4)
    client.nack(PARK, reason="later")
    await until_status(api, lambda s: s.parked == 4)
    page = await api.events.ListParked(pb.ListParkedRequest(name="c", page_size=3))
    assert [one.position for one in page.parked] == [1, 2, 3]
    rest = await api.events.ListParked(pb.ListParkedRequest(name="c", page_size=3, page_token=page.next_page_token))
    assert ([one.position for one in rest.parked], rest.next_page_token) == ([4], "")
    by_name = pb.ReplayParkedRequest(name="c", positions=[1, 99], event_ids=[page.parked[1].event_id, "none"])
    assert (await api.events.ReplayParked(by_name)).replayed_count == 2
    await client.until(count=6)
    assert client.attempts[4:] == [(1, 1), (2, 1)]  # as if they had never been tried
    assert (await api.events.PurgeParked(pb.PurgeParkedRequest(name="c", positions=[3]))).purged_count == 1
    assert [one.position for one in await parked(api)] == [4]
    assert (await api.events.PurgeParked(pb.PurgeParkedRequest(name="c", all=True))).purged_count == 1
    client.ack(1, 2)
    found = await until_status(api, lambda s: s.floor == 4)
    assert (found.parked, found.in_flight, found.waiting) == (0, 0, 0)


async def test_a_deleted_event_counts_as_skipped(api: Api, join: Join) -> None:
    await create(api, max_in_flight=1)
    events = [await api.append("t") for _ in range(3)]
    client = join()
    await client.until(count=1)
    for event in (events[1], events[0]):  # one is read ahead, one is in flight
        await api.events.DeleteEvent(pb.DeleteEventRequest(id=event.id))
    await client.until(count=2)
    assert client.positions == [1, 3]
    client.nack(PARK, 3)
    await until_status(api, lambda s: s.parked == 1)
    await api.events.DeleteEvent(pb.DeleteEventRequest(id=events[2].id))
    assert await parked(api) == []
    await until_status(api, lambda s: s.parked == 0)
    assert (await api.events.ReplayParked(pb.ReplayParkedRequest(name="c", all=True))).replayed_count == 0


async def test_a_half_closed_stream_ends_after_its_acks(api: Api, join: Join) -> None:
    """XC18: the client ends its side; what it acknowledged stands, the rest goes back uncounted."""
    await create(api, max_retries=0, lease=millis(600_000))
    await fill(api, 3)
    client = join()
    await client.until(count=3)
    client.ack(1)
    await client.half_close()
    assert (client.returned, client.error) == (2, None)
    assert client.told[-2:] == ["done", "end"]
    found = await status(api)
    assert (found.floor, found.in_flight, found.waiting) == (1, 0, 2)
    other = join()
    await other.until(count=2)
    assert other.attempts == [(2, 2), (3, 2)]
    assert (await status(api)).parked == 0


async def test_an_idle_stream_hears_heartbeats(api: Api, join: Join) -> None:
    """XB5: silence is never longer than the heartbeat interval, so that a half-open stream is noticed."""
    await create(api)
    client = join(heartbeat_interval=millis(1000))
    await client.until(told="heartbeat")
    assert client.told == ["started", "heartbeat"]


async def test_seeking_while_a_stream_is_open(api: Api, join: Join) -> None:
    await create(api, max_retries=0)
    await fill(api, 4)
    client = join()
    await client.until(count=4)
    client.nack(PARK, 2)
    await until_status(api, lambda s: s.parked == 1)
    old = client.leases(1)
    seek = pb.SeekConsumerRequest(name="c", beginning=pb.SubscribeRequest.Beginning())
    assert (await api.events.SeekConsumer(seek)).position == 0
    await client.until(count=8)
    assert client.attempts[4:] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    client.say(ack=pb.ConsumeRequest.Ack(lease_ids=old))  # a lease from before
    client.ack(3)
    found = await until_status(api, lambda s: s.in_flight == 3)
    assert (found.floor, found.parked) == (0, 1)
    forwards = pb.SeekConsumerRequest(name="c", after=pb.SubscribeRequest.After(position=4))
    await api.events.SeekConsumer(forwards)
    found = await status(api)
    assert (found.floor, found.in_flight, found.lag) == (4, 0, 0)
    await api.append("new")
    await client.until(count=9)
    assert (client.positions[-1], client.error) == (5, None)


async def test_seeking_by_time_and_past_the_head(api: Api, join: Join) -> None:
    events = [await api.append("t") for _ in range(3)]
    await create(api, start="new")
    seek = pb.SeekConsumerRequest(name="c", start_time=events[1].created_at)
    assert (await api.events.SeekConsumer(seek)).position == 1
    client = join()
    await client.until(count=2)
    assert client.positions == [2, 3]
    ahead = pb.SeekConsumerRequest(name="c", after=pb.SubscribeRequest.After(position=99))
    assert (await refused(api.events.SeekConsumer(ahead))).reason == "POSITION_AHEAD"
    other = pb.SeekConsumerRequest(name="c", after=pb.SubscribeRequest.After(position=1, log_id="0" * 32))
    assert (await refused(api.events.SeekConsumer(other))).reason == "LOG_CHANGED"


async def test_deleting_ends_open_streams(api: Api, join: Join) -> None:
    await create(api)
    await fill(api, 2)
    clients = [join(), join()]
    await clients[0].until(that=lambda: sum(len(c.got) for c in clients) == 2)
    await api.events.DeleteConsumer(pb.DeleteConsumerRequest(name="c"))
    for client in clients:
        await client.until(told="end")
        assert client.error is not None
        assert (client.error.code, client.error.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert (await refused(api.events.GetConsumer(pb.GetConsumerRequest(name="c")))).reason == "NOT_FOUND"
    # One of the same name is another one, which knows nothing of the first.
    await create(api, start="new")
    again = join()
    await again.until(told="started")
    await api.append("new")
    await again.until(count=1)
    assert again.attempts == [(3, 1)]


async def test_settings_change_under_open_streams(api: Api, join: Join) -> None:
    await create(api, max_in_flight=1)
    await fill(api, 3)
    client = join()
    await client.until(count=1)
    wider = pb.UpdateConsumerRequest(consumer=pb.Consumer(name="c", max_in_flight=3))
    assert (await api.events.UpdateConsumer(wider)).consumer.max_in_flight == 3
    await client.until(count=3)
    assert (await status(api)).in_flight == 3


async def test_draining_ends_streams_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """XB14: the server stops; clients are told to come again and what they settled is stored."""
    async with serving(tmp_path) as api:
        await create(api)
        await fill(api, 3)
        client = Client(api)
        await client.until(count=3)
        client.ack(1, 2)
        await until_status(api, lambda s: s.floor == 2)
        await api.app.stop()
        await client.until(told="end")
        assert client.error is not None
        assert client.error.reason == "SERVER_DRAINING"
        assert client.error.retry_s is not None
    async with serving(tmp_path) as api:
        found = await status(api)
        assert (found.floor, found.lag) == (2, 1)


HOLDER = """
import sys, tocsin
with tocsin.connect(sys.argv[1]) as client:
    deliveries = client.consume("c")
    for delivery in deliveries:
        print(delivery.event.position, flush=True)
"""


@pytest.mark.parametrize("how", ["cancelled", "killed"])
async def test_the_first_event_of_a_broken_stream_counts_as_failed(api: Api, join: Join, how: str) -> None:
    """XB4: the event that kills its client is parked one day; what lay behind it is just returned."""
    await create(api, max_retries=0, lease=millis(600_000))
    await fill(api, 3)
    if how == "cancelled":
        client = join()
        await client.until(count=3)
        await client.close()
    else:
        command = (sys.executable, "-c", HOLDER, f"127.0.0.1:{api.app.port}")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert [await process.stdout.readline() for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
        process.kill()
        await process.wait()
    await until_status(api, lambda s: s.parked == 1 and s.waiting == 2)
    (one,) = await parked(api)
    assert (one.position, one.cause, one.reason) == (1, pb.PARK_CAUSE_RETRIES, "the stream broke")
    other = join()
    await other.until(count=2)
    assert other.attempts == [(2, 2), (3, 2)]
