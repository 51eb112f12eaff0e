"""Requests inside every bound, and every way to break one, made from the descriptors.

A case names the attribute of `tocsin.v1.Bound` that it breaks. `stated` lists the attributes that the
protos state, by a walk of its own, so that a test can hold the cases to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tocsin.v1 import alerting_pb2, annotations_pb2, event_log_pb2, notifications_pb2, system_pb2
from tocsin_server.api.bounds import bound_of, is_map

from tests.support.receivers import SECRET

FILES = (event_log_pb2, notifications_pb2, alerting_pb2, system_pb2)
EVENT = {
    "type": "user.a.b",
    "details": {"a": 1},
    "labels": {"k": "v"},
    "resource": {"id": "r"},
    "source": {"host": "h"},
}
FILTER = {"types": ["user.*"], "labels": {"k": "v"}, "where": "event.details.a == 1"}
EVENT_TYPE = {"type": "user.a.b", "payload_schema": {"type": "object"}, "example": {"a": 1}}
WEBHOOK = {
    "name": "n",
    "webhook": {"url": "http://127.0.0.1:9/", "secret": SECRET},
    "selectors": [{"scope": "account", "level": "*", "type": "*", "resource_type": "*"}],
    "options": {"retry_schedule": [5, 60], "rate": {"per_second": 1}},
}
IN_AN_HOUR = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
SILENCE = {"filter": {"types": ["user.*"]}, "end_time": IN_AN_HOUR, "comment": "c"}
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
    "Ingest": {"events": [EVENT]},
    "GetEvent": {"id": "x"},
    "ListEvents": {"filter": FILTER},
    "BatchGetEvents": {"ids": ["x"]},
    "GetLogStatus": {},
    "SummarizeEvents": {"filter": FILTER, "bucket_count": 10, "group_by": "type"},
    "RegisterEventTypes": {"event_types": [EVENT_TYPE]},
    "UnregisterEventTypes": {"names": [{"type": "user.a.b"}]},
    "ListEventTypes": {"type": "user.*"},
    "DeleteEvent": {"id": "x"},
    "DeleteEvents": {"filter": FILTER},
    "Subscribe": {"filter": FILTER},
    "CreateConsumer": {"consumer": {"name": "valid", "filter": FILTER}},
    "GetConsumer": {"name": "x"},
    "ListConsumers": {},
    "UpdateConsumer": {"consumer": {"name": "x"}},
    "SeekConsumer": {"name": "x", "beginning": {}},
    "DeleteConsumer": {"name": "x"},
    "Consume": {"start": {"name": "x"}},
    "ListParked": {"name": "x"},
    "ReplayParked": {"name": "x", "all": True},
    "PurgeParked": {"name": "x", "all": True},
    "ListEndpoints": {},
    "GetEndpoint": {"kind": "webhook"},
    "UpdateEndpoint": {"endpoint": {"kind": "webhook", "enabled": True}},
    "CreateEndpointConfiguration": {"configuration": WEBHOOK},
    "GetEndpointConfiguration": {"id": "x"},
    "ListEndpointConfigurations": {},
    "UpdateEndpointConfiguration": {"configuration": {**WEBHOOK, "id": "x"}},
    "DeleteEndpointConfiguration": {"id": "x"},
    "PreviewNotification": {"configuration": WEBHOOK, "event": EVENT},
    "CreateSilence": {"silence": SILENCE},
    "GetSilence": {"id": "x"},
    "ListSilences": {},
    "UpdateSilence": {"silence": {**SILENCE, "id": "x"}},
    "DeleteSilence": {"id": "x"},
    "ListSelectorPresets": {},
    "ExplainEvent": {"event": EVENT},
    "TestEndpointConfiguration": {"configuration": WEBHOOK},
    "ListDeliveries": {"status_codes": ["5xx", "404"], "error_classes": ["ERROR_CLASS_TIMEOUT"]},
    "GetDelivery": {"id": "x"},
    "WatchDeliveries": {"status_codes": ["5xx"]},
    "RetryDelivery": {"id": "x"},
    "CancelDelivery": {"id": "x"},
    "RecoverDeliveries": {"configuration_id": "x"},
    "GetDeliveryStatistics": {},
    "ListAlertTypes": {},
    "CreateAlert": {"alert": ALERT},
    "GetAlert": {"id": "x"},
    "FindAlerts": {},
    "UpdateAlert": {"alert": {**ALERT, "id": "x"}},
    "DeleteAlert": {"id": "x"},
    "EnableAlert": {"id": "x"},
    "DisableAlert": {"id": "x"},
    "GetAlertState": {"id": "x"},
    "MuteAll": {"id": "x"},
    "UnmuteAll": {"id": "x"},
    "MuteInstance": {"id": "x", "instance_id": "i"},
    "UnmuteInstance": {"id": "x", "instance_id": "i"},
    "RunAlert": {"id": "x"},
    "PreviewAlert": {"id": "x"},
    "ListExecutions": {"id": "x"},
    "GetAlertInstanceSummary": {"id": "x"},
    "RegisterNavigation": {"consumer": "c", "alert_type_id": "t", "path_template": "/x"},
    "RegisterDefaultNavigation": {"consumer": "c", "path_template": "/x"},
    "DeleteNavigation": {"consumer": "c"},
    "GetAlertNavigation": {"id": "x"},
    "GetInfo": {},
}
Break = Callable[[Any], None]
Reach = Callable[[Any], Any]
STRUCT, VALUE = "google.protobuf.Struct", "google.protobuf.Value"


@dataclass(frozen=True)
class Way:
    """One way to break one bound of a field of a message; `below` is where in the field it is told."""

    bound: str
    how: str
    apply: Break
    below: str = ""


@dataclass(frozen=True)
class Case:
    """One way to break one bound of one method."""

    method: MethodDescriptor
    field: str
    way: Way
    reach: Reach

    @property
    def path(self) -> str:
        return self.field + self.way.below

    def apply(self, request: Message) -> None:
        self.way.apply(self.reach(request))

    def __str__(self) -> str:
        return f"{self.method.name}-{self.field}-{self.way.how}"


def methods() -> list[MethodDescriptor]:
    return [
        method for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
    ]


def request_of(method: MethodDescriptor) -> Message:
    return json_format.ParseDict(VALID[method.name], GetMessageClass(method.input_type)())


def stated(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give every bound that the protos state for a request: the field and the attribute."""
    for oneof in message.oneofs:
        if oneof.GetOptions().Extensions[annotations_pb2.one_required]:
            yield prefix + oneof.name, "one_required"
    for field in message.fields:
        bound = bound_of(field)
        if bound.output_only:
            continue
        for attribute, _ in bound.ListFields():
            if attribute.name != "expected":  # the pattern in words
                yield prefix + field.name, attribute.name
        if (below := own_message(field)) is not None:
            yield from stated(below, f"{prefix}{field.name}{'[0]' if field.is_repeated else ''}.")


