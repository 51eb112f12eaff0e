"""Notifications through a real server, a real HTTP receiver and a real SMTP receiver."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.domain.built_in_types import BUILT_IN

from tests.support.receivers import SECRET, Mailbox, WebhookReceiver, plain_of
from tests.support.servers import Api, refused, serving

EVERYTHING = pb.Selector(scope="account", level="*", type="*", resource_type="*")


def webhook(url: str, *selectors: pb.Selector, name: str = "hook") -> pb.EndpointConfiguration:
    return pb.EndpointConfiguration(
        name=name, webhook=pb.WebhookConnection(url=url, secret=SECRET), selectors=selectors or (EVERYTHING,)
    )


def mail(box: Mailbox, *recipients: str) -> pb.EndpointConfiguration:
    return pb.EndpointConfiguration(
        name="mail",
        email=pb.EmailConnection(
            host="127.0.0.1",
            port=box.port,
            security=pb.EMAIL_SECURITY_NONE,
            from_address="tocsin@example.com",
            recipients=recipients,
        ),
        selectors=[EVERYTHING],
    )


async def created(api: Api, configuration: pb.EndpointConfiguration, request_id: str = "") -> pb.EndpointConfiguration:
    request = pb.CreateEndpointConfigurationRequest(configuration=configuration, request_id=request_id)
    return (await api.notifications.CreateEndpointConfiguration(request)).configuration


async def settled(api: Api, **query: object) -> list[pb.Delivery]:
    """Wait until every delivery that was found has ended, and give them with their attempts."""
    async with asyncio.timeout(20):
        while True:
            found = await api.notifications.ListDeliveries(pb.ListDeliveriesRequest(**query))  # type: ignore[arg-type]
            if found.deliveries and all(d.HasField("end_time") for d in found.deliveries):
                break
            await asyncio.sleep(0.01)
    full = [await api.notifications.GetDelivery(pb.GetDeliveryRequest(id=d.id)) for d in found.deliveries]
    return [answer.delivery for answer in full]


async def test_an_event_reaches_a_webhook_signed_and_whole(api: Api, hook: WebhookReceiver) -> None:
    """B05."""
    configuration = await created(api, webhook(hook.url))
    event = await api.append(
        "user.image.analysis_failed", level=log_pb.LEVEL_ERROR, message="disk full", correlation_id="c-1",
        resource=log_pb.EventResource(type="image_tag", id="nginx:latest"), labels={"zone": "a"},
    )  # fmt: skip
    (posted,) = await hook.until(1)
    payload = posted.verified()
    assert payload["type"] == event.type
    assert payload["data"]["id"] == event.id
    assert payload["data"]["level"] == "ERROR"
    assert payload["data"]["resource"]["id"] == "nginx:latest"
    assert payload["data"]["labels"] == {"zone": "a"}
    (delivery,) = await settled(api)
    assert delivery.id == posted.id
    assert delivery.configuration_id == configuration.id
    assert delivery.state == pb.DELIVERY_STATE_DELIVERED
    assert delivery.event.id == event.id
    assert delivery.correlation_id == "c-1"
    (attempt,) = delivery.attempts
    assert (attempt.number, attempt.verdict, attempt.status_code) == (1, pb.VERDICT_DELIVERED, 200)
    assert attempt.HasField("duration")


async def test_an_event_reaches_a_mailbox_readably(api: Api, box: Mailbox) -> None:
    await created(api, mail(box, "ops@example.com", "dev@example.com"))
    event = await api.append("user.image.analysis_failed", level=log_pb.LEVEL_ERROR, message="disk full")
    ((recipients, message),) = await box.until(1)
    assert recipients == ["ops@example.com", "dev@example.com"]
    assert message["Subject"] == "[ERROR] disk full"
    assert event.id in plain_of(message)
    (delivery,) = await settled(api)
    assert message["Message-ID"] == f"<{delivery.id}@example.com>"
    assert [r.verdict for r in delivery.recipients] == [pb.VERDICT_DELIVERED] * 2


async def test_each_recipient_has_its_own_verdict(api: Api, box: Mailbox) -> None:
    box.refuse["gone@example.com"] = "550 no such user"
    await created(api, mail(box, "ops@example.com", "gone@example.com"))
    await api.append()
    (delivery,) = await settled(api)
    assert delivery.state == pb.DELIVERY_STATE_EXHAUSTED
    assert delivery.reason == "PERMANENT"
    assert {r.recipient: (r.verdict, r.status_code) for r in delivery.recipients} == {
        "ops@example.com": (pb.VERDICT_DELIVERED, 250),
        "gone@example.com": (pb.VERDICT_PERMANENT, 550),
    }


async def test_only_what_a_selector_chooses_is_sent_once_however_many_match(api: Api, hook: WebhookReceiver) -> None:
    errors = pb.Selector(scope="account", level="error", type="user.*", resource_type="*")
    same = pb.Selector(scope="account", level="*", type="user.image.*", resource_type="*")
    await created(api, webhook(hook.url, errors, same))
    await api.append("system.feed.sync")
    await api.append("user.tag.check")
    await api.append("user.image.failed", level=log_pb.LEVEL_ERROR)
    (posted,) = await hook.until(1)
    assert posted.verified()["type"] == "user.image.failed"
    deliveries = await api.notifications.ListDeliveries(pb.ListDeliveriesRequest())
    assert len(deliveries.deliveries) == 1


async def test_a_failed_attempt_is_tried_again_under_the_same_id(api: Api, hook: WebhookReceiver) -> None:
    hook.answer = lambda posted: 500 if len(hook.posted) == 1 else 200
    await created(api, webhook(hook.url))
    await api.append()
    first, second = await hook.until(2)
    assert first.id == second.id
    second.verified()
    (delivery,) = await settled(api)
    assert delivery.state == pb.DELIVERY_STATE_DELIVERED
    assert [(a.number, a.verdict, a.status_code) for a in delivery.attempts] == [
        (1, pb.VERDICT_RETRY, 500),
        (2, pb.VERDICT_DELIVERED, 200),
    ]


async def test_a_refused_message_ends_and_says_why(api: Api, hook: WebhookReceiver) -> None:
    hook.answer = lambda posted: 422
    await created(api, webhook(hook.url))
    await api.append()
    (delivery,) = await settled(api)
    assert (delivery.state, delivery.reason) == (pb.DELIVERY_STATE_EXHAUSTED, "PERMANENT")


async def test_secrets_are_masked_kept_and_not_in_the_store(api: Api, hook: WebhookReceiver) -> None:
    configuration = await created(api, webhook(hook.url))
    shown = configuration.webhook.secret
    assert shown == "****" + SECRET[-4:]
    configuration.name = "renamed"
    answer = await api.notifications.UpdateEndpointConfiguration(
        pb.UpdateEndpointConfigurationRequest(configuration=configuration)
    )
    assert answer.configuration.name == "renamed"
    await api.append()
    (posted,) = await hook.until(1)
    posted.verified()
    secret = SECRET.removeprefix("whsec_").encode()
    for file in api.app.data.iterdir():
        assert secret not in file.read_bytes(), file


async def test_a_switched_off_endpoint_holds_and_sends_when_on_again(api: Api, hook: WebhookReceiver) -> None:
    """A31."""
    await created(api, webhook(hook.url))
    switch = pb.UpdateEndpointRequest(endpoint=pb.Endpoint(kind="webhook", enabled=False))
    assert not (await api.notifications.UpdateEndpoint(switch)).endpoint.enabled
    event = await api.append()
    await api.events.DeleteEvent(log_pb.DeleteEventRequest(id=event.id))  # waits for routing; the body is kept
    found = await api.notifications.ListDeliveries(pb.ListDeliveriesRequest())
    assert [d.state for d in found.deliveries] == [pb.DELIVERY_STATE_PAUSED]
    assert not hook.posted
    switch.endpoint.enabled = True
    await api.notifications.UpdateEndpoint(switch)
    (posted,) = await hook.until(1)
    assert posted.verified()["data"]["id"] == event.id


async def test_what_is_routed_while_notifications_are_off_waits_for_them(tmp_path: Path, hook: WebhookReceiver) -> None:
    async with serving(tmp_path, notifications__enabled=False) as api:
        await created(api, webhook(hook.url))
        event = await api.append()
        await api.events.DeleteEvent(log_pb.DeleteEventRequest(id=event.id))  # returns: routing goes on
        found = await api.notifications.ListDeliveries(pb.ListDeliveriesRequest())
        assert [d.state for d in found.deliveries] == [pb.DELIVERY_STATE_PENDING]
    async with serving(tmp_path):
        (posted,) = await hook.until(1)
        assert posted.verified()["data"]["id"] == event.id


async def test_deleting_a_configuration_cancels_what_waits(api: Api, hook: WebhookReceiver) -> None:
    configuration = await created(api, webhook(hook.url))
    configuration.enabled = False
    await api.notifications.UpdateEndpointConfiguration(
        pb.UpdateEndpointConfigurationRequest(configuration=configuration)
    )
    event = await api.append()
    await api.events.DeleteEvent(log_pb.DeleteEventRequest(id=event.id))
    await api.notifications.DeleteEndpointConfiguration(pb.DeleteEndpointConfigurationRequest(id=configuration.id))
    (delivery,) = await settled(api)
    assert (delivery.state, delivery.reason) == (pb.DELIVERY_STATE_CANCELLED, "DELETED")


async def test_a_test_message_answers_the_real_attempt(api: Api, hook: WebhookReceiver) -> None:
    configuration = await created(api, webhook(hook.url))
    stored = await api.notifications.TestEndpointConfiguration(pb.TestEndpointConfigurationRequest(id=configuration.id))
    assert stored.delivered
    tested = hook.posted[0].verified()
    (entry,) = [entry for entry in BUILT_IN if entry.type == tested["type"]]
    assert (tested["type"], tested["data"]) == ("system.notifications.test", entry.example)
    assert hook.posted[0].id == stored.delivery_id
    (delivery,) = await settled(api)
    assert delivery.WhichOneof("subject") == "test"
    hook.answer = lambda posted: 503
    unsaved = await api.notifications.TestEndpointConfiguration(
        pb.TestEndpointConfigurationRequest(configuration=webhook(hook.url))
    )
    assert not unsaved.delivered
    assert unsaved.attempt.status_code == 503
    assert not unsaved.delivery_id


async def test_the_same_request_id_makes_one_configuration(api: Api, hook: WebhookReceiver) -> None:
    first = await created(api, webhook(hook.url), request_id="r-1")
    again = await created(api, webhook(hook.url), request_id="r-1")
    assert first.id == again.id
    other = pb.CreateEndpointConfigurationRequest(configuration=webhook(hook.url, name="other"), request_id="r-1")
    refusal = await refused(api.notifications.CreateEndpointConfiguration(other))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_scope_global_is_for_the_admin_account_only(api: Api, hook: WebhookReceiver) -> None:
    """A42."""
    everyone = pb.Selector(scope="global", level="*", type="*", resource_type="*")
    request = pb.CreateEndpointConfigurationRequest(configuration=webhook(hook.url, everyone))
    acting = (("x-tocsin-account", "acme"),)
    refusal = await refused(api.notifications.CreateEndpointConfiguration(request, metadata=acting))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED
    await api.notifications.CreateEndpointConfiguration(request)
    await api.append(metadata=acting)
    (posted,) = await hook.until(1)
    assert posted.verified()["data"]["account"] == "acme"


async def test_a_mask_changes_only_what_it_names(api: Api, hook: WebhookReceiver, box: Mailbox) -> None:
    configuration = await created(api, webhook(hook.url))
    only_enabled = pb.UpdateEndpointConfigurationRequest(
        configuration=pb.EndpointConfiguration(id=configuration.id, enabled=False),
        update_mask=FieldMask(paths=["enabled"]),
    )
    changed = (await api.notifications.UpdateEndpointConfiguration(only_enabled)).configuration
    configuration.enabled = False
    configuration.ClearField("update_time")
    changed.ClearField("update_time")
    changed.ClearField("health")
    configuration.ClearField("health")
    assert changed == configuration
    for broken, field in (
        (pb.EndpointConfiguration(id=configuration.id), "configuration.webhook"),
        (mail(box, "ops@example.com"), "configuration.email"),
        (webhook(hook.url, name=""), "configuration.name"),
    ):
        broken.id = configuration.id
        request = pb.UpdateEndpointConfigurationRequest(configuration=broken)
        assert field in (await refused(api.notifications.UpdateEndpointConfiguration(request))).fields
    request = pb.UpdateEndpointConfigurationRequest(configuration=changed, update_mask=FieldMask(paths=["kind"]))
    assert list((await refused(api.notifications.UpdateEndpointConfiguration(request))).fields) == ["update_mask"]


async def test_a_configuration_needs_a_name_and_a_connection(api: Api) -> None:
    request = pb.CreateEndpointConfigurationRequest(configuration=pb.EndpointConfiguration())
    request.configuration.SetInParent()
    refusal = await refused(api.notifications.CreateEndpointConfiguration(request))
    assert set(refusal.fields) == {"configuration.name", "configuration.connection"}


async def test_a_shown_password_is_not_sent_to_another_host(api: Api, box: Mailbox) -> None:
    configuration = mail(box, "ops@example.com")
    configuration.email.security = pb.EMAIL_SECURITY_STARTTLS
    configuration.email.username, configuration.email.password = "user", "a long enough password"
    stored = await created(api, configuration)
    assert stored.email.password == "****word"
    stored.email.host = "127.0.0.2"
    update = pb.UpdateEndpointConfigurationRequest(configuration=stored)
    test = pb.TestEndpointConfigurationRequest(configuration=stored)
    for call in (
        api.notifications.UpdateEndpointConfiguration(update),
        api.notifications.TestEndpointConfiguration(test),
    ):
        assert list((await refused(call)).fields) == ["configuration.email.password"]
    create = pb.CreateEndpointConfigurationRequest(configuration=stored)
    create.configuration.id = ""
    refusal = await refused(api.notifications.CreateEndpointConfiguration(create))
    assert "is the mask of a secret" in refusal.fields["configuration.email.password"]


async def test_a_kind_that_is_switched_off_is_not_tested_either(api: Api, hook: WebhookReceiver) -> None:
    configuration = await created(api, webhook(hook.url))
    await api.notifications.UpdateEndpoint(
        pb.UpdateEndpointRequest(endpoint=pb.Endpoint(kind="webhook", enabled=False))
    )
    request = pb.TestEndpointConfigurationRequest(id=configuration.id)
    refusal = await refused(api.notifications.TestEndpointConfiguration(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ENDPOINT_DISABLED")
    assert not hook.posted


async def test_options_are_kept_changed_and_judged(api: Api) -> None:
    """A03."""
    wanted = webhook("http://127.0.0.1:9/")
    wanted.options.CopyFrom(pb.DeliveryOptions(retry_schedule=[1, 2], rate=pb.Rate(per_second=0.5)))
    made = await created(api, wanted)
    assert made.options == wanted.options
    assert (made.health.state, made.health.reason) == (pb.HEALTH_STATE_HEALTHY, "")
    made.options.retry_schedule[:] = [7]
    made.options.ClearField("rate")
    changed = await api.notifications.UpdateEndpointConfiguration(
        pb.UpdateEndpointConfigurationRequest(configuration=made, update_mask=FieldMask(paths=["options"]))
    )
    assert changed.configuration.options == pb.DeliveryOptions(retry_schedule=[7])
    for pace in (0.0001, float("nan")):
        wanted.options.rate.per_second = pace
        refusal = await refused(created(api, wanted))
        assert list(refusal.fields) == ["configuration.options.rate.per_second"]


async def test_a_configuration_that_is_switched_off_says_so_as_its_health(api: Api) -> None:
    wanted = webhook("http://127.0.0.1:9/")
    wanted.enabled = False
    made = await created(api, wanted)
    assert (made.health.state, made.health.reason) == (pb.HEALTH_STATE_DISABLED, "SWITCHED_OFF")
