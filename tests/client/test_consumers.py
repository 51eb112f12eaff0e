"""Durable consumers through both clients: on the real server, and on one that breaks off."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import tocsin
from tocsin.channel import until
from tocsin.v1 import event_log_pb2 as pb

from examples.demo.server import Server
from tests.client.conftest import QUICK
from tests.client.scripted import Behaviour, Script, fail


def take(deliveries: Any, count: int) -> list[Any]:
    """Take so many deliveries."""
    found = iter(deliveries)
    return [next(found) for _ in range(count)]


def fill(client: Any, count: int) -> None:
    client.append_many([tocsin.draft("a.b", message=str(number)) for number in range(count)])


def test_a_consumer_from_its_creation_to_its_end(live: Any) -> None:
    fill(live, 4)
    made = live.create_consumer("jobs", start="beginning", types=["a.*"], lease_s=60, max_retries=3, retry_delay_s=0)
    assert (made.name, made.lease.seconds, made.max_retries, made.max_in_flight) == ("jobs", 60, 3, 100)
    with pytest.raises(tocsin.NameTaken):
        live.create_consumer("jobs")
    with live.consume("jobs") as deliveries:
        first, second, third, fourth = take(deliveries, 4)
        assert [d.event.message for d in (first, second, third, fourth)] == ["0", "1", "2", "3"]
        first.ack()
        second.nack()
        third.nack("park", "not mine")
        (again,) = take(deliveries, 1)
        assert (again.event.message, again.attempt) == ("1", 2)
        again.nack("skip")
    # Leaving has stored what was settled and given the rest back.
    status = live.get_consumer("jobs").status
    assert (status.parked, status.in_flight, status.streams) == (1, 0, 0)
    assert status.waiting + status.lag == 1  # the fourth: the one as long as the server remembers that it gave it out
    assert status.floor == fourth.event.position - 1
    (parked,) = live.list_parked("jobs")
    assert (parked.event, parked.reason, parked.attempts) == (third.event, "not mine", 1)
    assert live.replay_parked("jobs", positions=[parked.position]) == 1
    assert live.purge_parked("jobs", all=True) == 0
    assert live.update_consumer("jobs", max_in_flight=7).max_in_flight == 7
    assert [one.max_in_flight for one in live.list_consumers()] == [7]
    assert live.seek_consumer("jobs", tocsin.After(first.event.position)) == first.event.position
    assert live.seek_consumer("jobs", datetime.now(UTC) + timedelta(days=1)) >= fourth.event.position
    live.delete_consumer("jobs")
    with pytest.raises(tocsin.NotFound):
        take(live.consume("jobs"), 1)


def test_what_cannot_be_meant_is_refused_before_it_is_sent(client: Any) -> None:
    with pytest.raises(TypeError, match="lease_s"):
        client.update_consumer("c")
    with pytest.raises(ValueError, match="seek to"):
        client.seek_consumer("c", "new")
    with pytest.raises(TypeError, match="all=True"):
        client.purge_parked("c")
    with pytest.raises(TypeError, match="all=True"):
        client.replay_parked("c", positions=[1], all=True)


def test_settling_twice_or_wrongly(live: Any) -> None:
    fill(live, 1)
    live.create_consumer("c", start="beginning")
    with live.consume("c") as deliveries:
        (one,) = take(deliveries, 1)
        with pytest.raises(ValueError, match='"retry", "park", "skip"'):
            one.nack("later")
        one.ack()
        one.nack("park")  # it is settled: nothing happens
        assert repr(one) == f"Delivery(position={one.event.position}, type='a.b', attempt=1)"
    assert live.get_consumer("c").status.parked == 0


def batch(*leases: int) -> pb.ConsumeResponse:
    deliveries = [
        pb.ConsumeResponse.Delivery(event=pb.Event(position=lease), lease_id=lease, attempt=1) for lease in leases
    ]
    return pb.ConsumeResponse(batch=pb.ConsumeResponse.Batch(deliveries=deliveries))


STARTED = pb.ConsumeResponse(started=pb.ConsumeResponse.Started(consumer=pb.Consumer(name="c")))
UNKNOWN = pb.ConsumeResponse.FromString(b"\x7a\x00")
HEARTBEAT = pb.ConsumeResponse(heartbeat=pb.ConsumeResponse.Heartbeat())


def hears(heard: list[pb.ConsumeRequest], count: int, *answers: Any) -> Behaviour:
    """Answer, hear so many messages, and break off."""

    def behave(requests: Any, context: grpc.ServicerContext) -> Any:
        yield from answers
        for _ in range(count):
            heard.append(next(requests))
        context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")

    return behave


def test_it_joins_again_after_every_break_and_drops_what_it_did_not_hand_out(script: Script, client: Any) -> None:
    heard: list[pb.ConsumeRequest] = []
    breaks: list[Any] = []
    script.on(
        "Consume",
        fail(grpc.StatusCode.UNAVAILABLE),
        hears(heard, 1, STARTED, UNKNOWN, HEARTBEAT, batch(1, 2)),
        hears(heard, 2, STARTED, batch(3)),
        # When it is said while gRPC for asyncio writes, it may be heard as a broken stream: then again.
        *[fail(grpc.StatusCode.NOT_FOUND, "NOT_FOUND")] * 4,
    )
    deliveries = client.consume("c", max_in_flight=5, on_disconnect=lambda error, wait_s: breaks.append(wait_s))
    seen = []
    with pytest.raises(tocsin.NotFound):
        for one in deliveries:
            seen.append(one)
            one.ack()
    assert {one.lease_id for one in seen} <= {1, 2, 3}
    assert seen[-1].lease_id == 3
    assert [request.start.name for request in heard if request.HasField("start")] == ["c", "c"]
    assert heard[0].start.max_in_flight == 5
    assert list(heard[-1].ack.lease_ids) == [3]
    assert len(breaks) >= 3
    assert deliveries.connections == 2
    assert deliveries.consumer.name == "c"


def test_close_from_another_thread_ends_the_iteration(shared: Server) -> None:
    with tocsin.connect(shared.address, account="closing") as client:
        client.create_consumer("c")
        deliveries, seen = client.consume("c"), list[object]()
        joined = threading.Event()

        def read() -> None:
            for one in deliveries:
                one.ack()
                seen.append(one)
                joined.set()

        reader = threading.Thread(target=read)
        reader.start()
        client.append("a.b")
        assert joined.wait(10)
        deliveries.close()
        deliveries.close()
        reader.join(10)
        assert not reader.is_alive()
        assert len(seen) == 1
        assert client.get_consumer("c").status.lag == 0


async def test_close_from_another_task_and_cancellation_end_the_iteration(shared: Server) -> None:
    async with tocsin.connect_async(shared.address, account="closing-async", backoff=QUICK) as client:
        await client.create_consumer("c")
        for end in ("close", "cancel"):
            deliveries, joined = client.consume("c"), asyncio.Event()

            async def read(deliveries: tocsin.AsyncConsumption, joined: asyncio.Event) -> None:
                async for one in deliveries:
                    one.ack()
                    joined.set()

            reader = asyncio.create_task(read(deliveries, joined))
            await client.append("a.b")
            await asyncio.wait_for(joined.wait(), 10)
            if end == "close":
                await deliveries.close()
                await asyncio.wait_for(reader, 10)
            else:
                reader.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reader
        async with client.consume("c") as deliveries:
            await client.append("a.b")
            one = await anext(deliveries)
        assert one.attempt >= 1


def test_closing_the_client_leaves_its_consumers(shared: Server) -> None:
    with tocsin.connect(shared.address, account="leaving") as watching:
        fill(watching, 2)
        watching.create_consumer("c", start="beginning")
        client = tocsin.connect(shared.address, account="leaving")
        deliveries = client.consume("c")
        first, _ = take(deliveries, 2)
        first.ack()
        client.close()
        status = watching.get_consumer("c").status
        assert (status.streams, status.in_flight, status.waiting) == (0, 0, 1)


def test_nothing_is_lost_over_kills_and_restarts(tmp_path: Path) -> None:
    """XB6: two clients share a consumer while the server is killed and stopped under them."""
    server = Server(tmp_path)
    server.start()
    handled: set[int] = set()
    try:
        with tocsin.connect(server.address, backoff=QUICK) as client:
            client.create_consumer("c", max_retries=100, retry_delay_s=0)
            sharing = [client.consume("c"), client.consume("c")]
            threads = [threading.Thread(target=handle, args=(deliveries, handled)) for deliveries in sharing]
            for thread in threads:
                thread.start()
            wanted: set[int] = set()
            for end in (server.kill, server.stop, server.kill):
                wanted |= {one.position for one in client.append_many([tocsin.draft("a.b") for _ in range(200)])}
                end()
                server.start()
            settled = max(wanted)
            assert until(
                lambda: client.get_consumer("c").status.floor >= settled or None, "all being settled", 30, 0.05
            )
            for deliveries in sharing:
                deliveries.close()
            for thread in threads:
                thread.join(10)
            assert sum(deliveries.connections for deliveries in sharing) > 2
        assert handled == wanted
    finally:
        server.stop()


def handle(deliveries: tocsin.Consumption, handled: set[int]) -> None:
    for delivery in deliveries:
        handled.add(delivery.event.position)
        delivery.ack()
