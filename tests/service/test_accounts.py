"""Nothing crosses an account: every RPC, with another account's objects (P5, XF2)."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb

from tests.service.test_notifications import created, webhook
from tests.support.bounds import VALID, methods
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, Subscriber, refused

OTHER = (("x-tocsin-account", "acme"),)


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
    """XF3: another account switches an endpoint."""
    request = pb.UpdateEndpointRequest(endpoint=pb.Endpoint(kind="webhook", enabled=False))
    refusal = await refused(api.notifications.UpdateEndpoint(request, metadata=OTHER))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED
    listed = await api.notifications.ListEndpoints(pb.ListEndpointsRequest(), metadata=OTHER)
    assert {e.kind: e.enabled for e in listed.endpoints} == {"email": True, "webhook": True}


CROSSED = {
    "AppendEvent", "AppendEvents", "GetEvent", "ListEvents", "DeleteEvent", "DeleteEvents", "Subscribe",
    "ListEndpoints", "GetEndpoint", "UpdateEndpoint", "CreateEndpointConfiguration", "GetEndpointConfiguration",
    "ListEndpointConfigurations", "UpdateEndpointConfiguration", "DeleteEndpointConfiguration",
    "TestEndpointConfiguration", "ListDeliveries", "GetDelivery", "GetInfo",
}  # fmt: skip
CROSSED_ELSEWHERE = {
    # tests/service/test_alerting.py
    "ListAlertTypes", "CreateAlert", "GetAlert", "FindAlerts", "UpdateAlert", "DeleteAlert", "EnableAlert",
    "DisableAlert", "GetAlertState",
}  # fmt: skip


def test_every_rpc_is_crossed() -> None:
    assert {method.name for method in methods()} == CROSSED | CROSSED_ELSEWHERE == set(VALID)


@pytest.mark.parametrize("account", ["UPPER", "a b", "-a", "a" * 64, "ü"])
async def test_a_malformed_account_is_refused(api: Api, account: str) -> None:
    metadata = (("x-tocsin-account", account.encode().decode("ascii", "replace").replace("\ufffd", "?")),)
    request: Message = log_pb.GetEventRequest(id="x")
    refusal = await refused(api.events.GetEvent(request, metadata=metadata))  # type: ignore[arg-type]
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_METADATA")
