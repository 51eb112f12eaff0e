"""The quick look through encoded details finds all that the close one does."""

from __future__ import annotations

import math

from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given
from hypothesis import strategies as st
from tocsin_server.api import bounds
from tocsin_server.api.details_look import CLEAR, LEVELS_MAX, SECRET, SUSPECT, DetailsLook
from tocsin_server.domain.redaction import SecretKeys

KEYS = SecretKeys(["password", "api_key"])
texts = st.text(st.sampled_from("ab\0 \x12\x0a\x09\x11é") | st.characters(codec="utf-8"), max_size=300)
names = st.sampled_from(["password", "DB-Password", "apiKey", "password_length", "n"]) | texts.map(lambda t: t[:200])
scalars = (
    st.none() | st.booleans() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(-5, 5).map(float) | texts
)


def value_of(data: object) -> Value:
    """Encode plain data as a Value; a tuple is a value of no kind."""
    if isinstance(data, dict):
        return Value(struct_value=Struct(fields={key: value_of(below) for key, below in data.items()}))
    if isinstance(data, list):
        return Value(list_value=ListValue(values=[value_of(below) for below in data]))
    if isinstance(data, bool):
        return Value(bool_value=data)
    if isinstance(data, float):
        return Value(number_value=data)
    if isinstance(data, str):
        return Value(string_value=data)
    return Value() if isinstance(data, tuple) else Value(null_value=0)  # type: ignore[arg-type]


values = st.recursive(
    scalars | st.just(()),
    lambda below: st.lists(below, max_size=5) | st.dictionaries(names, below, max_size=5),
    max_leaves=12,
).map(value_of)


def names_secret(value: Value) -> bool:
    fields = value.struct_value.fields
    below = [*fields.values(), *value.list_value.values]
    return any(KEYS.names(key) for key in fields) or any(names_secret(one) for one in below)


@given(values)
def test_nothing_is_missed(value: Value) -> None:
    found = DetailsLook(KEYS).look(value.SerializeToString())
    reports: list[str] = []
    bounds.walk(value, "details", 32, lambda path, what: reports.append(path))
    if reports:
        assert found == SUSPECT
    elif found != SUSPECT:
        assert found == (SECRET if names_secret(value) else CLEAR)


usual = st.recursive(
    st.text("abc", max_size=300) | st.floats(-1e9, 1e9) | st.none() | st.booleans(),
    lambda below: st.lists(below, max_size=9) | st.dictionaries(st.text("abc", max_size=9), below, max_size=9),
)


@given(usual)
def test_usual_details_are_clear(data: object) -> None:
    assert DetailsLook(KEYS).look(value_of(data).SerializeToString()) == CLEAR


def test_edges() -> None:
    look = DetailsLook(KEYS).look
    assert look(b"") == SUSPECT  # no kind
    assert look(value_of({"a": ()}).SerializeToString()) == SUSPECT
    for number in (math.inf, -math.inf, math.nan):
        assert look(value_of([number]).SerializeToString()) == SUSPECT
        assert look(value_of(number).SerializeToString()) == SUSPECT
    assert look(value_of([1.7976931348623157e308, -0.0]).SerializeToString()) == CLEAR
    # Text that looks like an encoded number does not hide what is in it.
    assert look(value_of({"a": "\x12\x09\x11" + "\0" * 8}).SerializeToString()) == SUSPECT
    # A field that this version does not know is not passed over.
    assert look(value_of("a").SerializeToString() + b"\xf8\x01\x00") == SUSPECT


def test_a_key_that_was_seen_is_judged_as_at_first() -> None:
    look = DetailsLook(KEYS).look
    for _ in range(2):
        assert look(value_of({"n": 1.0}).SerializeToString()) == CLEAR
        assert look(value_of([{"apiKey": "x"}]).SerializeToString()) == SECRET
        assert look(value_of({"a\0": "x"}).SerializeToString()) == SUSPECT


def test_depth_is_suspect_before_it_is_refused() -> None:
    data: object = 1.0
    for _ in range(LEVELS_MAX):
        data = [data]
    look = DetailsLook(KEYS).look
    assert look(value_of(data).SerializeToString()) == CLEAR
    assert look(value_of({"a": data}).SerializeToString()) == SUSPECT
