"""Nothing crosses an account: every RPC, with another account's objects (P5, XF2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tocsin.v1 import alerting_pb2 as alerting_pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1 import system_pb2 as system_pb

from tests.service.test_notifications import created, webhook
from tests.support.alerts import alert, create
from tests.support.bounds import VALID, methods
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, Refusal, Subscriber, refused

OTHER = (("x-tocsin-account", "acme"),)
SECRET_WORD = "confidential"
ENDLESS = ("WatchDeliveries",)  # streams of which the first message is looked at


async def test_events_of_another_account_are_not_there(api: Api) -> None:
    event = await api.append("t", id="mine")
    events = api.events
    for attempt in (
        events.GetEvent(log_pb.GetEventRequest(id="mine"), metadata=OTHER),
        events.DeleteEvent(log_pb.DeleteEventRequest(id="mine"), metadata=OTHER),
    ):
        refusal = await refused(attempt)
        absent = await refused(events.GetEvent(log_pb.GetEventRequest(id="none"), metadata=OTHER))
        assert (refusal.code, refusal.reason) == (absent.code, absent.reason)
        assert refusal.text.replace("mine", "none") == absent.text
    assert not (await events.ListEvents(log_pb.ListEventsRequest(), metadata=OTHER)).events
    steps = [m async for m in events.DeleteEvents(log_pb.DeleteEventsRequest(all=True), metadata=OTHER)]
    assert [step.done.deleted_count for step in steps] == [0]
    # The same id and request id are another account's own.
    theirs = await api.append("other", id="mine", metadata=OTHER)
    assert (theirs.account, theirs.type) == ("acme", "other")
    batch = log_pb.AppendEventsRequest(events=[log_pb.Event(type="b")], request_id="r")
    mine, other = await events.AppendEvents(batch), await events.AppendEvents(batch, metadata=OTHER)
    assert mine.results[0].position != other.results[0].position
    assert (await events.GetEvent(log_pb.GetEventRequest(id="mine"))).event == event


async def test_a_subscriber_sees_its_account_only(api: Api) -> None:
    theirs = Subscriber(api, OTHER, beginning=log_pb.SubscribeRequest.Beginning())
    await theirs.until(step="caught_up")
    await api.append("mine")
    await api.append("theirs", metadata=OTHER)
    await theirs.until(count=1)
    assert [e.type for e in theirs.events] == ["theirs"]
    assert theirs.started is not None
    assert theirs.started.oldest == 1
    await theirs.close()
    whole = Subscriber(
        api, beginning=log_pb.SubscribeRequest.Beginning(), filter=log_pb.EventFilter(scope=log_pb.SCOPE_GLOBAL)
    )
    await whole.until(count=2)
    await whole.close()


@pytest.mark.parametrize("stream", ["ListEvents", "Subscribe", "DeleteEvents"])
async def test_scope_global_is_refused_while_acting_for_an_account(api: Api, stream: str) -> None:
    """XF3: an account asks for everybody's events."""
    (method,) = [m for m in methods() if m.name == stream]
    request: Any = {
        "ListEvents": log_pb.ListEventsRequest,
        "Subscribe": log_pb.SubscribeRequest,
        "DeleteEvents": log_pb.DeleteEventsRequest,
    }[stream](filter=log_pb.EventFilter(scope=log_pb.SCOPE_GLOBAL, types=["a"]))
    assert method.containing_service is not None
    path = f"/tocsin.v1.EventLog/{stream}"
    make: Any = api.channel.unary_stream if method.server_streaming else api.channel.unary_unary
    refusal = await refused(make(path, type(request).SerializeToString, lambda b: b)(request, metadata=OTHER))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED


