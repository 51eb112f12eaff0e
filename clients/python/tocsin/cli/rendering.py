"""Events as text and as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from tocsin.cli.escaping import escaped, json_escaped
from tocsin.v1.event_log_pb2 import LEVEL_ERROR, Event
from tocsin.values import to_datetime, to_python

_PLAIN = ("id", "position", "account", "type", "subtype", "message", "category", "correlation_id", "traceparent")
_PARTS = {"resource": ("type", "id", "user_id"), "source": ("service", "host", "base_url", "request_id")}


def time_text(stamp: Timestamp) -> str:
    """Answer a time as ISO 8601 in UTC with microseconds and Z."""
    return to_datetime(stamp).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def short_time_text(stamp: Timestamp) -> str:
    """Answer a time to the second, for where more does not fit."""
    return to_datetime(stamp).strftime("%Y-%m-%dT%H:%M:%SZ")


def level_text(event: Event) -> str:
    """Answer the level as a bare word in lower case."""
    return "error" if event.level == LEVEL_ERROR else "info"


def record(event: Event) -> str:
    """Answer the whole event with the labels of the source's `event get`, its details as YAML."""
    lines = [f"UUID: {escaped(event.id)}", "Event:"]
    fields = [("Event Type", event.type), ("Subtype", event.subtype), ("Level", level_text(event))]
    fields.append(("Message", event.message))
    lines += _labelled("  ", fields, {"Subtype"})
    resource, source = event.resource, event.source
    lines.append("  Resource:")
    lines += _labelled(
        "    ", [("Resource ID", resource.id), ("Resource Type", resource.type), ("User Id", resource.user_id)]
    )
    lines.append("  Source:")
    found = [("Source Service", source.service), ("Base Url", source.base_url), ("Source Host", source.host)]
    lines += _labelled("    ", [*found, ("Request Id", source.request_id)])
    lines += _labelled("  ", [("Timestamp", time_text(event.timestamp)), ("Category", event.category)])
    lines += _details(to_python(event.details) if event.HasField("details") else "")
    if event.labels:
        lines += ["  Labels:", *_labelled("    ", [(escaped(k), v) for k, v in sorted(event.labels.items())])]
    more = [("Correlation Id", event.correlation_id), ("Traceparent", event.traceparent)]
    lines += _labelled("  ", more, {name for name, _ in more})
    lines += _labelled("", [("Created At", time_text(event.created_at)), ("Position", str(event.position))])
    lines += _labelled("", [("Account", event.account)])
    return "\n".join(lines)


def _labelled(indent: str, fields: Iterable[tuple[str, str]], optional: Iterable[str] = ()) -> list[str]:
    shown = [(name, value) for name, value in fields if value or name not in set(optional)]
    return [f"{indent}{name}: {escaped(value)}".rstrip() for name, value in shown]


def _details(data: Any) -> list[str]:
    if isinstance(data, str) and "\n" not in data:
        return _labelled("  ", [("Details", data)])
    if not data or not isinstance(data, dict | list | str):
        return [f"  Details: {json.dumps(data)}"]
    text = yaml_text({"Details": data} if isinstance(data, str) else data)
    if isinstance(data, str):
        return ["  " + line for line in text.splitlines()]
    return ["  Details:", *("    " + line for line in text.splitlines())]


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Lines that end in blanks cannot be written as a block.
    block = "\n" in text and not any(line.endswith(" ") for line in text.split("\n"))
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Dumper.add_representer(str, _text)


def yaml_text(data: Any) -> str:
    """Answer JSON-like data as YAML: texts of several lines as blocks, nulls as null, 80 as 80."""
    return yaml.dump(_safe(data), Dumper=_Dumper, allow_unicode=True, sort_keys=True, width=100)


def _safe(data: Any) -> Any:
    if isinstance(data, str):
        return escaped(data, lines=True)
    if isinstance(data, dict):
        return {escaped(key): _safe(item) for key, item in data.items()}
    if isinstance(data, list):
        return [_safe(item) for item in data]
    return data


def resource(event: Event) -> dict[str, Any]:
    """Answer an event as plain data: bare words for the level, numbers as numbers, nothing that is empty."""
    found: dict[str, Any] = {name: getattr(event, name) for name in _PLAIN if getattr(event, name)}
    found["level"] = level_text(event)
    for part, names in _PARTS.items():
        values = {name: getattr(getattr(event, part), name) for name in names}
        if any(values.values()):
            found[part] = {name: value for name, value in values.items() if value}
    if event.labels:
        found["labels"] = dict(sorted(event.labels.items()))
    if event.HasField("details"):
        found["details"] = _sorted(to_python(event.details))
    for name in ("timestamp", "created_at"):
        if event.HasField(name):
            found[name] = time_text(getattr(event, name))
    return found


def _sorted(data: Any) -> Any:
    """Settle the order of keys, which a protobuf map does not have."""
    if isinstance(data, dict):
        return {key: _sorted(data[key]) for key in sorted(data)}
    return [_sorted(item) for item in data] if isinstance(data, list) else data


def json_text(data: Any, *, indent: int | None = 2) -> str:
    """Answer data as JSON that a terminal shows safely."""
    return json_escaped(json.dumps(data, ensure_ascii=False, indent=indent))


def plain(message: Message) -> dict[str, Any]:
    """Answer a message as plain data: bare words for enums, numbers as numbers, nothing that is unset."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            kind = field.message_type.fields_by_name["value"]
            found[field.name] = {key: _plain(kind, value[key]) for key in sorted(value)}
        elif field.is_repeated:
            found[field.name] = [_plain(field, item) for item in value]
        else:
            found[field.name] = _plain(field, value)
    return found


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        unspecified = field.enum_type.values_by_number[0].name
        prefix = unspecified.removesuffix("UNSPECIFIED")
        return field.enum_type.values_by_number[value].name.removeprefix(prefix).lower()
    if isinstance(value, Timestamp):
        return time_text(value)
    if isinstance(value, Duration):
        return f"{value.ToMilliseconds() / 1000:g}s"
    if isinstance(value, Struct | Value):
        return _sorted(to_python(value))
    return plain(value) if isinstance(value, Message) else value


def raw_text(response: Message, *, indent: int | None = 2) -> str:
    """Answer a response as the protobuf JSON of the contract, with its field names."""
    return json_text(MessageToDict(response, preserving_proto_field_name=True), indent=indent)
