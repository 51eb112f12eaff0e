"""Dynamic data to and from its messages: the same as json_format, but for whole numbers."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from tocsin_server.api.structs import plain_object, struct_of

VALUES: list[dict[str, Any]] = [
    {},
    {"a": 1, "b": 2.5, "c": -0.5, "d": 1e300},
    {"a": None, "b": True, "c": False, "d": "", "e": "é\n"},
    {"a": {}, "b": [], "c": [[], {}, None, [1, {"x": [True]}]], "": {"": 0}},
]


@pytest.mark.parametrize("values", VALUES)
def test_there_and_back(values: dict[str, Any]) -> None:
    struct = struct_of(values)
    assert struct == json_format.ParseDict(values, Struct())
    assert plain_object(Struct.FromString(struct.SerializeToString())) == values


def test_whole_numbers_are_integers() -> None:
    """KM10: 80, not 80.0."""
    value = plain_object(struct_of({"a": 80.0}))["a"]
    assert (value, type(value)) == (80, int)