async def test_configurations_and_deliveries_of_another_account_are_not_there(api: Api, hook: WebhookReceiver) -> None:
    """A35."""
    configuration = await created(api, webhook(hook.url))
    await api.append("t")
    (posted,) = await hook.until(1)
    configuration.name = "taken over"
    stub = api.notifications
    attempts: list[Any] = [
        stub.GetEndpointConfiguration(pb.GetEndpointConfigurationRequest(id=configuration.id), metadata=OTHER),
        stub.UpdateEndpointConfiguration(
            pb.UpdateEndpointConfigurationRequest(configuration=configuration), metadata=OTHER
        ),
        stub.DeleteEndpointConfiguration(pb.DeleteEndpointConfigurationRequest(id=configuration.id), metadata=OTHER),
        stub.TestEndpointConfiguration(pb.TestEndpointConfigurationRequest(id=configuration.id), metadata=OTHER),
        stub.TestEndpointConfiguration(
            pb.TestEndpointConfigurationRequest(configuration=configuration), metadata=OTHER
        ),
        stub.GetDelivery(pb.GetDeliveryRequest(id=posted.id), metadata=OTHER),
        stub.ExplainEvent(pb.ExplainEventRequest(event_id=posted.verified()["data"]["id"]), metadata=OTHER),
        stub.ExplainEvent(pb.ExplainEventRequest(position=posted.verified()["data"]["position"]), metadata=OTHER),
        stub.ExplainEvent(
            pb.ExplainEventRequest(event=log_pb.Event(type="t"), configuration_id=configuration.id), metadata=OTHER
        ),
    ]
    for attempt in attempts:
        assert (await refused(attempt)).reason == "NOT_FOUND"
    listed = await stub.ListEndpointConfigurations(pb.ListEndpointConfigurationsRequest(), metadata=OTHER)
    assert not listed.configurations
    for query in (
        pb.ListDeliveriesRequest(),
        pb.ListDeliveriesRequest(configuration_id=configuration.id),
        pb.ListDeliveriesRequest(event_id=posted.verified()["data"]["id"]),
    ):
        assert not (await stub.ListDeliveries(query, metadata=OTHER)).deliveries
    # An event of another account reaches nobody here.
    await api.append("theirs", metadata=OTHER)
    await api.append("mine")
    await hook.until(2)
    assert [p.verified()["data"]["type"] for p in hook.posted] == ["t", "mine"]
    unchanged = await stub.GetEndpointConfiguration(pb.GetEndpointConfigurationRequest(id=configuration.id))
    assert unchanged.configuration.name == "hook"


async def test_a_switch_is_for_the_admin_account_acting_for_itself(api: Api) -> None:
    """A32, XF3: another account switches an endpoint."""
    request = pb.UpdateEndpointRequest(endpoint=pb.Endpoint(kind="webhook", enabled=False))
    refusal = await refused(api.notifications.UpdateEndpoint(request, metadata=OTHER))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED
    listed = await api.notifications.ListEndpoints(pb.ListEndpointsRequest(), metadata=OTHER)
    assert {e.kind: e.enabled for e in listed.endpoints} == {"email": True, "webhook": True}


@dataclass(frozen=True)
class Mine:
    """What the account that calls first has; the other one tries to see or change it."""

    event: log_pb.Event
    configuration: pb.EndpointConfiguration
    delivery_id: str
    alert: alerting_pb.Alert
    silence: pb.Silence


async def filled(api: Api, hook: WebhookReceiver) -> Mine:
    """Make one of everything, under the request id "r" and with a word that nobody else may read."""
    wanted = webhook(hook.url, name=SECRET_WORD)
    configured = pb.CreateEndpointConfigurationRequest(configuration=wanted, request_id="r")
    configuration = (await api.notifications.CreateEndpointConfiguration(configured)).configuration
    event = log_pb.Event(id="mine", type="user.t", message=SECRET_WORD)
    appended = await api.events.AppendEvent(log_pb.AppendEventRequest(event=event, request_id="r"))
    await api.events.AppendEvents(log_pb.AppendEventsRequest(events=[log_pb.Event(type="user.b")], request_id="r"))
    consumer = log_pb.Consumer(name="mine", filter=log_pb.EventFilter(types=[SECRET_WORD]))
    await api.events.CreateConsumer(log_pb.CreateConsumerRequest(consumer=consumer, request_id="r"))
    described = log_pb.EventType(type="user.mine", description=SECRET_WORD)
    await api.events.RegisterEventTypes(log_pb.RegisterEventTypesRequest(event_types=[described]))
    delivery_id = (await hook.until(1))[0].id
    made = await create(api, alert(name=SECRET_WORD), "r")
    shown = alerting_pb.RegisterDefaultNavigationRequest(consumer="ops", path_template="/mine")
    await api.alerting.RegisterDefaultNavigation(shown)
    silenced = (await api.notifications.CreateSilence(quiet(SECRET_WORD, request_id="r"))).silence
    return Mine(appended.event, configuration, delivery_id, made, silenced)


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


