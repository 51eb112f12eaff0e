"""Only what is safe is repeated, and never past the deadline."""

from __future__ import annotations

import math

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from tocsin.errors import Aborted, DeadlineExceeded, ResourceExhausted, TocsinError, Unavailable
from tocsin.retries import Attempts, Backoff, is_repeatable
from tocsin.v1 import alerting_pb2 as alerting
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1 import notifications_pb2 as notifications

DOWN = Unavailable("down", code=grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(
    ("method", "request_", "repeatable"),
    [
        ("GetEvent", pb.GetEventRequest(id="a"), True),
        ("ListEvents", pb.ListEventsRequest(), True),
        ("FindAlerts", alerting.FindAlertsRequest(), True),
        ("BatchGetEvents", pb.BatchGetEventsRequest(ids=["x"]), True),
        ("SummarizeEvents", pb.SummarizeEventsRequest(), True),
        ("RegisterEventTypes", pb.RegisterEventTypesRequest(), True),
        ("UnregisterEventTypes", pb.UnregisterEventTypesRequest(), False),
        ("AppendEvent", pb.AppendEventRequest(event=pb.Event(type="a")), False),
        ("AppendEvent", pb.AppendEventRequest(event=pb.Event(type="a", id="x")), True),
        ("AppendEvent", pb.AppendEventRequest(event=pb.Event(type="a"), request_id="r"), True),
        ("AppendEvents", pb.AppendEventsRequest(events=[pb.Event(id="x"), pb.Event()]), False),
        ("AppendEvents", pb.AppendEventsRequest(events=[pb.Event(id="x")]), True),
        ("AppendEvents", pb.AppendEventsRequest(), False),
        ("DeleteEvent", pb.DeleteEventRequest(id="x"), False),
        ("UpdateAlert", alerting.UpdateAlertRequest(), False),
        ("CreateAlert", alerting.CreateAlertRequest(), False),
        ("CreateAlert", alerting.CreateAlertRequest(request_id="r"), True),
        ("TestEndpointConfiguration", notifications.TestEndpointConfigurationRequest(id="x"), False),
        ("ExplainEvent", notifications.ExplainEventRequest(event_id="x"), True),
        ("PreviewNotification", notifications.PreviewNotificationRequest(id="x", event_id="y"), True),
        ("CreateSilence", notifications.CreateSilenceRequest(request_id="r"), True),
        ("RetryDelivery", notifications.RetryDeliveryRequest(id="x"), False),
        ("RecoverDeliveries", notifications.RecoverDeliveriesRequest(configuration_id="x"), False),
    ],
)
def test_what_may_be_sent_twice(method: str, request_: Message, repeatable: bool) -> None:
    assert is_repeatable(f"/tocsin.v1.Any/{method}", request_) is repeatable


def attempts(deadline: float = 10.0, repeatable: bool = True) -> Attempts:
    return Attempts(deadline, repeatable, Backoff(first_s=1.0, most_s=4.0))


def test_waits_double_up_to_the_most() -> None:
    trying = attempts(deadline=math.inf)
    assert [trying.wait_s(DOWN, 0.0, chance=1.0) for _ in range(4)] == [1.0, 2.0, 4.0, 4.0]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded(failures: int, chance: float) -> None:
    assert 0.5 <= Backoff(first_s=1.0, most_s=4.0).wait_s(failures, chance) <= 4.0


def test_the_deadline_ends_the_tries_with_the_last_error() -> None:
    trying = attempts(deadline=10.0)
    assert trying.wait_s(DOWN, now=8.0, chance=0.0) == 0.5
    with pytest.raises(Unavailable):
        trying.wait_s(DOWN, now=9.5, chance=0.0)


def test_a_try_gets_what_is_left() -> None:
    assert attempts(deadline=10.0).timeout_s(now=4.0) == 6.0
    assert attempts(deadline=10.0).timeout_s(now=11.0) == 0.0
    assert attempts(deadline=math.inf).timeout_s(now=4.0) is None


def test_what_is_not_repeatable_fails_at_once() -> None:
    with pytest.raises(Unavailable):
        attempts(repeatable=False).wait_s(DOWN, 0.0, 0.0)


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (ResourceExhausted("full", code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=3.0), 3.0),
        (Aborted("again", code=grpc.StatusCode.ABORTED, retry_after_s=0.0), 1.0),
        (Unavailable("soon", code=grpc.StatusCode.UNAVAILABLE, retry_after_s=2.5), 2.5),
        (ResourceExhausted("full", code=grpc.StatusCode.RESOURCE_EXHAUSTED), None),
        (Aborted("no", code=grpc.StatusCode.ABORTED), None),
        (DeadlineExceeded("late", code=grpc.StatusCode.DEADLINE_EXCEEDED), None),
        (TocsinError("what", code=grpc.StatusCode.UNKNOWN), None),
    ],
)
def test_which_errors_may_pass(error: TocsinError, wait_s: float | None) -> None:
    if wait_s is None:
        with pytest.raises(type(error)):
            attempts().wait_s(error, 0.0, 1.0)
    else:
        assert attempts().wait_s(error, 0.0, 1.0) == wait_s
