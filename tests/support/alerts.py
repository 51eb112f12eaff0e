"""Alerts as a client writes them, and the calls that tests of Alerting share."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as notifications_pb

from tests.support.receivers import SECRET, Mailbox
from tests.support.servers import Api

OTHER = (("x-tocsin-account", "other"),)
ALERT_EVENTS = log_pb.EventFilter(types=["system.alerting.*"])


def struct(values: dict[str, Any]) -> Struct:
    return json_format.ParseDict(values, Struct())


def alert(**changes: Any) -> pb.Alert:
    """A complete alert that never fires, but for what a test changes."""
    fields: dict[str, Any] = {
        "name": "failures",
        "alert_type_id": ".event-threshold",
        "consumer": "ops",
        "schedule": pb.Schedule(interval="1h"),
        "params": struct({"window": "5m", "threshold": 1_000_000}),
    }
    return pb.Alert(**fields | changes)


async def create(api: Api, wanted: pb.Alert, request_id: str = "", **call: Any) -> pb.Alert:
    request = pb.CreateAlertRequest(alert=wanted, request_id=request_id)
    return (await api.alerting.CreateAlert(request, **call)).alert


async def webhook(api: Api, url: str) -> str:
    configuration = notifications_pb.EndpointConfiguration(
        name="hook", webhook=notifications_pb.WebhookConnection(url=url, secret=SECRET)
    )
    request = notifications_pb.CreateEndpointConfigurationRequest(configuration=configuration)
    return (await api.notifications.CreateEndpointConfiguration(request)).configuration.id


async def mail(api: Api, box: Mailbox) -> str:
    connection = notifications_pb.EmailConnection(
        host="127.0.0.1",
        port=box.port,
        security=notifications_pb.EMAIL_SECURITY_NONE,
        from_address="tocsin@example.com",
        recipients=["ops@example.com"],
    )
    configuration = notifications_pb.EndpointConfiguration(name="mail", email=connection)
    request = notifications_pb.CreateEndpointConfigurationRequest(configuration=configuration)
    return (await api.notifications.CreateEndpointConfiguration(request)).configuration.id


async def find(api: Api, **request: Any) -> pb.FindAlertsResponse:
    return await api.alerting.FindAlerts(pb.FindAlertsRequest(**request))


async def update(api: Api, changed: pb.Alert, *paths: str) -> pb.Alert:
    request = pb.UpdateAlertRequest(alert=changed, update_mask=FieldMask(paths=paths))
    return (await api.alerting.UpdateAlert(request)).alert
