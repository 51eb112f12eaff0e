"""Durable consumers at their edges: refusals, limits, restarts, readers that do not read."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain import consumers

from tests.support.consumers import (
    PARK,
    RETRY,
    Client,
    create,
    millis,
    parked,
    status,
    until_status,
)
from tests.support.servers import Api, refused, serving

OTHER = (("x-tocsin-account", "acme"),)


async def fill(api: Api, count: int, size: int = 0) -> None:
    batch = [pb.Event(type="t", details=Value(string_value="d" * size)) for _ in range(count)]
    await api.events.AppendEvents(pb.AppendEventsRequest(events=batch))


async def said(
    api: Api, *messages: pb.ConsumeRequest
) -> grpc.aio.StreamStreamCall[pb.ConsumeRequest, pb.ConsumeResponse]:
    """Open a stream that says this and then ends its side."""

    async def requests() -> AsyncIterator[pb.ConsumeRequest]:
        for message in messages:
            yield message

    return api.events.Consume(requests())


async def test_a_name_is_taken_once_and_a_request_is_repeated_safely(api: Api) -> None:
    request = pb.CreateConsumerRequest(consumer=pb.Consumer(name="c"), request_id="r")
    first = (await api.events.CreateConsumer(request)).consumer
    assert (await api.events.CreateConsumer(request)).consumer == first
    taken = await refused(api.events.CreateConsumer(pb.CreateConsumerRequest(consumer=pb.Consumer(name="c"))))
    assert (taken.code, taken.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    request.consumer.max_in_flight = 3
    assert (await refused(api.events.CreateConsumer(request))).reason == "REQUEST_ID_REUSED"
    assert first.lease == millis(30_000)
    assert (first.max_retries, first.max_in_flight, first.retry_delay) == (10, 100, millis(1000))


async def test_an_account_has_so_many_consumers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_server.store.consumers.CONSUMERS_MAX", 3)
    for name in ("a", "b", "c"):
        await create(api, name)
    refusal = await refused(create(api, "d"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
    request = pb.CreateConsumerRequest(consumer=pb.Consumer(name="d"))
    await api.events.CreateConsumer(request, metadata=OTHER)  # another account has its own
    page = await api.events.ListConsumers(pb.ListConsumersRequest(page_size=2))
    assert [one.name for one in page.consumers] == ["a", "b"]
    rest = await api.events.ListConsumers(pb.ListConsumersRequest(page_size=2, page_token=page.next_page_token))
    assert ([one.name for one in rest.consumers], rest.next_page_token) == (["c"], "")


async def test_the_filter_is_fixed_and_has_no_times(api: Api) -> None:
    await create(api, filter=pb.EventFilter(types=["a"]))
    other = pb.Consumer(name="c", filter=pb.EventFilter(types=["b"]))
    refusal = await refused(api.events.UpdateConsumer(pb.UpdateConsumerRequest(consumer=other)))
    assert list(refusal.fields) == ["consumer.filter"]
    masked = pb.UpdateConsumerRequest(consumer=other)
    masked.update_mask.paths.append("filter")
    assert list((await refused(api.events.UpdateConsumer(masked))).fields) == ["update_mask.paths[0]"]
    read_back = (await api.events.GetConsumer(pb.GetConsumerRequest(name="c"))).consumer
    read_back.max_retries = 0
    masked = pb.UpdateConsumerRequest(consumer=read_back)
    masked.update_mask.paths.extend(["max_retries", "lease"])
    masked.consumer.ClearField("lease")
    changed = (await api.events.UpdateConsumer(masked)).consumer
    assert (changed.max_retries, changed.lease, list(changed.filter.types)) == (0, millis(30_000), ["a"])
    timed = pb.Consumer(name="t", filter=pb.EventFilter())
    timed.filter.since.GetCurrentTime()
    refusal = await refused(api.events.CreateConsumer(pb.CreateConsumerRequest(consumer=timed)))
    assert list(refusal.fields) == ["consumer.filter.since"]


async def test_scope_global_is_for_the_admin_account(api: Api) -> None:
    """XF3: an account asks for everybody's events."""
    everybody = pb.Consumer(name="c", filter=pb.EventFilter(scope=pb.SCOPE_GLOBAL))
    request = pb.CreateConsumerRequest(consumer=everybody)
    refusal = await refused(api.events.CreateConsumer(request, metadata=OTHER))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED
    created = (await api.events.CreateConsumer(request)).consumer
    assert created.filter.scope == pb.SCOPE_GLOBAL
    await api.append("theirs", metadata=OTHER)
    client = Client(api)
    await client.until(count=1)
    assert client.got[0].event.account == "acme"
    await client.close()


