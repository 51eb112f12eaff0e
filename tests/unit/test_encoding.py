"""What the hot paths encode by hand is what the library encodes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.api import bounds, quick_bounds
from tocsin_server.api.event_drafts import Drafts
from tocsin_server.api.event_redaction import EventRedaction
from tocsin_server.domain.encoding import varint, varint_at, wire_text, wire_timestamp
from tocsin_server.domain.errors import TocsinError
from tocsin_server.domain.redaction import SecretKeys
from tocsin_server.runtime import system_runtime
from tocsin_server.store import wire

from tests.support.bounds import CASES, Case, methods, request_of

MICROS = st.integers(0, 253_402_300_799_999_999)


@given(st.integers(0, 2**63 - 1), MICROS, st.text(max_size=300))
def test_a_frame_is_the_encoded_event(position: int, created_at: int, message: str) -> None:
    event = pb.Event(type="a", level=pb.LEVEL_INFO, message=message)
    framed = wire.frame(event.SerializeToString(), position, wire.created_at_field(created_at))
    stored = pb.ListEventsResponse.FromString(framed * 2).events
    assert [e.message for e in stored] == [message] * 2
    assert stored[0].position == position
    assert wire.decode(framed).created_at == created_at


@given(MICROS, st.text(max_size=300))
def test_fields_are_encoded_as_the_library_does(micros: int, text: str) -> None:
    timestamp = Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)
    event = pb.Event.FromString(wire_timestamp(b"\x6a", micros) + wire_text(b"\x1a", text))
    assert (event.timestamp, event.account) == (timestamp, text)
    assert varint(300) == b"\xac\x02"


def closely(case: Case) -> bool:
    """Tell whether the close look finds the broken request within its bounds."""
    request = request_of(case.method)
    case.apply(request)
    try:
        bounds.check(request)
    except TocsinError:
        return False
    return True


def quickly(request: Any) -> bool:
    """Tell whether the quick look finds a request within its bounds; its events are looked at by drafts."""
    if not quick_bounds.within(request.DESCRIPTOR)(request, request.ByteSize()):
        return False
    if request.DESCRIPTOR.full_name not in quick_bounds.APPENDS:
        return True
    events = [request.event] if hasattr(request, "event") else request.events
    drafts = Drafts(system_runtime(), b"k" * 32, EventRedaction(SecretKeys(())))
    return all(drafts.is_usual(event) for event in events)


def test_the_quick_look_says_yes_only_where_the_close_look_does() -> None:
    for case in CASES:
        request = request_of(case.method)
        case.apply(request)
        quick = quickly(request)
        assert not quick or closely(case), str(case)


def test_the_quick_look_says_yes_to_usual_requests() -> None:
    for method in methods():
        request = request_of(method)
        assert quickly(request), method.name


@given(st.integers(0, 2**63 - 1), st.binary(max_size=4))
def test_a_number_is_read_as_it_was_written(number: int, rest: bytes) -> None:
    written = b"\0" + varint(number)
    assert varint_at(written + rest, 1) == (number, len(written))


def test_a_number_without_an_end_is_none() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        varint_at(b"\xff" * 1000, 0)
    with pytest.raises(IndexError):
        varint_at(b"\xff", 0)
