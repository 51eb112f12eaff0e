"""What another account asks for by the names of what is not its own, and how each RPC has to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from tocsin.v1 import alerting_pb2 as alerting_pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1 import system_pb2 as system_pb

from tests.service.test_notifications import webhook
from tests.support.alerts import alert
from tests.support.servers import Refusal

SECRET_WORD = "confidential"


@dataclass(frozen=True)
class Mine:
    """What the account that calls first has; the other one tries to see or change it."""

    event: log_pb.Event
    configuration: pb.EndpointConfiguration
    delivery_id: str
    alert: alerting_pb.Alert
    silence: pb.Silence


def quiet(comment: str, request_id: str = "") -> pb.CreateSilenceRequest:
    silence = pb.Silence(filter=log_pb.EventFilter(types=["never.*"]), comment=comment)
    return pb.CreateSilenceRequest(silence=silence, duration=Duration(seconds=60), request_id=request_id)


Answers = list[Any]
Verdict = Callable[[Answers, Refusal | None, Mine], bool]


def not_found(answers: Answers, refusal: Refusal | None, mine: Mine) -> bool:
    return refusal is not None and (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


def denied(answers: Answers, refusal: Refusal | None, mine: Mine) -> bool:
    return refusal is not None and refusal.code == grpc.StatusCode.PERMISSION_DENIED


def answered(check: Callable[[Answers, Mine], bool]) -> Verdict:
    return lambda answers, refusal, mine: refusal is None and bool(answers) and check(answers, mine)


def without(field: str) -> Verdict:
    """Expect answers in which a list, a path with dots, is empty."""
    return answered(lambda answers, mine: not any(attrgetter(field)(answer) for answer in answers))


everybodys = answered(lambda answers, mine: len(answers) == 1)
BEGINNING = log_pb.SubscribeRequest.Beginning()
THEIRS = log_pb.Event(id="mine", type="user.t", message="theirs")
# What another account asks for by the names of what is not its own, and how each RPC has to answer.
CROSSINGS: dict[str, tuple[Callable[[Mine], Message], Verdict]] = {
    "AppendEvent": (
        lambda mine: log_pb.AppendEventRequest(event=THEIRS, request_id="r"),
        answered(lambda a, mine: a[0].event.account == "acme" and a[0].event.position > mine.event.position),
    ),
    "AppendEvents": (
        lambda mine: log_pb.AppendEventsRequest(events=[THEIRS], request_id="r"),
        answered(lambda a, mine: a[0].results[0].position > mine.event.position + 1),
    ),
    "Ingest": (
        lambda mine: log_pb.IngestRequest(events=[THEIRS], request_id="r"),
        answered(lambda a, mine: a[0].batches[0].results[0].position > mine.event.position + 1),
    ),
    "GetEvent": (lambda mine: log_pb.GetEventRequest(id=mine.event.id), not_found),
    "ListEvents": (lambda mine: log_pb.ListEventsRequest(), without("events")),
    "BatchGetEvents": (
        lambda mine: log_pb.BatchGetEventsRequest(ids=[mine.event.id]),
        answered(lambda a, mine: not a[0].events and list(a[0].missing_ids) == [mine.event.id]),
    ),
    "GetLogStatus": (
        lambda mine: log_pb.GetLogStatusRequest(),
        answered(lambda a, mine: (a[0].event_count, a[0].oldest) == (0, a[0].head + 1)),
    ),
    "SummarizeEvents": (
        lambda mine: log_pb.SummarizeEventsRequest(group_by="type", bucket_count=10),
        answered(lambda a, mine: (a[0].total_count, len(a[0].groups), len(a[0].buckets)) == (0, 0, 0)),
    ),
    "RegisterEventTypes": (
        lambda mine: log_pb.RegisterEventTypesRequest(event_types=[log_pb.EventType(type="user.mine")]),
        answered(lambda a, mine: a[0].event_types[0].description == ""),
    ),
    "UnregisterEventTypes": (
        lambda mine: log_pb.UnregisterEventTypesRequest(names=[log_pb.EventTypeName(type="user.mine")]),
        answered(lambda a, mine: a[0].removed_count == 0),
    ),
    "ListEventTypes": (
        lambda mine: log_pb.ListEventTypesRequest(),
        answered(lambda a, mine: "user.mine" not in [branch.type for branch in a[0].types]),
    ),
    "DeleteEvent": (lambda mine: log_pb.DeleteEventRequest(id=mine.event.id), not_found),
    "DeleteEvents": (
        lambda mine: log_pb.DeleteEventsRequest(all=True),
        answered(lambda a, mine: not any(s.progress.ids for s in a) and a[-1].done.deleted_count == 0),
    ),
    "Subscribe": (
        lambda mine: log_pb.SubscribeRequest(beginning=BEGINNING, stop_when_caught_up=True),
        without("batch.events"),
    ),
    "CreateConsumer": (
        lambda mine: log_pb.CreateConsumerRequest(consumer=log_pb.Consumer(name="mine"), request_id="r"),
        answered(lambda a, mine: a[0].consumer.account == "acme" and not a[0].consumer.filter.types),
    ),
    "GetConsumer": (lambda mine: log_pb.GetConsumerRequest(name="mine"), not_found),
    "ListConsumers": (lambda mine: log_pb.ListConsumersRequest(), without("consumers")),
    "UpdateConsumer": (
        lambda mine: log_pb.UpdateConsumerRequest(consumer=log_pb.Consumer(name="mine", max_in_flight=1)),
        not_found,
    ),
    "SeekConsumer": (lambda mine: log_pb.SeekConsumerRequest(name="mine", beginning=BEGINNING), not_found),
    "DeleteConsumer": (lambda mine: log_pb.DeleteConsumerRequest(name="mine"), not_found),
    "Consume": (
        lambda mine: log_pb.ConsumeRequest(start=log_pb.ConsumeRequest.Start(name="mine")),
        not_found,
    ),
    "ListParked": (lambda mine: log_pb.ListParkedRequest(name="mine"), not_found),
    "ReplayParked": (lambda mine: log_pb.ReplayParkedRequest(name="mine", all=True), not_found),
    "PurgeParked": (lambda mine: log_pb.PurgeParkedRequest(name="mine", all=True), not_found),
    "ListEndpoints": (lambda mine: pb.ListEndpointsRequest(), everybodys),
    "PreviewNotification": (
        lambda mine: pb.PreviewNotificationRequest(id=mine.configuration.id, event=log_pb.Event(type="t")),
        not_found,
    ),
    "CreateSilence": (
        lambda mine: quiet("theirs", "r"),
        answered(lambda a, mine: a[0].silence.account == "acme" and a[0].silence.id != mine.silence.id),
    ),
    "GetSilence": (lambda mine: pb.GetSilenceRequest(id=mine.silence.id), not_found),
    "ListSilences": (lambda mine: pb.ListSilencesRequest(), answered(lambda a, mine: not a[0].silences)),
    "UpdateSilence": (
        lambda mine: pb.UpdateSilenceRequest(silence=pb.Silence(id=mine.silence.id, comment="x")),
        not_found,
    ),
    "DeleteSilence": (lambda mine: pb.DeleteSilenceRequest(id=mine.silence.id), not_found),
    "ListSelectorPresets": (lambda mine: pb.ListSelectorPresetsRequest(), everybodys),
    "ExplainEvent": (lambda mine: pb.ExplainEventRequest(event_id="mine"), not_found),
    "GetEndpoint": (lambda mine: pb.GetEndpointRequest(kind="webhook"), everybodys),
    "UpdateEndpoint": (
        lambda mine: pb.UpdateEndpointRequest(endpoint=pb.Endpoint(kind="webhook", enabled=False)),
        denied,
    ),
    "CreateEndpointConfiguration": (
        lambda mine: pb.CreateEndpointConfigurationRequest(
            configuration=webhook("http://127.0.0.1:9/"), request_id="r"
        ),
        answered(lambda a, mine: a[0].configuration.id not in ("", mine.configuration.id)),
    ),
    "GetEndpointConfiguration": (
        lambda mine: pb.GetEndpointConfigurationRequest(id=mine.configuration.id),
        not_found,
    ),
    "ListEndpointConfigurations": (lambda mine: pb.ListEndpointConfigurationsRequest(), without("configurations")),
    "UpdateEndpointConfiguration": (
        lambda mine: pb.UpdateEndpointConfigurationRequest(configuration=mine.configuration),
        not_found,
    ),
    "DeleteEndpointConfiguration": (
        lambda mine: pb.DeleteEndpointConfigurationRequest(id=mine.configuration.id),
        not_found,
    ),
    "TestEndpointConfiguration": (
        lambda mine: pb.TestEndpointConfigurationRequest(id=mine.configuration.id),
        not_found,
    ),
    "ListDeliveries": (
        lambda mine: pb.ListDeliveriesRequest(configuration_id=mine.configuration.id),
        without("deliveries"),
    ),
    "GetDelivery": (lambda mine: pb.GetDeliveryRequest(id=mine.delivery_id), not_found),
    "WatchDeliveries": (lambda mine: pb.WatchDeliveriesRequest(), without("deliveries")),
    "RetryDelivery": (lambda mine: pb.RetryDeliveryRequest(id=mine.delivery_id), not_found),
    "CancelDelivery": (lambda mine: pb.CancelDeliveryRequest(id=mine.delivery_id), not_found),
    "RecoverDeliveries": (
        lambda mine: pb.RecoverDeliveriesRequest(configuration_id=mine.configuration.id),
        not_found,
    ),
    "GetDeliveryStatistics": (
        lambda mine: pb.GetDeliveryStatisticsRequest(),
        answered(lambda a, mine: not a[0].ListFields()),
    ),
    "ListAlertTypes": (lambda mine: alerting_pb.ListAlertTypesRequest(), everybodys),
    "CreateAlert": (
        lambda mine: alerting_pb.CreateAlertRequest(alert=alert(), request_id="r"),
        answered(lambda a, mine: a[0].alert.account == "acme" and a[0].alert.id != mine.alert.id),
    ),
    "GetAlert": (lambda mine: alerting_pb.GetAlertRequest(id=mine.alert.id), not_found),
    "FindAlerts": (
        lambda mine: alerting_pb.FindAlertsRequest(),
        answered(lambda a, mine: (len(a[0].alerts), a[0].total_size) == (0, 0)),
    ),
    "UpdateAlert": (lambda mine: alerting_pb.UpdateAlertRequest(alert=alert(id=mine.alert.id)), not_found),
    "DeleteAlert": (lambda mine: alerting_pb.DeleteAlertRequest(id=mine.alert.id), not_found),
    "EnableAlert": (lambda mine: alerting_pb.EnableAlertRequest(id=mine.alert.id), not_found),
    "DisableAlert": (lambda mine: alerting_pb.DisableAlertRequest(id=mine.alert.id), not_found),
    "GetAlertState": (lambda mine: alerting_pb.GetAlertStateRequest(id=mine.alert.id), not_found),
    "MuteAll": (lambda mine: alerting_pb.MuteAllRequest(id=mine.alert.id), not_found),
    "UnmuteAll": (lambda mine: alerting_pb.UnmuteAllRequest(id=mine.alert.id), not_found),
    "MuteInstance": (lambda mine: alerting_pb.MuteInstanceRequest(id=mine.alert.id, instance_id="i"), not_found),
    "UnmuteInstance": (lambda mine: alerting_pb.UnmuteInstanceRequest(id=mine.alert.id, instance_id="i"), not_found),
    "RunAlert": (lambda mine: alerting_pb.RunAlertRequest(id=mine.alert.id), not_found),
    "ListExecutions": (lambda mine: alerting_pb.ListExecutionsRequest(id=mine.alert.id), not_found),
    "GetAlertInstanceSummary": (
        lambda mine: alerting_pb.GetAlertInstanceSummaryRequest(id=mine.alert.id),
        not_found,
    ),
    "PreviewAlert": (lambda mine: alerting_pb.PreviewAlertRequest(id=mine.alert.id), not_found),
    # The navigation of the owner is registered: another account's is its own.
    "RegisterNavigation": (
        lambda mine: alerting_pb.RegisterNavigationRequest(
            consumer="ops", alert_type_id=".event-threshold", path_template="/theirs"
        ),
        answered(lambda answers, mine: len(answers) == 1),
    ),
    "RegisterDefaultNavigation": (
        lambda mine: alerting_pb.RegisterDefaultNavigationRequest(consumer="ops", path_template="/theirs"),
        answered(lambda answers, mine: len(answers) == 1),
    ),
    "DeleteNavigation": (
        lambda mine: alerting_pb.DeleteNavigationRequest(consumer="ops"),
        lambda answers, refusal, mine: refusal is not None and refusal.reason == "NAVIGATION_NOT_REGISTERED",
    ),
    "GetAlertNavigation": (lambda mine: alerting_pb.GetAlertNavigationRequest(id=mine.alert.id), not_found),
    "GetInfo": (lambda mine: system_pb.GetInfoRequest(), everybodys),
}
