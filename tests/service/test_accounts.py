"""Nothing crosses an account: every RPC, with another account's objects (P5, XF2)."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tocsin.v1 import alerting_pb2 as alerting_pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb

from tests.service.test_notifications import created, webhook
from tests.support.alerts import alert, create
from tests.support.bounds import VALID, methods
from tests.support.crossings import CROSSINGS, SECRET_WORD, Answers, Mine, quiet
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, Refusal, Subscriber, refused

OTHER = (("x-tocsin-account", "acme"),)
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
    assert (await events.GetEvent(log_pb.GetEventRequest(id="mine"))).event == event


async def appended(api: Api, way: str, event: log_pb.Event, request_id: str, metadata: Any = ()) -> int:
    """Append an event by one of the three ways; give its position."""
    if way == "AppendEvent":
        request = log_pb.AppendEventRequest(event=event, request_id=request_id)
        return (await api.events.AppendEvent(request, metadata=metadata)).event.position
    if way == "AppendEvents":
        batch = log_pb.AppendEventsRequest(events=[event], request_id=request_id)
        return (await api.events.AppendEvents(batch, metadata=metadata)).results[0].position
    given = log_pb.IngestRequest(events=[event], request_id=request_id)
    told = [message async for message in api.events.Ingest(iter([given]), metadata=metadata)]
    return told[0].batches[0].results[0].position


@pytest.mark.parametrize("way", ["AppendEvent", "AppendEvents", "Ingest"])
async def test_ids_and_request_ids_of_another_account_are_its_own(api: Api, way: str) -> None:
    """XA20: the same ids with the same and with other content are independent, and repeats answer one's own."""
    mine, theirs = log_pb.Event(id="e", type="a"), log_pb.Event(id="e", type="b")
    assert await appended(api, way, mine, "") == 1
    assert await appended(api, way, theirs, "", OTHER) == 2
    assert await appended(api, way, log_pb.Event(type="a"), "r") == 3
    assert await appended(api, way, log_pb.Event(type="a"), "r", OTHER) == 4
    assert await appended(api, way, log_pb.Event(type="a"), "s") == 5
    assert await appended(api, way, log_pb.Event(type="b"), "s", OTHER) == 6
    for metadata, positions in (((), [1, 3, 5]), (OTHER, [2, 4, 6])):
        given = mine if metadata == () else theirs
        last = log_pb.Event(type=given.type)
        again = [(given, ""), (log_pb.Event(type="a"), "r"), (last, "s")]
        assert [await appended(api, way, event, name, metadata) for event, name in again] == positions
        kept = (await api.events.GetEvent(log_pb.GetEventRequest(id="e"), metadata=metadata)).event
        assert (kept.type, kept.position) == (given.type, positions[0])
    assert (await api.events.GetLogStatus(log_pb.GetLogStatusRequest())).head == 6


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
