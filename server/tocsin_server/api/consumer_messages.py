"""Durable consumers between the wire and the domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration
from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.event_filters import event_filter, filter_message, refuse_times
from tocsin_server.api.timestamps import timestamp
from tocsin_server.domain.consumers import (
    IN_FLIGHT_DEFAULT,
    LEASE_DEFAULT_US,
    RETRIES_DEFAULT,
    RETRY_DELAY_DEFAULT_US,
    Choice,
    Consumer,
    ConsumerSettings,
    ConsumerStatus,
    Handed,
    Parked,
)
from tocsin_server.domain.encoding import varint, wire_bytes
from tocsin_server.domain.errors import invalid_field

BATCH_TAG = b"\x12"  # ConsumeResponse.batch: field 2, length-delimited
DELIVERY_TAG = b"\x0a"  # ConsumeResponse.Batch.deliveries: field 1, length-delimited
LEASE_ID_TAG = b"\x10"  # ConsumeResponse.Delivery.lease_id: field 2, varint
ATTEMPT_TAG = b"\x18"  # ConsumeResponse.Delivery.attempt: field 3, varint
CHANGEABLE = ("lease", "max_retries", "max_in_flight", "retry_delay")


def draft(sent: pb.Consumer, caller: Caller) -> Consumer:
    """Read a consumer that is to be created."""
    refuse_times(sent.filter, "consumer.filter")
    wanted = event_filter(sent.filter, caller, "consumer.filter")
    return Consumer(caller.account, sent.name, wanted, _settings(ConsumerSettings(), sent, CHANGEABLE))


def changed(old: Consumer, sent: pb.Consumer, mask: Sequence[str]) -> Consumer:
    """Apply the fields that a mask names, or without one those that are set."""
    for index, path in enumerate(mask):
        if path == "filter":
            raise invalid_field(f"update_mask.paths[{index}]", "the filter is fixed: create another consumer")
        if path not in CHANGEABLE:
            raise invalid_field(f"update_mask.paths[{index}]", f"{path[:64]!r} is not one of {', '.join(CHANGEABLE)}")
    if not mask and sent.HasField("filter") and filter_message(old.filter) != sent.filter:
        raise invalid_field("consumer.filter", "is fixed: create another consumer")
    fields = mask or [field.name for field, _ in sent.ListFields() if field.name in CHANGEABLE]
    return replace(old, settings=_settings(old.settings, sent, fields))


def _settings(old: ConsumerSettings, sent: pb.Consumer, fields: Sequence[str]) -> ConsumerSettings:
    new = old
    if "lease" in fields:
        new = replace(new, lease_us=_micros(sent.lease) if sent.HasField("lease") else LEASE_DEFAULT_US)
    if "max_retries" in fields:
        new = replace(new, max_retries=sent.max_retries if sent.HasField("max_retries") else RETRIES_DEFAULT)
    if "max_in_flight" in fields:
        new = replace(new, max_in_flight=sent.max_in_flight or IN_FLIGHT_DEFAULT)
    if "retry_delay" in fields:
        delay = _micros(sent.retry_delay) if sent.HasField("retry_delay") else RETRY_DELAY_DEFAULT_US
        new = replace(new, retry_delay_us=delay)
    return new


def _micros(duration: Duration) -> int:
    return duration.seconds * 1_000_000 + duration.nanos // 1000


def _duration(micros: int) -> Duration:
    seconds, rest = divmod(micros, 1_000_000)
    return Duration(seconds=seconds, nanos=rest * 1000)


def consumer(found: Consumer) -> pb.Consumer:
    """Give a consumer as a client reads it."""
    settings = found.settings
    return pb.Consumer(
        name=found.name,
        account=found.account,
        filter=filter_message(found.filter),
        lease=_duration(settings.lease_us),
        max_retries=settings.max_retries,
        max_in_flight=settings.max_in_flight,
        retry_delay=_duration(settings.retry_delay_us),
        create_time=timestamp(found.created_at),
        update_time=timestamp(found.updated_at),
    )


def status(found: ConsumerStatus) -> pb.ConsumerStatus:
    """Give how far a consumer is."""
    standing, lag = found.standing, found.lag
    return pb.ConsumerStatus(
        floor=standing.floor,
        lag=lag.count,
        lag_capped=lag.capped,
        oldest_time=timestamp(lag.oldest_at) if lag.count else None,
        in_flight=standing.in_flight,
        waiting=standing.waiting,
        parked=standing.parked,
        streams=found.streams,
        stall=pb.ConsumerStall.ValueType(int(standing.stall)),
    )


def parked(found: Parked) -> pb.ParkedEvent:
    """Give a parked event; the stored frame is the field `event` of another message."""
    parking = found.parking
    return pb.ParkedEvent(
        position=parking.position,
        event_id=found.event_id,
        cause=pb.ParkCause.Value(f"PARK_CAUSE_{parking.cause}"),
        reason=parking.reason,
        parked_by=parking.parked_by,
        park_time=timestamp(found.parked_at),
        attempts=parking.attempts,
        event=pb.GetEventResponse.FromString(found.frame).event,
    )


def choice(request: pb.ReplayParkedRequest | pb.PurgeParkedRequest) -> Choice:
    """Read which parked events are meant."""
    named = bool(request.positions or request.event_ids)
    if request.all and named:
        raise invalid_field("all", "cannot be joined with positions or event_ids: leave one of them out")
    if not request.all and not named:
        raise invalid_field("positions", "name some parked events, or event_ids, or set all = true")
    return Choice(tuple(request.positions), tuple(request.event_ids), request.all)


def batch(handed: Sequence[Handed]) -> bytes:
    """Encode a ConsumeResponse with events; a stored frame is the field 1 of a Delivery already."""
    deliveries = [
        wire_bytes(DELIVERY_TAG, one.frame + LEASE_ID_TAG + varint(one.lease_id) + ATTEMPT_TAG + varint(one.attempt))
        for one in handed
    ]
    return wire_bytes(BATCH_TAG, b"".join(deliveries))
