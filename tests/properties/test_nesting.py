"""Whatever a request that cannot be decoded is made of, the look for what is nested too deeply ends soon."""

from __future__ import annotations

import time

from hypothesis import example, given
from hypothesis import strategies as st
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.api.bounds import bound_of
from tocsin_server.api.nesting import too_deep

REQUEST = pb.AppendEventsRequest.DESCRIPTOR
LEVELS_MAX = bound_of(pb.Event.DESCRIPTOR.fields_by_name["details"]).max_depth


def nested(levels: int) -> pb.AppendEventsRequest:
    """A batch whose second event has lists within each other."""
    request = pb.AppendEventsRequest(events=[pb.Event(type="a"), pb.Event(type="b")])
    place = request.events[1].details
    for _ in range(levels):
        place = place.list_value.values.add()
    place.bool_value = True
    return request


@given(st.binary(max_size=200))
@example(b"")
def test_anything_is_looked_at_without_a_fault(raw: bytes) -> None:
    """XC5."""
    assert isinstance(too_deep(REQUEST, raw), list)


@given(st.integers(0, 40), st.binary(max_size=20))
def test_what_is_too_deep_is_named_whatever_stands_behind_it(levels: int, rest: bytes) -> None:
    """XC5: what is broken besides is the decoder's to refuse."""
    raw = nested(levels).SerializeToString()
    paths = [violation.path for violation in too_deep(REQUEST, raw)]
    assert paths == (["events[1].details"] if levels > LEVELS_MAX else [])
    assert all(violation.path.startswith("events[") for violation in too_deep(REQUEST, raw + rest))


def test_a_hostile_request_is_not_looked_at_for_long() -> None:
    """Four megabytes of fields that nobody knows."""
    raw = b"\x78\x01" * (2 * 1024 * 1024)
    began = time.process_time()
    assert too_deep(REQUEST, raw) == []
    assert time.process_time() - began < 1
