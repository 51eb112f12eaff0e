"""Calls of both clients: what they send, when they try again, what they raise."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import tocsin
from tocsin.v1 import event_log_pb2 as pb

from tests.client.scripted import Script, answer, fail, stream

DOWN = fail(grpc.StatusCode.UNAVAILABLE)
STORED = answer(pb.AppendEventResponse(event=pb.Event(id="e7", position=7), log_id="log"))


def test_an_append_answers_where_the_event_is(script: Script, client: Any) -> None:
    script.on("AppendEvent", STORED)
    stored = client.append("a.b", message="hello", details={"n": 1})
    assert (stored.id, stored.position, stored.log_id, stored.deleted) == ("e7", 7, "log", False)
    (request,) = script.requests("AppendEvent")
    assert (request.event.type, request.event.message) == ("a.b", "hello")


def test_an_append_is_repeated_under_the_same_request_id(script: Script, client: Any) -> None:
    draining = fail(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    script.on("AppendEvent", DOWN, draining, STORED)
    assert client.append("a.b", labels={"x": "1", "y": "2"}).position == 7
    first, *others = script.requests("AppendEvent")
    assert first.request_id
    assert others == [first, first]


def test_a_batch_is_answered_in_order(script: Script, client: Any) -> None:
    results = [pb.AppendResult(id="x", position=3), pb.AppendResult(id="y", position=1, deleted=True)]
    script.on("AppendEvents", DOWN, answer(pb.AppendEventsResponse(results=results, log_id="log")))
    stored = client.append_many([tocsin.draft("a.b", id="x"), tocsin.draft("a.b", id="y")])
    assert stored == [tocsin.Appended("x", 3, "log"), tocsin.Appended("y", 1, "log", deleted=True)]


def test_a_raw_append_without_an_id_is_not_repeated(script: Script, client: Any) -> None:
    script.on("AppendEvent", DOWN, STORED)
    with pytest.raises(tocsin.Unavailable):
        client.event_log.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="a.b")))
    assert len(script.seen) == 1


def test_a_deletion_is_not_repeated(script: Script, client: Any) -> None:
    script.on("DeleteEvent", DOWN, answer(pb.DeleteEventResponse(id="x")))
    with pytest.raises(tocsin.Unavailable):
        client.delete_event("x")
    client.delete_event("x")
    assert [request.id for request in script.requests("DeleteEvent")] == ["x", "x"]


def test_an_error_that_will_not_pass_is_raised_at_once(script: Script, client: Any) -> None:
    refused = fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", fields={"event.type": "is needed"})
    script.on("AppendEvent", refused)
    with pytest.raises(tocsin.InvalidField) as raised:
        client.append("")
    assert raised.value.violations == (tocsin.Violation("event.type", "is needed"),)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_read_waits_as_long_as_it_was_asked_to(script: Script, client: Any) -> None:
    busy = fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED", retry_after_s=0.01)
    script.on("GetEvent", busy, answer(pb.GetEventResponse(event=pb.Event(id="x"))))
    assert client.get_event("x").id == "x"


def test_the_deadline_bounds_all_tries(script: Script, connect: Any) -> None:
    script.on("GetEvent", *[DOWN] * 100)
    client = connect(script.address, timeout_s=0.5, backoff=tocsin.Backoff(0.02, 0.05))
    # The last answer may come too late on a busy machine.
    with pytest.raises((tocsin.Unavailable, tocsin.DeadlineExceeded)):
        client.get_event("x")
    times = [call.timeout_s for call in script.seen]
    assert 1 < len(times) < 100
    assert all(time is not None and time <= 0.51 for time in times)
    assert times[-1] < times[0]  # type: ignore[operator]


def test_a_call_has_a_deadline_of_its_own(script: Script, client: Any) -> None:
    script.on("GetEvent", lambda request, context: script.released.wait() and pb.GetEventResponse())
    with pytest.raises(tocsin.DeadlineExceeded):
        client.event_log.GetEvent(pb.GetEventRequest(id="x"), timeout=0.05)


def test_nobody_there(connect: Any) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # without listen() it refuses, and nobody else can take it
        client = connect(f"127.0.0.1:{unheard.getsockname()[1]}")
        with pytest.raises(tocsin.Unavailable):
            client.delete_event("x")  # is not repeated, so it need not wait for a deadline


def test_a_call_can_wait_for_the_server(connect: Any) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        client = connect(f"127.0.0.1:{unheard.getsockname()[1]}")
        with pytest.raises(tocsin.DeadlineExceeded):
            client.event_log.GetEvent(pb.GetEventRequest(id="x"), timeout=0.1, wait_for_ready=True)


def test_headers_of_a_context(script: Script, connect: Any) -> None:
    client = connect(script.address, api_key="k1", account="blue")
    script.on("GetEvent", answer(pb.GetEventResponse()), answer(pb.GetEventResponse()))
    client.get_event("x")
    expected = {"authorization": "Bearer k1", "x-tocsin-account": "blue"}
    assert expected.items() <= script.seen[0].metadata.items()
    assert "x-request-id" not in script.seen[0].metadata
    request = pb.GetEventRequest(id="x")
    client.event_log.GetEvent(request, metadata=[("x-request-id", "r1"), ("x-correlation-id", "c1")])
    expected |= {"x-request-id": "r1", "x-correlation-id": "c1"}
    assert expected.items() <= script.seen[1].metadata.items()


def test_a_client_in_context_shares_the_connection(script: Script) -> None:
    script.on("GetEvent", answer(pb.GetEventResponse()), answer(pb.GetEventResponse()))
    with tocsin.connect(script.address, account="blue") as client:
        with client.in_context(request_id="r1", traceparent="t1") as inner:
            inner.get_event("x")
        client.get_event("x")
    first, second = (call.metadata for call in script.seen)
    assert (first["x-request-id"], first["traceparent"], first["x-tocsin-account"]) == ("r1", "t1", "blue")
    assert "x-request-id" not in second


def test_a_list_goes_on_over_short_and_empty_pages(script: Script, client: Any) -> None:
    def page(ids: str, token: str) -> Callable[[Any, Any], Any]:
        return answer(pb.ListEventsResponse(events=[pb.Event(id=id) for id in ids], next_page_token=token))

    script.on("ListEvents", page("ab", "t1"), page("", "t2"), DOWN, page("c", ""))
    found = client.list_events(types=["a.*"], oldest_first=True, page_size=2)
    assert [event.id for event in found] == ["a", "b", "c"]
    requests = script.requests("ListEvents")
    assert [request.page_token for request in requests] == ["", "t1", "t2", "t2"]
    assert {request.order for request in requests} == {pb.ORDER_OLDEST_FIRST}
    assert all(list(request.filter.types) == ["a.*"] for request in requests)


def test_a_deletion_answers_the_ids(script: Script, client: Any) -> None:
    step = pb.DeleteEventsResponse
    steps = [
        step(progress=step.Progress(ids=["a", "b"], deleted_count=2)),
        step(progress=step.Progress(ids=["c"], deleted_count=3)),
        step(done=step.Done(deleted_count=3)),
    ]
    script.on("DeleteEvents", stream(*steps))
    assert client.delete_events(levels=["error"]) == ["a", "b", "c"]


def test_a_broken_deletion_is_raised(script: Script, client: Any) -> None:
    script.on("DeleteEvents", stream(fail(grpc.StatusCode.UNAVAILABLE, "STORAGE_FAILED")))
    with pytest.raises(tocsin.StorageFailed):
        client.delete_events(all=True)


def test_a_preview_of_a_deletion(script: Script, client: Any) -> None:
    preview = pb.DeleteEventsResponse.Preview(matching_count=2, sample=[pb.Event(id="x")])
    script.on("DeleteEvents", stream(pb.DeleteEventsResponse(preview=preview)))
    assert client.preview_deletion(all=True) == preview
    assert script.requests("DeleteEvents")[0].validate_only
