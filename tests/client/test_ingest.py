"""Ingestion through both clients: on the real server, over kill -9, and on one that breaks off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tocsin
from tocsin.ingesting import Flow
from tocsin.v1 import annotations_pb2
from tocsin.v1 import event_log_pb2 as pb

from examples.demo.server import Server
from tests.client.conftest import QUICK
from tests.client.scripted import LOG_ID, Behaviour, Script, fail

EVENTS = 3000


def drafts(count: int) -> Iterator[pb.Event]:
    return (tocsin.draft("load.step", details={"n": number}) for number in range(count))


def numbers(outcomes: list[tocsin.Outcome]) -> list[int]:
    return [tocsin.to_python(outcome.event.details)["n"] for outcome in outcomes]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """Answer a server of the test's own, to be killed."""
    running = Server(tmp_path)
    running.start()
    yield running
    running.stop()


def test_outcomes_come_in_the_order_of_the_events(live: Any) -> None:
    outcomes = list(live.ingest(drafts(EVENTS), batch_size=100))
    assert numbers(outcomes) == [outcome.index for outcome in outcomes] == list(range(EVENTS))
    stored = [outcome.stored for outcome in outcomes]
    assert [s.position for s in stored] == sorted(s.position for s in stored)
    assert [event.id for event in live.subscribe(start="beginning", stop_when_caught_up=True)] == [s.id for s in stored]
    assert list(live.ingest([])) == []


def test_a_refused_event_is_refused_alone(live: Any) -> None:
    """XC12: its neighbours are stored, and its violations name its own fields."""
    given = [tocsin.draft("a.b", id=f"e{n}") for n in range(10)]
    given[3].type, given[7].message = "Not A Type", "x" * 5000
    outcomes = list(live.ingest(given, batch_size=10))
    assert [outcome.event.id for outcome in outcomes] == [f"e{n}" for n in range(10)]
    refused = {o.index: [v.field for v in o.refused.violations] for o in outcomes if o.refused}
    assert refused == {3: ["type"], 7: ["message"]}
    assert outcomes[3].refused.reason == "INVALID_FIELD"
    assert sorted(event.id for event in live.list_events()) == sorted(f"e{n}" for n in range(10) if n not in (3, 7))
    again = list(live.ingest([given[0], tocsin.draft("other", id="e1")]))
    assert again[0].stored.position == outcomes[0].stored.position
    assert again[1].refused.reason == "ID_REUSED"


def test_what_was_redacted_is_told(live: Any) -> None:
    secret = {"registry": {"password": "hunter2"}}
    assert live.append("a.b", details=secret).redacted_paths == ("details.registry.password",)
    (one,) = live.append_many([tocsin.draft("a.b", details=secret)])
    (outcome,) = live.ingest([tocsin.draft("a.b", details=secret)])
    assert one.redacted_paths == outcome.stored.redacted_paths == ("details.registry.password",)


def test_what_reading_the_events_raises_comes_after_their_outcomes(live: Any) -> None:
    def given() -> Iterator[pb.Event]:
        yield from drafts(3)
        raise RuntimeError("the file ends here")

    outcomes = []
    with pytest.raises(RuntimeError, match="the file ends here"):
        for outcome in live.ingest(given()):
            outcomes.append(outcome)
    assert numbers(outcomes) == [0, 1, 2]
    with pytest.raises(ValueError, match="at most 262144"):
        list(live.ingest([tocsin.draft("a.b", details="x" * 3_000_000)]))


def test_a_large_event_splits_its_batch(live: Any) -> None:
    given = [tocsin.draft("a.b", details="x" * 200_000) for _ in range(40)]
    assert all(outcome.stored for outcome in live.ingest(given, batch_size=1000))


