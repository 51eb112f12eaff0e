"""Dynamic data between `google.protobuf.Struct` and plain JSON, several times faster than json_format.

Whole numbers come out as integers: 80, not 80.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value


def plain_object(struct: Struct) -> dict[str, Any]:
    """Read an object."""
    return {key: plain_value(value) for key, value in struct.fields.items()}


def plain_value(value: Value) -> Any:
    """Read any dynamic data; what is not set is None."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "struct_value":
        return plain_object(value.struct_value)
    if kind == "list_value":
        return [plain_value(entry) for entry in value.list_value.values]
    return value.bool_value if kind == "bool_value" else None


def struct_of(values: Mapping[str, Any]) -> Struct:
    """Write an object."""
    struct = Struct()
    _fill_object(struct, values)
    return struct


def value_of(data: Any) -> Value:
    """Write any dynamic data."""
    value = Value()
    _fill(value, data)
    return value


def _fill_object(struct: Struct, values: Mapping[str, Any]) -> None:
    fields = struct.fields
    for key, value in values.items():
        _fill(fields[key], value)


def _fill(target: Value, value: Any) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif value is None:
        target.null_value = 0  # type: ignore[assignment]
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        _fill_object(target.struct_value, value)
    else:
        _fill_list(target.list_value, value)


def _fill_list(target: ListValue, values: Sequence[Any]) -> None:
    target.SetInParent()
    entries = target.values
    for value in values:
        _fill(entries.add(), value)
