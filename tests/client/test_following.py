"""A subscription hands out every event once and in order, wherever its connections break."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tocsin.errors import (
    InternalError,
    LogChanged,
    PermissionDenied,
    PositionAhead,
    ServerDraining,
    SlowConsumer,
    TocsinError,
    TooManyStreams,
    Unavailable,
)
from tocsin.following import After, CaughtUp, Item, Progress, Start, subscribe_request
from tocsin.retries import Backoff
from tocsin.v1.event_log_pb2 import Event, SubscribeRequest, SubscribeResponse

from tests.client.scripted import LOG_ID, batch, caught_up, checkpoint, started


def following(start: Start = "beginning", once: bool = False) -> Progress:
    return Progress(subscribe_request(None, start, 0, None, once), Backoff(first_s=1.0, most_s=4.0))


def drain(progress: Progress) -> list[Item]:
    items = []
    while (item := progress.next()) is not None:
        items.append(item)
    return items


def positions(items: list[Item]) -> list[int]:
    return [item.position for item in items if isinstance(item, Event)]


def test_requests_of_each_start() -> None:
    assert following("new").request().WhichOneof("start") is None
    assert following("beginning").request().WhichOneof("start") == "beginning"
    after = following(After(7, LOG_ID)).request().after
    assert (after.position, after.log_id) == (7, LOG_ID)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert following(noon).request().start_time.seconds == int(noon.timestamp())
    with pytest.raises(ValueError, match="start is"):
        following("yesterday")


def test_options_are_kept_over_connections() -> None:
    request = subscribe_request(None, "new", 10, 2.5, True)
    progress = Progress(request, Backoff())
    progress.take(started(5))
    progress.next()
    again = progress.request()
    assert (again.batch_max, again.stop_when_caught_up) == (10, True)
    assert again.heartbeat_interval.ToMilliseconds() == 2500
    assert again.after.position == 5


def test_only_new_events_resume_where_the_server_began() -> None:
    progress = following("new")
    progress.take(started(41))
    assert drain(progress) == []
    assert (progress.request().after.position, progress.request().after.log_id) == (41, LOG_ID)


def test_the_position_follows_what_is_handed_out() -> None:
    progress = following()
    progress.take(started(0))
    progress.take(batch(1, 2, through=9))
    assert (progress.next(), progress.position) == (Event(id="e1", position=1), 1)
    assert (progress.next(), progress.position) == (Event(id="e2", position=2), 2)
    assert (progress.next(), progress.position) == (None, 9)
    progress.take(checkpoint(20))
    assert (progress.next(), progress.position) == (None, 20)
    progress.take(caught_up(21))
    assert (progress.next(), progress.position) == (CaughtUp(21), 21)


def test_what_came_before_does_not_come_again() -> None:
    progress = following(After(3))
    progress.take(batch(2, 3, 4))
    progress.take(batch(4, 5))
    assert positions(drain(progress)) == [4, 5]


def test_unknown_messages_are_passed_over() -> None:
    progress = following()
    newer = SubscribeResponse.FromString(b"\xfa\x01\x02\x08\x07")  # field 31, a kind of a later version
    progress.take(newer)
    assert drain(progress) == []


def test_once_ends_with_the_first_catching_up() -> None:
    progress = following(once=True)
    progress.take(started(0))
    progress.take(caught_up(0))
    assert not progress.done
    drain(progress)
    assert progress.done


def failure(kind: type[TocsinError], **details: Any) -> TocsinError:
    return kind("x", code=kind.codes[0] if kind.codes else kind.__mro__[1].codes[0], **details)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error",
    [
        None,
        failure(Unavailable),
        failure(ServerDraining, reason="SERVER_DRAINING", metadata={"position": "3"}),
        failure(SlowConsumer, reason="SLOW_CONSUMER"),
        failure(InternalError),
        TocsinError("Stream removed", code=grpc.StatusCode.UNKNOWN),
    ],
)
def test_breaks_that_are_resumed(error: TocsinError | None) -> None:
    progress = following()
    assert [progress.broken(error, 1.0) for _ in range(3)] == [1.0, 2.0, 4.0]
    progress.take(started(0))
    assert progress.broken(error, 1.0) == 1.0


def test_a_wait_that_was_asked_for_is_kept() -> None:
    assert following().broken(failure(TooManyStreams, reason="TOO_MANY_STREAMS", retry_after_s=9.0), 0.0) == 9.0


@pytest.mark.parametrize(
    "error",
    [
        failure(LogChanged, reason="LOG_CHANGED"),
        failure(PositionAhead, reason="POSITION_AHEAD"),
        failure(PermissionDenied, reason="PERMISSION_DENIED"),
        failure(InternalError, reason="INTERNAL"),
    ],
)
def test_answers_that_a_new_connection_cannot_mend(error: TocsinError) -> None:
    with pytest.raises(type(error)):
        following().broken(error, 0.0)


def test_an_endless_transport_fault_is_raised_in_the_end() -> None:
    progress = following()
    error = TocsinError("Stream removed", code=grpc.StatusCode.UNKNOWN)
    for _ in range(5):
        progress.broken(error, 0.0)
    with pytest.raises(TocsinError, match="Stream removed"):
        progress.broken(error, 0.0)


def serve(log: list[int], head: int, request: SubscribeRequest, batch_max: int) -> list[SubscribeResponse]:
    """Answer what a right server sends: the events after the position, then that all is sent."""
    after = request.after.position if request.HasField("after") else 0
    matching = [position for position in log if position > after]
    steps = [started(after)]
    for first in range(0, len(matching), batch_max):
        steps.append(batch(*matching[first : first + batch_max]))
        steps.append(checkpoint(matching[first : first + batch_max][-1]))
    return [*steps, caught_up(head)]


@settings(deadline=None)  # the machine may be busy
@given(
    log=st.sets(st.integers(1, 60)).map(sorted),
    batch_max=st.integers(1, 7),
    cuts=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=12),
)
def test_no_gap_and_no_duplicate_wherever_it_breaks(
    log: list[int], batch_max: int, cuts: list[tuple[int, bool]]
) -> None:
    progress, seen = following(once=True), list[Item]()
    for messages, is_error in [*cuts, (1000, False)]:
        for response in serve(log, 60, progress.request(), batch_max)[:messages]:
            progress.take(response)
            seen += drain(progress)
        if not progress.done:
            progress.broken(failure(Unavailable) if is_error else None, 0.5)
    assert positions(seen) == log
    assert progress.position == 60