def test_bounds_of_batch_and_window(client: Any) -> None:
    for wrong in ({"batch_size": 0}, {"batch_size": 1001}, {"window": 0}, {"window": 257}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            client.ingest([], **wrong)


def test_an_event_that_comes_alone_is_sent_at_once(shared: Server) -> None:
    """A slow source does not wait for a batch to be full."""
    first_is_stored = threading.Event()

    def given() -> Iterator[pb.Event]:
        yield tocsin.draft("a.b")
        assert first_is_stored.wait(30)
        yield tocsin.draft("a.b")

    with tocsin.connect(shared.address, account="alone") as client, client.ingest(given()) as ingestion:
        assert next(ingestion).stored
        first_is_stored.set()
        assert next(ingestion).stored
        assert list(ingestion) == []


def take(count: int, then: Behaviour) -> Behaviour:
    """Acknowledge so many batches, then do something else."""

    def behave(requests: Any, context: grpc.ServicerContext) -> Iterator[pb.IngestResponse]:
        for sequence, request in enumerate(requests, 1):
            seen.append(request)
            if sequence > count:
                then(request, context)
            yield answered(sequence, request)

    seen = behave.__dict__["seen"] = []
    return behave


def answered(sequence: int, request: pb.IngestRequest) -> pb.IngestResponse:
    results = [pb.AppendResult(id=event.type, position=sequence) for event in request.events]
    return pb.IngestResponse(batches=[pb.IngestResponse.Batch(sequence=sequence, results=results)], log_id=LOG_ID)


def test_unacknowledged_batches_are_sent_again_as_they_were(client: Any, script: Script) -> None:
    broken, whole = take(2, fail(grpc.StatusCode.UNAVAILABLE)), take(100, fail(grpc.StatusCode.ABORTED))
    script.on("Ingest", broken, whole)
    lost: list[float] = []
    ingestion = client.ingest(
        [tocsin.draft(f"a.n{n}") for n in range(6)], batch_size=1, window=2, on_disconnect=lambda e, w: lost.append(w)
    )
    assert [outcome.stored.id for outcome in ingestion] == [f"a.n{n}" for n in range(6)]
    first, second = broken.__dict__["seen"], whole.__dict__["seen"]
    assert second[0] == first[2]
    assert second[0].request_id
    assert len({request.request_id for request in [*first, *second]}) == 6
    assert (ingestion.connections, len(lost)) == (2, 1)


def test_a_refusal_by_the_server_of_the_caller_ends_it(client: Any, script: Script) -> None:
    # Who writes as the stream ends may be told by their own core only that it has: they ask again.
    script.on("Ingest", *[fail(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")] * 8)
    with pytest.raises(tocsin.PermissionDenied):
        list(client.ingest(drafts(3)))


def test_no_loss_and_no_duplicate_over_kills(own: Server) -> None:
    """XA1, XA2: kill -9 of the server in the middle, twice."""
    outcomes: list[tocsin.Outcome] = []
    with tocsin.connect(own.address, backoff=QUICK) as client:
        ingestion = client.ingest(drafts(EVENTS), batch_size=20)
        for outcome in ingestion:
            outcomes.append(outcome)
            if len(outcomes) in (EVENTS // 3, 2 * EVENTS // 3):
                own.kill()
                own.start()
        assert ingestion.connections == 3
        stored = list(client.subscribe(start="beginning", stop_when_caught_up=True))
    assert numbers(outcomes) == list(range(EVENTS))
    assert sorted(tocsin.to_python(event.details)["n"] for event in stored) == list(range(EVENTS))
    assert {event.id for event in stored} == {outcome.stored.id for outcome in outcomes if outcome.stored}


async def test_no_loss_and_no_duplicate_over_a_kill_with_asyncio(own: Server) -> None:
    """XA1, XA2."""

    async def given() -> AsyncIterator[pb.Event]:
        for event in drafts(EVENTS):
            yield event

    outcomes: list[tocsin.Outcome] = []
    async with tocsin.connect_async(own.address, backoff=QUICK) as client:
        ingestion = client.ingest(given(), batch_size=20)
        async for outcome in ingestion:
            outcomes.append(outcome)
            if len(outcomes) == EVENTS // 2:
                await asyncio.to_thread(own.kill)
                await asyncio.to_thread(own.start)
        assert ingestion.connections == 2
        stored = [event async for event in client.subscribe(start="beginning", stop_when_caught_up=True)]
    assert numbers(outcomes) == list(range(EVENTS))
    assert sorted(tocsin.to_python(event.details)["n"] for event in stored) == list(range(EVENTS))


def flow(*types: str, window: int = 2, batch_size: int = 2) -> Flow:
    made = Flow(batch_size, window, QUICK)
    for event_type in types:
        made.feed(pb.Event(type=event_type))
    made.connected()
    return made


def test_the_window_bounds_what_is_open() -> None:
    made = flow(*"abcdefg")
    first, second = made.request(), made.request()
    assert first is not None
    assert second is not None
    assert made.request() is None
    made.take(answered(1, first))
    assert [made.next().stored.id for _ in range(2)] == ["a", "b"]  # type: ignore[union-attr]
    assert made.next() is None
    third = made.request()
    assert third is not None
    assert [event.type for event in third.events] == ["e", "f"]


def test_a_refused_batch_without_indexes_is_refused_whole() -> None:
    made = flow("a", "b")
    assert made.request() is not None
    refusal = pb.IngestResponse.Refusal(reason=annotations_pb2.ERROR_REASON_STORAGE_FULL, message="full")
    made.take(pb.IngestResponse(batches=[pb.IngestResponse.Batch(sequence=1, refusal=refusal)]))
    told = [made.next(), made.next()]
    assert [outcome and outcome.refused for outcome in told] == [tocsin.Refused("STORAGE_FULL", "full")] * 2


def test_a_wrong_sequence_is_an_error() -> None:
    made = flow("a")
    request = made.request()
    assert request is not None
    with pytest.raises(tocsin.TocsinError, match="batch 2, 1 is next"):
        made.take(answered(2, request))
    with pytest.raises(tocsin.TocsinError, match="0 events of 1"):
        made.take(answered(2, pb.IngestRequest()))


def test_silence_for_long_is_no_failure() -> None:
    made = flow("a")
    first = made.request()
    late = tocsin.DeadlineExceeded("idle", code=grpc.StatusCode.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED")
    assert made.broken(late, 0.5) > 0
    made.connected()
    assert made.request() is first
