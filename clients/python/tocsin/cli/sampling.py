"""Sample events, made of what the catalogue knows about their types. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tocsin.v1.event_log_pb2 import LEVEL_INFO, Event, EventType
from tocsin.values import to_python, to_value

LABEL = "sample"
"""Every sample has this label, so that it can be found and deleted."""
SERVICE = "sample"
"""Where samples come from, unless somebody says otherwise."""

_DEPTH_MAX = 8
_RESOURCES = {
    "image_tag": "docker.io/library/nginx:latest",
    "image_digest": "sha256:89020cd33be2767f3f894484b8dd77bc2e5a1ccc864350b92c53262213257dfc",
    "image_reference": "docker.io/library/alpine:3.4",
    "repository": "docker.io/library/nginx",
    "feeds": "vulnerabilities",
    "feed": "vulnerabilities",
    "feed_group": "debian:12",
}
_VALUES: Mapping[str, Any] = {"string": "sample", "integer": 1, "number": 1.5, "boolean": True, "null": None}


def sample(entry: EventType, service: str = SERVICE) -> Event:
    """Answer an event as the type has them: usual level and resource, example details or some that meet the schema."""
    event = Event(
        type=entry.type,
        subtype=entry.subtype,
        level=entry.level or LEVEL_INFO,
        message=entry.description or f"A sample of {entry.type}.",
        labels={LABEL: "true"},
    )
    event.source.service = service
    if entry.resource_type:
        event.resource.type = entry.resource_type
        event.resource.id = _RESOURCES.get(entry.resource_type, "sample")
        event.resource.user_id = "sample"
    if entry.HasField("example"):
        event.details.CopyFrom(entry.example)
    elif entry.HasField("payload_schema"):
        event.details.CopyFrom(to_value(instance(to_python(entry.payload_schema))))
    return event


def instance(schema: Any, depth: int = 0) -> Any:
    """Answer a value that meets a JSON Schema, as far as one can be told from what it says itself."""
    if not isinstance(schema, Mapping) or depth > _DEPTH_MAX:
        return "sample"
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum"):
        if schema.get(name):
            return schema[name][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return instance(schema[name][0], depth + 1)
    kind = schema.get("type", "object" if "properties" in schema or "required" in schema else "string")
    return _of_kind(kind[0] if isinstance(kind, list) else kind, schema, depth)


def _of_kind(kind: str, schema: Mapping[str, Any], depth: int) -> Any:
    if kind == "object":
        properties = schema.get("properties", {})
        names = [*properties, *(name for name in schema.get("required", ()) if name not in properties)]
        return {name: instance(properties.get(name), depth + 1) for name in names}
    if kind == "array":
        return [instance(schema.get("items"), depth + 1)] * max(1, int(schema.get("minItems", 1)))
    if kind in ("integer", "number") and "minimum" in schema:
        return schema["minimum"]
    if kind == "string":
        return "sample".ljust(int(schema.get("minLength", 0)), "x")
    return _VALUES.get(kind, "sample")