async def test_streams_of_another_account_share_nothing(api: Api) -> None:
    """P5: the same name in two accounts is two consumers."""
    await create(api)
    theirs = pb.CreateConsumerRequest(consumer=pb.Consumer(name="c"), beginning=pb.SubscribeRequest.Beginning())
    await api.events.CreateConsumer(theirs, metadata=OTHER)
    await api.append("mine")
    await api.append("theirs", metadata=OTHER)
    clients = Client(api), Client(api, metadata=OTHER)
    for client in clients:
        await client.until(count=1)
    assert [[one.event.type for one in c.got] for c in clients] == [["mine"], ["theirs"]]
    # The lease of one account's event is nothing to another account's consumer.
    clients[1].say(ack=pb.ConsumeRequest.Ack(lease_ids=clients[0].leases()))
    clients[1].ack()
    await clients[1].half_close()
    assert (await status(api)).in_flight == 1
    await clients[0].close()


ACK = pb.ConsumeRequest(ack=pb.ConsumeRequest.Ack(lease_ids=[1]))
START = pb.ConsumeRequest(start=pb.ConsumeRequest.Start(name="c"))


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "start"),
        ([ACK], "start"),
        ([pb.ConsumeRequest()], "start"),
        ([START, START], "start"),
        ([START, pb.ConsumeRequest(ack=pb.ConsumeRequest.Ack(lease_ids=[3, -1]))], "ack.lease_ids[1]"),
        ([START, pb.ConsumeRequest(ack=pb.ConsumeRequest.Ack())], "ack.lease_ids"),
        ([START, pb.ConsumeRequest(nack=pb.ConsumeRequest.Nack(lease_ids=[1], action=9))], "nack.action"),  # type: ignore[arg-type]
        ([START, pb.ConsumeRequest(nack=pb.ConsumeRequest.Nack(lease_ids=[1], reason="a\0"))], "nack.reason"),
    ],
    ids=["nothing", "ack first", "empty first", "start twice", "bad lease", "no lease", "bad action", "NUL"],
)
async def test_a_message_out_of_order_or_bounds_is_refused_by_its_path(
    api: Api, messages: list[pb.ConsumeRequest], field: str
) -> None:
    """XC1: what a stream says is checked like any request, also when it is not the first thing it says."""
    await create(api)
    refusal = await refused(await said(api, *messages))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(refusal.fields) == [field]


async def test_an_unknown_kind_and_an_unknown_lease_are_passed_over(api: Api) -> None:
    """XC13: a newer client says something that this server does not know."""
    await create(api)
    stream = await said(api, START, pb.ConsumeRequest.FromString(b"\x7a\x00"), ACK)
    told = [message.WhichOneof("message") async for message in stream]
    assert told == ["started", "done"]


