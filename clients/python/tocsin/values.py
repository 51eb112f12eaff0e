"""Plain Python values and the protobuf types that carry them: JSON-like data and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

# Numbers travel as doubles: a larger integer would come back as another one.
_INT_MAX = 2**53


def to_value(data: object) -> Value:
    """Make a protobuf Value of None, bool, int, float, str, mappings with string keys and sequences.

    Raises TypeError for anything else, ValueError for an integer that a JSON number cannot hold.
    """
    if data is None:
        return Value(null_value=NULL_VALUE)
    if isinstance(data, bool):
        return Value(bool_value=data)
    if isinstance(data, int | float):
        if isinstance(data, int) and abs(data) > _INT_MAX:
            raise ValueError(f"{data} does not fit a JSON number without losing digits; send it as a string")
        return Value(number_value=data)
    if isinstance(data, str):
        return Value(string_value=data)
    if isinstance(data, Mapping):
        return Value(struct_value=to_struct(data))
    if isinstance(data, Sequence) and not isinstance(data, bytes | bytearray):
        return Value(list_value=ListValue(values=[to_value(item) for item in data]))
    raise TypeError(f"{type(data).__name__} is not JSON-like: None, bool, int, float, str, mappings and sequences are")


def to_struct(data: Mapping[str, object]) -> Struct:
    """Make a protobuf Struct; the same errors as `to_value`."""
    for key in data:
        if not isinstance(key, str):
            raise TypeError(f"keys are strings, not {type(key).__name__}")
    return Struct(fields={key: to_value(item) for key, item in data.items()})


def to_python(value: Value | Struct | ListValue) -> Any:
    """Turn dynamic data back into plain Python; whole numbers come back as int. Unset is None.

    The answer is typed as Any, as that of json.loads: what an event holds is known to who reads it.
    """
    if isinstance(value, Struct):
        return {key: to_python(item) for key, item in value.fields.items()}
    if isinstance(value, ListValue):
        return [to_python(item) for item in value.values]
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _INT_MAX else number
        case "string_value":
            return value.string_value
        case "struct_value":
            return to_python(value.struct_value)
        case "list_value":
            return to_python(value.list_value)
        case _:
            return None


def to_timestamp(moment: datetime) -> Timestamp:
    """Make a protobuf Timestamp. Raises ValueError for a datetime without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("a time needs a time zone: datetime.now(UTC), not datetime.now()")
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def to_datetime(stamp: Timestamp) -> datetime:
    """Turn a Timestamp into an aware datetime in UTC; finer digits than microseconds are cut off."""
    return stamp.ToDatetime(tzinfo=UTC)
