"""Plain values survive the way through protobuf."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tocsin.values import to_datetime, to_python, to_struct, to_timestamp, to_value

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
DATA = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@settings(deadline=None)  # the machine may be busy
@given(DATA)
def test_data_comes_back(data: Any) -> None:
    assert to_python(to_value(data)) == data


def test_whole_numbers_come_back_as_integers() -> None:
    back = to_python(to_struct({"port": 80, "share": 0.5}))
    assert (repr(back["port"]), repr(back["share"])) == ("80", "0.5")


def test_unset_is_none() -> None:
    assert to_python(type(to_value(1))()) is None


@pytest.mark.parametrize("data", [2**53 + 1, -(2**60)])
def test_an_integer_that_would_lose_digits_is_refused(data: int) -> None:
    with pytest.raises(ValueError, match="digits"):
        to_value({"deep": [data]})


@pytest.mark.parametrize("data", [b"bytes", {1: "one"}, {"when": datetime.now(UTC)}, {"a", "b"}])
def test_what_is_not_json_is_refused(data: Any) -> None:
    with pytest.raises(TypeError):
        to_value(data)


def test_times_keep_their_moment() -> None:
    moment = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2)))
    back = to_datetime(to_timestamp(moment))
    assert back == moment
    assert back.tzinfo is UTC


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        to_timestamp(datetime(2026, 3, 1))
