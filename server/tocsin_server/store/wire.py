"""The stored wire form of an event: the one module of the store that knows the protobuf encoding.

A stored event is a *frame*: the encoded `tocsin.v1.Event` with the tag and length that make it field
1 of a message. Every answer that carries events has them in field 1, so an answer is made by joining
frames, without decoding or encoding an event again.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from google.protobuf import json_format, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.domain.delivery_ports import Trace
from tocsin_server.domain.encoding import SECOND_US, varint, wire_timestamp
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import OWN_SERVICE, Draft, Event, EventHead, Level, OwnEvent
from tocsin_server.domain.variables import Json

EVENTS_TAG = b"\x0a"  # field 1, length-delimited: `event` or `events` of every answer
POSITION_TAG = b"\x10"  # Event.position: field 2, varint
LEVELS = {int(level): level for level in Level}  # a fifth of the time of asking the enum
CREATED_AT_TAG = b"\x72"  # Event.created_at: field 14, length-delimited


def created_at_field(micros: int) -> bytes:
    """Encode Event.created_at; the same for every event of a transaction."""
    return wire_timestamp(CREATED_AT_TAG, micros)


def frame(body: bytes, position: int, created_at: bytes) -> bytes:
    """Complete an encoded event with its position and its `created_at_field`, and frame it."""
    place = POSITION_TAG + varint(position)
    return b"".join((EVENTS_TAG, varint(len(body) + len(place) + len(created_at)), body, place, created_at))


def checked(position: int, crc: int, body: bytes) -> bytes:
    """Give a stored frame if it is what was stored."""
    if zlib.crc32(body) != crc:
        raise TocsinError(
            Reason.EVENT_CORRUPT,
            f"the stored event at position {position} does not match its checksum",
            metadata={"position": str(position)},
        )
    return body


def trace(framed: bytes) -> Trace:
    """Read from a stored event what its deliveries carry of it: cheaper than all of it."""
    event = pb.GetEventResponse.FromString(framed).event
    return Trace(event.correlation_id, event.source.request_id, event.traceparent)


def decode(framed: bytes) -> Event:
    """Decode a stored event."""
    event = pb.GetEventResponse.FromString(framed).event
    resource, source = event.resource, event.source
    return Event(
        id=event.id,
        position=event.position,
        account=event.account,
        type=event.type,
        subtype=event.subtype,
        level=LEVELS.get(event.level) or Level(event.level),
        message=event.message,
        category=event.category,
        details=plain(event.details) if event.HasField("details") else None,
        resource={"type": resource.type, "id": resource.id, "user_id": resource.user_id},
        source={
            "service": source.service,
            "host": source.host,
            "base_url": source.base_url,
            "request_id": source.request_id,
        },
        labels=dict(event.labels),
        timestamp=micros_of(event.timestamp),
        created_at=micros_of(event.created_at),
        correlation_id=event.correlation_id,
        traceparent=event.traceparent,
    )


def message(framed: bytes) -> str:
    """Read the message of a stored event."""
    return pb.GetEventResponse.FromString(framed).event.message


def details_of(framed: bytes) -> struct_pb2.Value:
    """Read the details of a stored event, to be asked for a few values: a tenth of decoding it all."""
    return pb.GetEventResponse.FromString(framed).event.details


def value_at(details: struct_pb2.Value, path: Sequence[str]) -> Json:
    """Give the value that keys lead to, as plain JSON; None where there is none."""
    value = details
    for key in path:
        fields = value.struct_value.fields
        if key not in fields:
            return None
        value = fields[key]
    return plain(value)


def plain(value: struct_pb2.Value) -> Json:
    """Turn a Value into plain JSON data, whole numbers as ints: 80, not 80.0."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "struct_value":
        return _plain_fields(value.struct_value)
    if kind == "list_value":
        return [plain(below) for below in value.list_value.values]
    return value.bool_value if kind == "bool_value" else None


def _plain_fields(struct: struct_pb2.Struct) -> dict[str, Json]:
    """Do as `plain` does with each field; a call for each text costs as much as the text."""
    found: dict[str, Json] = {}
    for key, value in struct.fields.items():
        found[key] = value.string_value if value.HasField("string_value") else plain(value)
    return found


def micros_of(timestamp: Timestamp) -> int:
    """Give a Timestamp in microseconds; finer digits are cut off."""
    return timestamp.seconds * SECOND_US + timestamp.nanos // 1000


def own_draft(event: OwnEvent, event_id: str, now: int, host: str = "") -> Draft:
    """Make the draft of an event that tocsin itself writes, on a host."""
    message = pb.Event(
        id=event_id,
        account=event.account,
        type=event.type,
        level=pb.Level.ValueType(int(event.level)),
        message=event.message,
        resource=pb.EventResource(type=event.resource_type, id=event.resource_id),
        source=pb.EventSource(service=OWN_SERVICE, host=host),
        labels=event.labels,
        timestamp=Timestamp(seconds=now // SECOND_US, nanos=now % SECOND_US * 1000),
    )
    json_format.ParseDict(dict(event.details), message.details.struct_value)
    head = EventHead(
        account=event.account,
        type=event.type,
        subtype="",
        level=int(event.level),
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        user_id="",
        service=OWN_SERVICE,
        host=host,
        labels=dict(event.labels),
        timestamp=now,
    )
    return Draft(event_id, head, None, message.SerializeToString(deterministic=True))