async def test_a_stream_without_a_start_is_ended(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """XC18: a client stream that says nothing."""
    monkeypatch.setattr("tocsin_server.api.consumers.START_S", 0.05)
    client = Client(api, start=False)
    await client.until(told="end")
    assert client.error is not None
    assert (client.error.code, client.error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("name", ["nobody", "c"])
async def test_a_consumer_that_is_not_there(api: Api, name: str) -> None:
    refusal = await refused(await said(api, pb.ConsumeRequest(start=pb.ConsumeRequest.Start(name=name))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert refusal.metadata == {"resource_type": "consumer", "resource_name": name}


@pytest.mark.parametrize("choice", [{}, {"all": True, "positions": [1]}])
async def test_parked_events_are_named_or_all_meant(api: Api, choice: dict[str, object]) -> None:
    await create(api)
    calls: list[tuple[Any, Any]] = [
        (api.events.ReplayParked, pb.ReplayParkedRequest),
        (api.events.PurgeParked, pb.PurgeParkedRequest),
    ]
    for call, request in calls:
        assert (await refused(call(request(name="c", **choice)))).reason == "INVALID_FIELD"


async def test_a_restart_keeps_floor_acks_retries_and_parked(tmp_path: Path) -> None:
    """XA1: what was settled in any order is settled after a restart, and what was tried is not forgotten."""
    async with serving(tmp_path) as api:
        await create(api, max_retries=1, retry_delay=millis(600_000))
        await fill(api, 6)
        client = Client(api)
        await client.until(count=6)
        client.nack(RETRY, 2, reason="once")
        client.nack(PARK, 3, reason="bad")
        client.ack(1, 5)
        await client.half_close()
    async with serving(tmp_path) as api:
        found = await status(api)
        assert (found.floor, found.parked, found.waiting, found.lag) == (1, 1, 2, 1)
        client = Client(api)
        await client.until(count=3)
        assert client.attempts == [(2, 2), (4, 2), (6, 1)]
        client.nack(RETRY, 2, reason="twice")  # the retry of before the restart counts
        client.ack(4, 6)
        await client.half_close()
        found = await status(api)
        assert (found.floor, found.parked, found.waiting) == (6, 2, 0)
        assert [(one.position, one.reason, one.attempts) for one in await parked(api)] == [
            (2, "twice", 2),
            (3, "bad", 1),
        ]
        # A replay stands over a restart too.
        assert (await api.events.ReplayParked(pb.ReplayParkedRequest(name="c", positions=[3]))).replayed_count == 1
    async with serving(tmp_path) as api:
        client = Client(api)
        await client.until(count=1)
        assert client.attempts == [(3, 1)]
        await client.close()


async def test_a_slow_reader_costs_nobody_else(api: Api) -> None:
    """XB2: one client reads nothing; what it was given comes to the others when its lease has run out."""
    await create(api, max_in_flight=40, lease=millis(1000), retry_delay=millis(0))
    stalled = api.events.Consume()
    await stalled.write(START)
    first = await stalled.read()
    assert isinstance(first, pb.ConsumeResponse)  # and nothing is read any more
    for _ in range(2):
        await fill(api, 20, 100_000)
    client = Client(api, acks=True)
    await client.until(that=lambda: len(set(client.positions)) == 40)
    await until_status(api, lambda s: s.floor == 40)
    await client.close()
    stalled.cancel()


async def test_lag_is_what_was_not_handed_out(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(api, filter=pb.EventFilter(types=["t"]), max_in_flight=2)
    events = [await api.append("t") for _ in range(5)]
    await api.append("other")
    found = await status(api)
    assert (found.lag, found.lag_capped, found.oldest_time) == (5, False, events[0].created_at)
    client = Client(api)
    await client.until(count=2)
    found = await status(api)
    assert (found.lag, found.oldest_time, found.in_flight) == (3, events[2].created_at, 2)
    await client.close()
    monkeypatch.setattr("tocsin_server.store.consumers.LAG_SCAN_MAX", 2)
    found = await status(api)
    assert (found.lag_capped, found.lag) == (True, 2)  # 3 to 5 are left, 5 was not looked at


async def test_full_parking_holds_new_events_up_and_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_server.domain.ledger.PARKED_MAX", 2)
    await create(api, max_in_flight=3)
    await fill(api, 600)
    client = Client(api)
    await client.until(count=3)
    client.nack(PARK)
    found = await until_status(api, lambda s: s.parked == 2 and s.waiting == 1)
    assert found.stall == pb.CONSUMER_STALL_PARKED_FULL
    # What was read ahead still comes, one or two batches; nothing beyond them does.
    client.acks = True
    client.ack(*(set(client.positions) - {1, 2, 3}))
    found = await until_status(api, lambda s: s.in_flight == 0 and s.lag in (600 - 256, 600 - 512))
    ahead = 600 - found.lag
    assert max(client.positions) == ahead
    assert found.stall == pb.CONSUMER_STALL_PARKED_FULL
    await api.events.PurgeParked(pb.PurgeParkedRequest(name="c", all=True))
    await client.until(that=lambda: max(client.positions) > ahead)
    assert (await status(api)).stall == pb.CONSUMER_STALL_UNSPECIFIED
    await client.close()


async def test_leases_are_never_the_same_twice(tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(2):
        async with serving(tmp_path) as api:
            if not seen:
                await create(api)
                await fill(api, 3)
            client = Client(api)
            await client.until(count=3)
            seen += client.leases()
            await client.close()
    assert len(set(seen)) == 6
    assert max(seen) < 2**53
    assert consumers.FLUSH_S <= 0.1


async def test_a_damaged_event_ends_streams_until_somebody_seeks_past_it(tmp_path: Path) -> None:
    """XA11: the checksum of a stored event does not match."""
    async with serving(tmp_path) as api:
        await create(api)
        await fill(api, 3)
    async with serving(tmp_path) as api:  # what was appended in its own life it has in memory
        with sqlite3.connect(tmp_path / "tocsin.db") as damage:
            damage.execute("UPDATE events SET crc = crc + 1 WHERE position = 2")
        damage.close()
        client = Client(api)
        await client.until(told="end")
        assert client.error is not None
        assert (client.error.code, client.error.reason) == (grpc.StatusCode.DATA_LOSS, "EVENT_CORRUPT")
        assert client.error.metadata["position"] == "2"
        past = pb.SeekConsumerRequest(name="c", after=pb.SubscribeRequest.After(position=2))
        await api.events.SeekConsumer(past)
        client = Client(api, acks=True)
        await client.until(count=1)
        assert client.positions == [3]
        await client.close()