def own_message(field: FieldDescriptor) -> Descriptor | None:
    """Give the message type of a field whose own fields have bounds."""
    below = field.message_type
    return below if below is not None and not is_map(field) and not below.full_name.startswith("google.") else None


def all_cases() -> Iterator[Case]:
    for method in methods():
        for field, way, reach in breaks(method.input_type, "", lambda request: request):
            yield Case(method, field, way, reach)


def breaks(message: Descriptor, prefix: str, reach: Reach) -> Iterator[tuple[str, Way, Reach]]:
    """Give every way to break a bound of a message type; `reach` finds the message in a request."""
    for oneof in message.oneofs:
        if oneof.GetOptions().Extensions[annotations_pb2.one_required]:
            yield prefix + oneof.name, Way("one_required", "none", partial(_clear_oneof, name=oneof.name)), reach
    for field in message.fields:
        bound = bound_of(field)
        if bound.output_only:
            continue
        path = prefix + field.name
        for way in field_ways(field, bound):
            yield path, way, reach
        if (below := own_message(field)) is not None:
            inner = f"{path}[0]." if field.is_repeated else f"{path}."
            yield from breaks(below, inner, partial(_reached, reach=reach, field=field))


def _reached(request: Any, reach: Reach, field: FieldDescriptor) -> Any:
    return _value(reach(request), field)


def _value(message: Any, field: FieldDescriptor) -> Any:
    """Give the message in a field, or the first one of a list."""
    value = getattr(message, field.name)
    if field.is_repeated:
        return value[0] if value else value.add()
    value.SetInParent()
    return value


def _clear_oneof(message: Message, name: str) -> None:
    message.ClearField(message.WhichOneof(name) or name)


