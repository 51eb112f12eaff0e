"""Both clients against the real server, which is killed without warning in the middle."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tocsin
from tocsin.v1 import event_log_pb2 as pb

from examples.demo.server import Server

README = Path("clients/python/README.md")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Answer a server of the test's own, to be killed."""
    running = Server(tmp_path)
    running.start()
    yield running
    running.stop()


def test_a_stored_event_comes_back(live: Any) -> None:
    noon = datetime.now(UTC).replace(microsecond=123456) - timedelta(hours=1)
    details = {"layers": [1, 2.5, None, {"deep": True}], "port": 80}
    stored = live.append(
        "image.analysis.failed",
        level="error",
        message="no such layer",
        details=details,
        resource={"type": "image_tag", "id": "nginx:latest"},
        source="analyzer",
        labels={"team": "red"},
        timestamp=noon,
    )
    event = live.get_event(stored.id)
    assert event == stored.event
    assert (event.position, stored.log_id) == (stored.position, live.info().log_id)
    assert tocsin.to_python(event.details) == details
    assert tocsin.to_datetime(event.timestamp) == noon
    assert (event.level, event.resource.id, event.source.service) == (
        pb.LEVEL_ERROR,
        "nginx:latest",
        "analyzer",
    )


def test_the_same_request_id_stores_once(live: Any) -> None:
    first = live.append("a.b", request_id="r-1", labels={"a": "1", "b": "2"})
    assert live.append("a.b", request_id="r-1", labels={"b": "2", "a": "1"}) == first
    with pytest.raises(tocsin.RequestIdReused):
        live.append("a.b", request_id="r-1", message="other")
    assert len(list(live.list_events())) == 1


def test_refused_fields_are_named(live: Any) -> None:
    with pytest.raises(tocsin.InvalidField) as raised:
        live.append("Not A Type", message="x" * 5000)
    assert {violation.field for violation in raised.value.violations} == {"event.type", "event.message"}
    with pytest.raises(tocsin.NotFound):
        live.get_event("nothing")


def test_lists_pages_and_deletions(live: Any) -> None:
    drafts = [tocsin.draft("a.b" if n % 2 else "a.c", id=f"e{n}") for n in range(25)]
    stored = live.append_many(drafts)
    assert [found.id for found in stored] == [f"e{n}" for n in range(25)]
    listed = [event.id for event in live.list_events(types=["a.b"], oldest_first=True, page_size=5)]
    assert listed == [f"e{n}" for n in range(25) if n % 2]
    assert live.preview_deletion(types=["a.b"]).matching_count == 12
    assert sorted(live.delete_events(types=["a.b"])) == sorted(listed)
    live.delete_event("e0")
    assert len(list(live.list_events())) == 12


def test_headers_are_kept_on_the_event(shared: Server) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    with tocsin.connect(shared.address, account="red") as client:
        inner = client.in_context(request_id="r-9", correlation_id="c-9", traceparent=trace, account="blue")
        event = inner.append("a.b").event
        assert event is not None
        kept = (event.source.request_id, event.correlation_id, event.traceparent, event.account)
        assert kept == ("r-9", "c-9", trace, "blue")
        assert [found.id for found in inner.list_events()] == [event.id]
        assert list(client.list_events()) == []


def test_a_subscription_starts_where_it_is_told(live: Any) -> None:
    first, second, third = (live.append("a.b") for _ in range(3))

    def follow(start: Any) -> list[int]:
        return [event.position for event in live.subscribe(start=start, stop_when_caught_up=True)]

    assert follow("beginning") == [first.position, second.position, third.position]
    assert follow(tocsin.After(first.position, first.log_id)) == [second.position, third.position]
    assert follow("new") == []
    with pytest.raises(tocsin.LogChanged):
        follow(tocsin.After(first.position, "0" * 32))
    with pytest.raises(tocsin.PositionAhead):
        follow(tocsin.After(third.position + 100, first.log_id))


KILLS = 3
EVENTS = 150


def test_no_gap_and_no_duplicate_over_kills(server: Server) -> None:
    """A producer appends, a subscriber follows, the server dies thrice: all that was acknowledged
    arrives once, in order."""
    acknowledged: list[int] = []
    arrived: list[int] = []
    reached = {EVENTS * part // (KILLS + 1): threading.Event() for part in range(1, KILLS + 1)}

    def produce() -> None:
        with tocsin.connect(server.address, timeout_s=30) as client:
            for number in range(EVENTS):
                acknowledged.append(client.append("load.step", details={"n": number}).position)
                if number in reached:
                    reached[number].set()

    def follow() -> None:
        with tocsin.connect(server.address) as client, client.subscribe(start="beginning") as subscription:
            for event in subscription:
                arrived.append(event.position)
                if tocsin.to_python(event.details) == {"n": EVENTS - 1}:
                    connections.append(subscription.connections)
                    return

    connections: list[int] = []
    threads = [threading.Thread(target=produce), threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    for step in reached.values():
        assert step.wait(30)
        server.kill()
        server.start()
    for thread in threads:
        thread.join(60)
    assert arrived == acknowledged
    assert arrived == sorted(set(arrived))
    assert connections[0] > 1  # a kill may come before the first connection


async def test_no_gap_and_no_duplicate_over_kills_with_asyncio(server: Server) -> None:
    acknowledged: list[int] = []
    arrived: list[int] = []
    half = asyncio.Event()

    async def produce(client: tocsin.AsyncClient) -> None:
        for number in range(EVENTS):
            acknowledged.append((await client.append("load.step", details={"n": number})).position)
            if number == EVENTS // 2:
                half.set()

    async def follow(client: tocsin.AsyncClient) -> int:
        async with client.subscribe(start="beginning") as subscription:
            async for event in subscription:
                arrived.append(event.position)
                if tocsin.to_python(event.details) == {"n": EVENTS - 1}:
                    break
            return subscription.connections

    async with tocsin.connect_async(server.address, timeout_s=30) as client:
        producing = asyncio.create_task(produce(client))
        following = asyncio.create_task(follow(client))
        await half.wait()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await producing
        assert await following > 1
    assert arrived == acknowledged


def test_a_subscription_goes_on_over_an_orderly_restart(server: Server) -> None:
    with tocsin.connect(server.address) as client, client.subscribe(start="beginning") as subscription:
        first = client.append("a.b")
        assert next(subscription).position == first.position
        server.stop()
        server.start()
        second = client.append("a.b")
        assert next(subscription).position == second.position
        assert subscription.connections == 2


def test_a_position_is_good_in_another_process(server: Server) -> None:
    with tocsin.connect(server.address) as client:
        stored = [client.append("a.b") for _ in range(4)]
        with client.subscribe(start="beginning") as subscription:
            next(subscription)
            assert next(subscription).position == stored[1].position
            place = subscription.after
    assert place is not None
    server.kill()
    server.start()
    with tocsin.connect(server.address) as client:
        rest = list(client.subscribe(start=place, stop_when_caught_up=True))
    assert [event.position for event in rest] == [found.position for found in stored[2:]]


@pytest.mark.parametrize("number", [0, 1, 2, 4, 5, 6])
def test_the_readme_runs(shared: Server, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[number]
    exec(compile(code.replace("127.0.0.1:50051", shared.address), f"README block {number}", "exec"), {})
    assert capsys.readouterr().out
