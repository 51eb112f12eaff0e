"""Options and health of a configuration on the wire.

A new option is read in `read` and written in `answer`.
"""

from __future__ import annotations

from typing import Literal

from google.protobuf.duration_pb2 import Duration
from tocsin.v1 import notifications_pb2 as pb

from tocsin_server.api.escapes import escape_message, escape_of
from tocsin_server.api.timestamps import timestamp
from tocsin_server.domain.errors import invalid_field
from tocsin_server.domain.grouping import INTERVAL_DEFAULT_S, ITEMS_DEFAULT, WAIT_DEFAULT_S, Grouping
from tocsin_server.domain.health import HealthState
from tocsin_server.domain.notifications import EndpointConfiguration
from tocsin_server.domain.options import DeliveryOptions


def read(sent: pb.DeliveryOptions) -> DeliveryOptions:
    """Make options of what a client sent."""
    return DeliveryOptions(
        retry_schedule=tuple(sent.retry_schedule),
        rate_per_second=sent.rate.per_second,
        grouping=_grouping(sent.grouping) if sent.HasField("grouping") else None,
        add_notification_payload=sent.add_notification_payload,
        subject_template=sent.template.subject,
        body_template=sent.template.body,
        escape=escape_of(sent.escape),
        recipients=tuple(sent.recipients),
    )


def _grouping(sent: pb.Grouping) -> Grouping:
    wait, interval = _seconds(sent, "wait"), _seconds(sent, "interval")
    return Grouping(
        by=tuple(sent.by),
        wait_s=WAIT_DEFAULT_S if wait is None else wait,
        interval_s=INTERVAL_DEFAULT_S if interval is None else interval,
        max_items=sent.max_items or ITEMS_DEFAULT,
    )


def _seconds(sent: pb.Grouping, name: Literal["wait", "interval"]) -> int | None:
    if not sent.HasField(name):
        return None
    given: Duration = getattr(sent, name)
    if given.nanos:
        raise invalid_field(f"configuration.options.grouping.{name}", "is not whole seconds")
    return given.seconds


def answer(options: DeliveryOptions) -> pb.DeliveryOptions:
    """Give options as a client reads them."""
    message = pb.DeliveryOptions(
        retry_schedule=options.retry_schedule,
        add_notification_payload=options.add_notification_payload,
        escape=escape_message(options.escape),
        recipients=options.recipients,
    )
    if options.subject_template or options.body_template:
        message.template.CopyFrom(pb.Template(subject=options.subject_template, body=options.body_template))
    if options.rate_per_second:
        message.rate.per_second = options.rate_per_second
    rules = options.grouping
    if rules is not None:
        message.grouping.CopyFrom(
            pb.Grouping(
                by=rules.by,
                wait=Duration(seconds=rules.wait_s),
                interval=Duration(seconds=rules.interval_s),
                max_items=rules.max_items,
            )
        )
    return message


def health(configuration: EndpointConfiguration) -> pb.Health:
    """Give the health of a configuration's receiver; one that is switched off is disabled, however it did."""
    known = configuration.health
    on = configuration.enabled
    message = pb.Health(
        state=pb.HealthState.Value(f"HEALTH_STATE_{known.state if on else HealthState.DISABLED}"),
        reason=known.reason if on else "SWITCHED_OFF",
        consecutive_failures=known.failures,
    )
    if known.since and on:
        message.since.CopyFrom(timestamp(known.since))
    if known.until and on:
        message.until.CopyFrom(timestamp(known.until))
    if known.first_failure_at:
        message.first_failure_time.CopyFrom(timestamp(known.first_failure_at))
    return message
