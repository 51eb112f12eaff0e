"""Every field of every request has a bound, and breaking it is refused by its path with nothing stored.

The cases are made from the descriptors: a new field without a bound does not start, a new RPC without
a valid request here fails.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tocsin.v1 import alerting_pb2, annotations_pb2, event_log_pb2, notifications_pb2, system_pb2
from tocsin_server.api.bounds import bound_of, is_map

from tests.support.receivers import SECRET
from tests.support.servers import Api, refused, serving

FILES = (event_log_pb2, notifications_pb2, alerting_pb2, system_pb2)
EVENT = {
    "type": "user.a.b",
    "details": {"a": 1},
    "labels": {"k": "v"},
    "resource": {"id": "r"},
    "source": {"host": "h"},
}
FILTER = {"types": ["user.*"], "labels": {"k": "v"}}
WEBHOOK = {
    "name": "n",
    "webhook": {"url": "http://127.0.0.1:9/", "secret": SECRET},
    "selectors": [{"scope": "account", "level": "*", "type": "*", "resource_type": "*"}],
}
ALERT = {
    "name": "n",
    "alert_type_id": ".event-threshold",
    "consumer": "tests",
    "schedule": {"interval": "1m"},
    "tags": ["t"],
    "params": {"window": "1m", "threshold": 1, "comparator": ">="},
    "actions": [{"id": "x", "params": {"body": "b"}}],
}
# A request of each method that is inside every bound; it need not find anything.
VALID: dict[str, dict[str, Any]] = {
    "AppendEvent": {"event": EVENT},
    "AppendEvents": {"events": [EVENT]},
    "GetEvent": {"id": "x"},
    "ListEvents": {"filter": FILTER},
    "DeleteEvent": {"id": "x"},
    "DeleteEvents": {"filter": FILTER},
    "Subscribe": {"filter": FILTER},
    "ListEndpoints": {},
    "GetEndpoint": {"kind": "webhook"},
    "UpdateEndpoint": {"endpoint": {"kind": "webhook", "enabled": True}},
    "CreateEndpointConfiguration": {"configuration": WEBHOOK},
    "GetEndpointConfiguration": {"id": "x"},
    "ListEndpointConfigurations": {},
    "UpdateEndpointConfiguration": {"configuration": {**WEBHOOK, "id": "x"}},
    "DeleteEndpointConfiguration": {"id": "x"},
    "TestEndpointConfiguration": {"configuration": WEBHOOK},
    "ListDeliveries": {},
    "GetDelivery": {"id": "x"},
    "ListAlertTypes": {},
    "CreateAlert": {"alert": ALERT},
    "GetAlert": {"id": "x"},
    "FindAlerts": {},
    "UpdateAlert": {"alert": {**ALERT, "id": "x"}},
    "DeleteAlert": {"id": "x"},
    "EnableAlert": {"id": "x"},
    "DisableAlert": {"id": "x"},
    "GetAlertState": {"id": "x"},
    "GetInfo": {},
}
Break = Callable[[Any], None]


@dataclass(frozen=True)
class Case:
    """One way to break one bound of one method."""

    method: MethodDescriptor
    path: str
    how: str
    apply: Callable[[Message], None]

    def __str__(self) -> str:
        return f"{self.method.name}-{self.path}-{self.how}"


def methods() -> list[MethodDescriptor]:
    return [
        method for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
    ]


def all_cases() -> Iterator[Case]:
    for method in methods():
        for path, how, apply in breaks(method.input_type, "", lambda request: request):
            yield Case(method, path, how, apply)


def breaks(
    message: Descriptor, prefix: str, reach: Callable[[Any], Any]
) -> Iterator[tuple[str, str, Callable[[Message], None]]]:
    """Give every way to break a bound of a message type; `reach` finds the message in a request."""
    for oneof in message.oneofs:
        if oneof.GetOptions().Extensions[annotations_pb2.one_required]:
            yield prefix + oneof.name, "none", _after(reach, partial(_clear_oneof, name=oneof.name))
    for field in message.fields:
        bound = bound_of(field)
        if bound.output_only:
            continue
        path = prefix + field.name
        for how, broken in field_breaks(field, bound):
            where = f"{path}[0]" if how.startswith("entry") else path
            yield where, how, _after(reach, broken)
        below = field.message_type
        if below is not None and not is_map(field) and not below.full_name.startswith("google."):
            inner = f"{path}[0]." if field.is_repeated else f"{path}."
            yield from breaks(below, inner, _reaching(reach, field))


def _after(reach: Callable[[Any], Any], broken: Break) -> Break:
    return lambda request: broken(reach(request))


def _reaching(reach: Callable[[Any], Any], field: FieldDescriptor) -> Callable[[Any], Any]:
    def into(request: Any) -> Any:
        value = getattr(reach(request), field.name)
        if field.is_repeated:
            return value[0] if value else value.add()
        value.SetInParent()
        return value

    return into


def _clear_oneof(message: Message, name: str) -> None:
    message.ClearField(message.WhichOneof(name) or name)


def field_breaks(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Iterator[tuple[str, Break]]:
    name = field.name
    if bound.required:
        yield "missing", lambda m: m.ClearField(name)
    if is_map(field):
        yield "too many", lambda m: getattr(m, name).update({f"k{i}": "" for i in range(bound.max_items + 1)})
        return
    if field.is_repeated:
        yield "too many", lambda m: _overfill(m, field, bound.max_items + 1)
    for how, value in value_breaks(field, bound):
        if field.is_repeated:
            yield f"entry {how}", partial(_set_entry, name=name, value=value)
        else:
            yield how, partial(_set, name=name, value=value)
    yield from message_breaks(field, bound)


def _overfill(message: Any, field: FieldDescriptor, count: int) -> None:
    entries = getattr(message, field.name)
    while len(entries) < count:
        if field.message_type is not None:
            entries.add()
        else:
            entries.append("a" if field.type == FieldDescriptor.TYPE_STRING else 1)


def _set(message: Any, name: str, value: Any) -> None:
    setattr(message, name, value)


def _set_entry(message: Any, name: str, value: Any) -> None:
    del getattr(message, name)[:]
    getattr(message, name).append(value)


def value_breaks(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Iterator[tuple[str, Any]]:
    if field.type == FieldDescriptor.TYPE_STRING:
        yield "too long", "a" * (bound.max_len + 1)
        yield "NUL", "a\0"
        if bound.pattern:
            yield "pattern", "\u00fc \n"
        if bound.min_len and field.is_repeated:
            yield "too short", ""
    elif field.type == FieldDescriptor.TYPE_ENUM:
        yield "unknown", 99
    elif field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64):
        if bound.HasField("min"):
            yield "too small", bound.min - 1
        if bound.HasField("max"):
            yield "too large", bound.max + 1


def message_breaks(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Iterator[tuple[str, Break]]:
    name = field.name
    kind = field.message_type.full_name if field.message_type is not None else ""
    if kind == "google.protobuf.Timestamp":
        yield "before 1970", lambda m: setattr(getattr(m, name), "seconds", -1)
        yield "year 10000", lambda m: setattr(getattr(m, name), "seconds", 253_402_300_800)
        yield "nanos", lambda m: setattr(getattr(m, name), "nanos", 1_000_000_000)
    elif kind == "google.protobuf.Duration":
        yield "too short", lambda m: setattr(getattr(m, name), "nanos", 1)
        yield "too long", lambda m: setattr(getattr(m, name), "seconds", 10**6)
    elif kind == "google.protobuf.FieldMask":
        yield "too many", lambda m: getattr(m, name).paths.extend(["a"] * (bound.max_items + 1))
    elif kind == "google.protobuf.Struct" and bound.max_bytes:
        yield "too large", lambda m: getattr(m, name).update({"k": "a" * bound.max_bytes})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with serving(tmp_path_factory.mktemp("bounds")) as api:
        yield api


CASES = list(all_cases())


def call(api: Api, method: MethodDescriptor, request: Message) -> Any:
    assert method.containing_service is not None
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = GetMessageClass(method.output_type)
    make = api.channel.unary_stream if method.server_streaming else api.channel.unary_unary
    return make(path, type(request).SerializeToString, answer.FromString)(request)


def request_of(method: MethodDescriptor) -> Message:
    return json_format.ParseDict(VALID[method.name], GetMessageClass(method.input_type)())


def contents(path: Path) -> list[tuple[Any, ...]]:
    """Count the rows of every table."""
    with sqlite3.connect(path) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = [connection.execute(f"SELECT '{name}', count(*) FROM {name}").fetchone() for name in sorted(tables)]
    connection.close()
    return counts


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_broken_bound_is_refused_by_its_path_and_nothing_is_stored(running: Api, case: Case) -> None:
    request = request_of(case.method)
    case.apply(request)
    before = contents(running.app.data / "tocsin.db")
    refusal = await refused(call(running, case.method, request))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "INVALID_FIELD"
    assert any(field == case.path or field.startswith(f"{case.path}[") for field in refusal.fields), refusal.fields
    assert contents(running.app.data / "tocsin.db") == before


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
    ],
    ids=["objects", "lists", "lists too deep", "objects too deep"],
)
async def test_details_are_at_most_32_levels_deep(
    running: Api, wrap: Callable[[Any], Any], depth: int, says: str
) -> None:
    """XC5: nesting."""
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    request = event_log_pb2.AppendEventRequest(event=event_log_pb2.Event(type="a"))
    json_format.ParseDict(value, request.event.details)
    if not says:
        await running.events.AppendEvent(request)
    else:
        assert says in (await refused(running.events.AppendEvent(request))).text


@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_has_at_most_256_kib(running: Api) -> None:
    """XC7: one event too large, far below the message limit."""
    request = event_log_pb2.AppendEventRequest(event=event_log_pb2.Event(type="a"))
    request.event.details.string_value = "a" * 262_144
    assert list((await refused(running.events.AppendEvent(request))).fields) == ["event"]


@pytest.mark.asyncio(loop_scope="module")
async def test_bytes_that_are_no_message_are_refused_as_such(running: Api) -> None:
    """XC1, XC2: undecodable protobuf and invalid UTF-8."""
    raw = running.channel.unary_unary("/tocsin.v1.EventLog/AppendEvent", lambda b: b, lambda b: b)
    for body in (b"\xff\xff\xff", b"\x0a\x04\x22\x02\xff\xfe"):
        refusal = await refused(raw(body))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")