def field_ways(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Iterator[Way]:
    name = field.name
    if bound.required:
        yield Way("required", "missing", lambda m: m.ClearField(name))
    if is_map(field):
        yield from map_ways(name, bound)
        return
    if field.is_repeated:
        yield Way("max_items", "too many", lambda m: _overfill(m, field, bound.max_items + 1))
    for attribute, how, value in value_breaks(field, bound):
        if field.is_repeated:
            yield Way(attribute, f"entry {how}", partial(_set_entry, name=name, value=value), "[0]")
        else:
            yield Way(attribute, how, partial(_set, name=name, value=value))
    if field.message_type is not None:
        yield from message_ways(field, field.message_type.full_name, bound)


def map_ways(name: str, bound: annotations_pb2.Bound) -> Iterator[Way]:
    long_key, long_value = "k" * (bound.key_max_len + 1), "v" * (bound.value_max_len + 1)
    yield Way("max_items", "too many", partial(_put, name=name, key="k", value="", count=bound.max_items + 1))
    yield Way("key_max_len", "key too long", partial(_put, name=name, key=long_key), f'["{long_key[:64]}"]')
    yield Way("key_max_len", "key empty", partial(_put, name=name, key=""), '[""]')
    yield Way("value_max_len", "value too long", partial(_put, name=name, key="k", value=long_value), '["k"]')
    yield Way("NUL", "NUL in a key", partial(_put, name=name, key="k\0"), '["k\0"]')
    yield Way("NUL", "NUL in a value", partial(_put, name=name, key="k", value="v\0"), '["k"]')


def _put(message: Any, name: str, key: str, value: str = "", count: int = 1) -> None:
    getattr(message, name).update({f"{key}{number or ''}": value for number in range(count)})


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


def value_breaks(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Iterator[tuple[str, str, Any]]:
    if field.type == FieldDescriptor.TYPE_STRING:
        yield "max_len", "too long", "a" * (bound.max_len + 1)
        yield "NUL", "NUL", "a\0"
        if bound.pattern:
            yield "pattern", "pattern", "\u00fc \n"
        if bound.min_len > 1 or field.is_repeated:
            yield "min_len", "too short", "a" * (bound.min_len - 1)
    elif field.type == FieldDescriptor.TYPE_ENUM:
        yield "enum", "unknown", 99
        if field.is_repeated:
            yield "enum", "unspecified", 0
    elif field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_DOUBLE):
        if bound.HasField("min"):
            yield "min", "too small", bound.min - 1
        if bound.HasField("max"):
            yield "max", "too large", bound.max + 1


def message_ways(field: FieldDescriptor, kind: str, bound: annotations_pb2.Bound) -> Iterator[Way]:
    name = field.name
    if kind == "google.protobuf.Timestamp":
        yield Way("time", "before 1970", lambda m: setattr(getattr(m, name), "seconds", -1))
        yield Way("time", "year 10000", lambda m: setattr(getattr(m, name), "seconds", 253_402_300_800))
        yield Way("time", "nanos", lambda m: setattr(getattr(m, name), "nanos", 1_000_000_000))
    elif kind == "google.protobuf.Duration":
        yield Way("min", "too short", lambda m: getattr(m, name).FromMilliseconds(bound.min - 1))
        yield Way("max", "too long", lambda m: getattr(m, name).FromMilliseconds(bound.max + 1))
    elif kind == "google.protobuf.FieldMask":
        yield Way("max_items", "too many", lambda m: getattr(m, name).paths.extend(["a"] * (bound.max_items + 1)))
    elif kind in (STRUCT, VALUE):
        yield from dynamic_ways(name, kind, bound)
    elif bound.max_bytes:
        below = "[0]" if field.is_repeated else ""
        yield Way("max_bytes", "too large", lambda m: _swell(_value(m, field), bound.max_bytes), below)


def dynamic_ways(name: str, kind: str, bound: annotations_pb2.Bound) -> Iterator[Way]:
    """Break dynamic data in a Value: that of the field, or a new one in its Struct."""
    below = ".k" if kind == STRUCT else ""
    used = len(below) // 2  # levels above that Value

    def at(message: Any) -> Any:
        return getattr(message, name).fields["k"] if kind == STRUCT else getattr(message, name)

    def setting(kind: str, value: Any) -> Break:
        return lambda message: _set(at(message), kind, value)

    if bound.max_bytes:
        yield Way("max_bytes", "too large", setting("string_value", "a" * bound.max_bytes))
    deepest = below + "[0]" * (bound.max_depth - used)
    yield Way("max_depth", "too deep", lambda m: _nest(at(m), bound.max_depth - used), deepest)
    for number in ("nan", "inf", "-inf"):
        yield Way("finite", number, setting("number_value", float(number)), below)
    yield Way("NUL", "NUL", setting("string_value", "a\0"), below)


def _nest(value: Any, levels: int) -> None:
    for _ in range(levels):
        value = value.list_value.values.add()
    value.number_value = 1


def _swell(message: Any, size: int) -> None:
    """Make a message larger than `size` bytes."""
    text = next(f for f in message.DESCRIPTOR.fields if f.type == FieldDescriptor.TYPE_STRING and not f.is_repeated)
    setattr(message, text.name, "a" * size)


CASES = list(all_cases())
