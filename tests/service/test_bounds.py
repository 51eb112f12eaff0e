"""Every field of every request has a bound, and breaking it is refused by its path with nothing stored.

The cases are made from the descriptors in `tests/support/bounds.py`: a new field without a bound does
not start, a new RPC without a valid request there fails, and so does a bound that no case breaks.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Value
from tocsin.v1 import annotations_pb2, event_log_pb2

from tests.support.bounds import CASES, Case, methods, request_of, stated
from tests.support.servers import Api, refused, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with serving(tmp_path_factory.mktemp("bounds")) as api:
        yield api


def call(api: Api, method: MethodDescriptor, request: Message) -> Any:
    assert method.containing_service is not None
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = GetMessageClass(method.output_type)
    if method.client_streaming:
        exchange = api.channel.stream_stream(path, type(request).SerializeToString, answer.FromString)
        return exchange(iter([request]))
    make = api.channel.unary_stream if method.server_streaming else api.channel.unary_unary
    return make(path, type(request).SerializeToString, answer.FromString)(request)


def contents(path: Path) -> list[tuple[Any, ...]]:
    """Count the rows of every table."""
    with sqlite3.connect(path) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = [connection.execute(f"SELECT '{name}', count(*) FROM {name}").fetchone() for name in sorted(tables)]
    connection.close()
    return counts


@pytest.mark.parametrize("method", methods(), ids=lambda method: str(method.name))
def test_every_stated_bound_has_a_case(method: MethodDescriptor) -> None:
    broken = {(case.field, case.way.bound) for case in CASES if case.method is method}
    assert not set(stated(method.input_type)) - broken


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_broken_bound_is_refused_by_its_path_and_nothing_is_stored(running: Api, case: Case) -> None:
    """A38: the four criteria of a selector among them."""
    request = request_of(case.method)
    case.apply(request)
    before = contents(running.app.data / "tocsin.db")
    if case.method.name == "Ingest":  # refuses a batch and goes on
        fields = await refused_batch(call(running, case.method, request))
    else:
        refusal = await refused(call(running, case.method, request))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.reason == "INVALID_FIELD"
        fields = list(refusal.fields)
    assert any(field == case.path or field.startswith(f"{case.path}[") for field in fields), fields
    assert contents(running.app.data / "tocsin.db") == before


async def refused_batch(stream: Any) -> list[str]:
    """Give the fields for which the only batch of a stream was refused."""
    (batch,) = [batch async for message in stream for batch in message.batches]
    assert batch.refusal.reason == annotations_pb2.ERROR_REASON_INVALID_FIELD
    return [violation.field for violation in batch.refusal.violations]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("method", methods(), ids=lambda method: str(method.name))
async def test_the_request_that_is_broken_is_within_bounds_itself(running: Api, method: MethodDescriptor) -> None:
    stream = call(running, method, request_of(method))
    try:
        async with asyncio.timeout(5):
            await (stream.read() if method.server_streaming else stream)
    except grpc.aio.AioRpcError as error:
        assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT), error.details()
        assert "INVALID_FIELD" not in str(error.trailing_metadata()) or method.name in ("CreateAlert",), error.details()
    finally:
        stream.cancel()


DETAILS = [
    ("event.details.a", {"a": float("nan")}),
    ("event.details.a[1]", {"a": [1, float("inf")]}),
    ("event.details.a", {"a": "x\0y"}),
    ("event.details", "x\0y"),
    ("event.details.a", {"a": float("-inf"), "b": 2}),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("path", "details"), DETAILS, ids=range(len(DETAILS)))
async def test_details_that_json_cannot_hold_are_refused_by_path(running: Api, path: str, details: Any) -> None:
    """XC3, XC4: NUL, NaN and infinities in dynamic data."""
    request = event_log_pb2.AppendEventRequest(event=event_log_pb2.Event(type="a"))
    if isinstance(details, str):
        request.event.details.string_value = details
    else:
        request.event.details.struct_value.update(details)
    refusal = await refused(running.events.AppendEvent(request))
    assert list(refusal.fields) == [path]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("wrap", "depth", "says"),
    [
        (lambda below: {"a": below}, 31, ""),
        (lambda below: [below], 31, ""),
        (lambda below: [below], 32, "nested too deeply"),
        # The decoder itself stops at 100 messages within each other: a level of an object is three.
        (lambda below: {"a": below}, 33, "more than 32 levels"),
        (lambda below: [{"a": below, "b": 1}], 30, "more than 32 levels"),
        (lambda below: {"a": below}, 3000, "more than 32 levels"),
    ],
    ids=["objects", "lists", "lists too deep", "objects too deep", "both too deep", "far too deep"],
)
async def test_details_are_at_most_32_levels_deep(
    running: Api, wrap: Callable[[Any], Any], depth: int, says: str
) -> None:
    """XC5: nesting."""
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    request = event_log_pb2.AppendEventRequest(event=event_log_pb2.Event(type="a"))
    _nest(request.event.details, value)
    if not says:
        await running.events.AppendEvent(request)
        return
    refusal = await refused(running.events.AppendEvent(request))
    assert (says in refusal.text, refusal.reason) == (True, "INVALID_FIELD")
    assert [path.partition("[")[0].partition(".a")[0] for path in refusal.fields] == ["event.details"]
    batch = event_log_pb2.AppendEventsRequest(events=[event_log_pb2.Event(type="a") for _ in range(4)])
    for index in (1, 3):
        _nest(batch.events[index].details, value)
    assert (await refused(running.events.AppendEvents(batch))).metadata["bad_indexes"] == "1,3"


def _nest(place: Value, value: Any) -> None:
    """Write plain data of any depth."""
    while isinstance(value, (dict, list)):
        if isinstance(value, list):
            (value,), place = value, place.list_value.values.add()
            continue
        for name, other in value.items():
            if name != "a":
                place.struct_value.fields[name].number_value = other
        place, value = place.struct_value.fields["a"], value["a"]
    place.number_value = value


@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_has_at_most_256_kib(running: Api) -> None:
    """XC7: one event too large, far below the message limit."""
    request = event_log_pb2.AppendEventRequest(event=event_log_pb2.Event(type="a"))
    request.event.details.string_value = "a" * 262_144
    assert list((await refused(running.events.AppendEvent(request))).fields) == ["event"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_batch_has_at_most_3_mib(running: Api) -> None:
    """XC7: each event is within its bound, all together are not, and the message still is."""
    event = event_log_pb2.Event(type="a")
    event.details.string_value = "a" * 262_000
    request = event_log_pb2.AppendEventsRequest(events=[event] * 12)
    assert len((await running.events.AppendEvents(request)).results) == 12
    stored = dict(contents(running.app.data / "tocsin.db"))["events"]
    event.details.string_value = "a" * (3 * 1024 * 1024 + 1 - request.ByteSize())
    request.events.append(event)
    refusal = await refused(running.events.AppendEvents(request))
    assert (refusal.reason, list(refusal.fields)) == ("INVALID_FIELD", ["events"])
    assert dict(contents(running.app.data / "tocsin.db"))["events"] == stored


@pytest.mark.asyncio(loop_scope="module")
async def test_bytes_that_are_no_message_are_refused_as_such(running: Api) -> None:
    """XC1, XC2: undecodable protobuf and invalid UTF-8."""
    raw = running.channel.unary_unary("/tocsin.v1.EventLog/AppendEvent", lambda b: b, lambda b: b)
    for body in (b"\xff\xff\xff", b"\x0a\x04\x22\x02\xff\xfe"):
        refusal = await refused(raw(body))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")
