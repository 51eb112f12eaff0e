"""Deliveries between the wire and the domain."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import notifications_pb2 as pb

from tocsin_server.api.timestamps import timestamp
from tocsin_server.domain.deliveries import DeliveryQuery
from tocsin_server.domain.notifications import Attempt, Delivery, RecipientVerdict


def query_of(account: str, sent: pb.ListDeliveriesRequest | pb.WatchDeliveriesRequest) -> DeliveryQuery:
    """Read which deliveries are meant."""
    since, until = (sent.since, sent.until) if isinstance(sent, pb.ListDeliveriesRequest) else (None, None)
    return DeliveryQuery(
        account=account,
        states=tuple(pb.DeliveryState.Name(state).removeprefix("DELIVERY_STATE_") for state in sent.states),
        configuration_id=sent.configuration_id,
        event_id=sent.event_id,
        alert_id=sent.alert_id,
        error_classes=tuple(pb.ErrorClass.Name(name).removeprefix("ERROR_CLASS_") for name in sent.error_classes),
        status_codes=tuple(sent.status_codes),
        since=micros(since) if since else 0,
        until=micros(until) if until else 0,
    )


def micros(time: Timestamp) -> int:
    """Give a time in microseconds; 0 when it is unset."""
    return time.seconds * 1_000_000 + time.nanos // 1000


def _error_class(name: str) -> pb.ErrorClass.ValueType:
    return pb.ErrorClass.Value(f"ERROR_CLASS_{name or 'UNSPECIFIED'}")


def delivery_message(row: Delivery) -> pb.Delivery:
    """Give a delivery without its attempts."""
    message = pb.Delivery(
        id=row.id,
        account=row.account,
        configuration_id=row.configuration_id,
        kind=row.kind,
        state=pb.DeliveryState.Value(f"DELIVERY_STATE_{row.state}"),
        reason=row.reason,
        recipients=recipient_messages(row.recipients),
        correlation_id=row.correlation_id,
        request_id=row.request_id,
        traceparent=row.traceparent,
        create_time=timestamp(row.created_at),
        attempt_count=row.attempt,
        digest_id=row.digest_id,
        silence_id=str(row.subject.get("silence_id", "")),
        error_class=_error_class(row.error_class),
        status_code=row.status_code,
    )
    if row.ended_at:
        message.end_time.CopyFrom(timestamp(row.ended_at))
    elif row.state in ("PENDING", "RETRYING"):
        message.next_attempt_at.CopyFrom(timestamp(row.due_at))
    subject = row.subject
    if row.event_position:
        message.event.CopyFrom(pb.Delivery.EventSubject(id=row.event_id, position=row.event_position))
    elif row.alert_id:
        message.alert.CopyFrom(
            pb.Delivery.AlertSubject(
                alert_id=row.alert_id,
                instance_id=str(subject.get("instance_id", "")),
                action_group=str(subject.get("action_group", "")),
                run_number=int(subject.get("run_number", 0)),
            )
        )
    elif "digest" in subject:
        message.digest.CopyFrom(pb.Delivery.DigestSubject(**subject["digest"]))
    else:
        message.test.SetInParent()
    return message


def attempt_message(attempt: Attempt) -> pb.Attempt:
    """Give one attempt."""
    message = pb.Attempt(
        number=attempt.number,
        started_at=timestamp(attempt.started_at),
        verdict=pb.Verdict.Value(f"VERDICT_{attempt.verdict or 'UNSPECIFIED'}"),
        status_code=attempt.status_code,
        response_excerpt=attempt.response_excerpt,
        error=attempt.error,
        error_class=_error_class(attempt.error_class),
    )
    if attempt.duration_us is not None:
        seconds, rest = divmod(attempt.duration_us, 1_000_000)
        message.duration.CopyFrom(Duration(seconds=seconds, nanos=rest * 1000))
    if attempt.next_attempt_at:
        message.next_attempt_at.CopyFrom(timestamp(attempt.next_attempt_at))
    return message


def recipient_messages(verdicts: Sequence[RecipientVerdict]) -> list[pb.RecipientVerdict]:
    """Give the verdict of each receiver."""
    return [
        pb.RecipientVerdict(
            recipient=v.recipient,
            verdict=pb.Verdict.Value(f"VERDICT_{v.verdict}"),
            status_code=v.status_code,
            response_excerpt=v.response_excerpt,
        )
        for v in verdicts
    ]