@pytest.mark.parametrize("method", methods(), ids=lambda method: str(method.name))
async def test_no_rpc_crosses_accounts(api: Api, hook: WebhookReceiver, method: MethodDescriptor) -> None:
    """P5: every RPC is called for another account, which sees and changes nothing of what is there."""
    request_of, verdict = CROSSINGS[method.name]
    mine = await filled(api, hook)
    answers: Answers = []
    refusal: Refusal | None = None
    try:
        answers = await answers_of(api, method, request_of(mine))
    except grpc.aio.AioRpcError as error:
        refusal = Refusal(error)
    told = f"{answers}{refusal and (refusal.text, refusal.trailers)}"
    assert verdict(answers, refusal, mine), told
    assert SECRET_WORD not in told
    assert (await api.events.GetEvent(log_pb.GetEventRequest(id="mine"))).event == mine.event
    consumer = (await api.events.GetConsumer(log_pb.GetConsumerRequest(name="mine"))).consumer
    assert (consumer.max_in_flight, consumer.create_time) == (100, consumer.update_time)
    kept = await api.notifications.GetEndpointConfiguration(
        pb.GetEndpointConfigurationRequest(id=mine.configuration.id)
    )
    assert kept.configuration.update_time == mine.configuration.update_time
    described = await api.events.ListEventTypes(log_pb.ListEventTypesRequest(type="user.mine"))
    assert [branch.event_type.description for branch in described.types] == [SECRET_WORD]
    found = (await api.alerting.GetAlert(alerting_pb.GetAlertRequest(id=mine.alert.id))).alert
    assert (found.enabled, found.update_time) == (mine.alert.enabled, mine.alert.update_time)
    shown = await api.alerting.GetAlertNavigation(alerting_pb.GetAlertNavigationRequest(id=mine.alert.id))
    assert shown.path == "/mine"


async def answers_of(api: Api, method: MethodDescriptor, request: Message) -> Answers:
    """Call a method for the other account and give all that it answers."""
    assert method.containing_service is not None
    path = f"/{method.containing_service.full_name}/{method.name}"
    decode = GetMessageClass(method.output_type).FromString
    if method.client_streaming:
        exchange: Any = api.channel.stream_stream(path, type(request).SerializeToString, decode)
        return [answer async for answer in exchange(iter([request]), metadata=OTHER)]
    make: Any = api.channel.unary_stream if method.server_streaming else api.channel.unary_unary
    running = make(path, type(request).SerializeToString, decode)(request, metadata=OTHER)
    if method.name in ENDLESS:
        answers = [await anext(aiter(running))]
        running.cancel()
        return answers
    return [answer async for answer in running] if method.server_streaming else [await running]


def test_every_case_is_of_an_rpc() -> None:
    assert set(CROSSINGS) == {method.name for method in methods()} == set(VALID)


@pytest.mark.parametrize("account", ["UPPER", "a b", "-a", "a" * 64, "ü"])
async def test_a_malformed_account_is_refused(api: Api, account: str) -> None:
    metadata = (("x-tocsin-account", account.encode().decode("ascii", "replace").replace("\ufffd", "?")),)
    request: Message = log_pb.GetEventRequest(id="x")
    refusal = await refused(api.events.GetEvent(request, metadata=metadata))  # type: ignore[arg-type]
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_METADATA")
