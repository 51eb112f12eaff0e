"""Webhooks in depth: keys and their succession, formats, headers, credentials, certificates."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from standardwebhooks import Webhook, WebhookVerificationError
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb

from tests.service.test_notifications import EVERYTHING, created, settled
from tests.support.authority import Authority
from tests.support.receivers import SECRET, Posted, WebhookReceiver
from tests.support.servers import Api, refused

OTHER_SECRET = "whsec_" + base64.b64encode(b"n" * 32).decode()
SEED = bytes(range(32))
PRIVATE = "whsk_" + base64.b64encode(SEED).decode()


def webhook(url: str, **connection: Any) -> pb.EndpointConfiguration:
    sent = pb.WebhookConnection(**({"url": url, "secret": SECRET} | connection))
    return pb.EndpointConfiguration(name="hook", webhook=sent, selectors=[EVERYTHING])


async def changed(api: Api, old: pb.EndpointConfiguration, **connection: Any) -> pb.EndpointConfiguration:
    """Change fields of a connection; secrets are written back as they are shown."""
    sent = pb.EndpointConfiguration(id=old.id, webhook=old.webhook)
    for name, value in connection.items():
        field = getattr(sent.webhook, name)
        field.CopyFrom(value) if hasattr(field, "CopyFrom") else setattr(sent.webhook, name, value)
    request = pb.UpdateEndpointConfigurationRequest(configuration=sent, update_mask=FieldMask(paths=["webhook"]))
    return (await api.notifications.UpdateEndpointConfiguration(request)).configuration


def verifies(posted: Posted, secret: str) -> bool:
    try:
        Webhook(secret).verify(posted.body, posted.headers)
    except WebhookVerificationError:
        return False
    return True


async def test_two_secrets_sign_while_both_hold(api: Api, hook: WebhookReceiver) -> None:
    """The old secret signs for 24 hours more; it is never shown, and a second change drops it."""
    configuration = await created(api, webhook(hook.url))
    after = await changed(api, configuration, secret=OTHER_SECRET)
    until = after.webhook.previous_secret_expire_time.ToDatetime(UTC)
    assert timedelta(hours=23) < until - datetime.now(UTC) < timedelta(hours=25)
    await api.append("a")
    (posted,) = await hook.until(1)
    assert verifies(posted, SECRET)
    assert verifies(posted, OTHER_SECRET)
    assert len(posted.headers["webhook-signature"].split()) == 2
    # A change of something else keeps both.
    renamed = await changed(api, after, url=f"{hook.url}/moved")
    assert renamed.webhook.previous_secret_expire_time == after.webhook.previous_secret_expire_time
    third = "whsec_" + base64.b64encode(b"3" * 24).decode()
    await changed(api, renamed, secret=third)
    await api.append("b")
    last = (await hook.until(2))[1]
    assert [verifies(last, s) for s in (SECRET, OTHER_SECRET, third)] == [False, True, True]


async def test_an_overlap_of_zero_drops_the_old_secret_at_once(api: Api, hook: WebhookReceiver) -> None:
    configuration = await created(api, webhook(hook.url))
    after = await changed(api, configuration, secret=OTHER_SECRET, secret_overlap=Duration())
    assert not after.webhook.HasField("previous_secret_expire_time")
    await api.append("a")
    (posted,) = await hook.until(1)
    assert (verifies(posted, SECRET), verifies(posted, OTHER_SECRET)) == (False, True)


async def test_an_overlap_ends(api: Api, hook: WebhookReceiver) -> None:
    """The time of the attempt decides, not that of the event."""
    configuration = await created(api, webhook(hook.url))
    after = await changed(api, configuration, secret=OTHER_SECRET, secret_overlap=Duration(nanos=1_000_000))
    assert after.webhook.previous_secret_expire_time.ToDatetime(UTC) < datetime.now(UTC)
    await api.append("a")
    (posted,) = await hook.until(1)
    assert (verifies(posted, SECRET), verifies(posted, OTHER_SECRET)) == (False, True)


async def test_a_private_key_signs_too(api: Api, hook: WebhookReceiver) -> None:
    """Standard Webhooks `v1a`: Ed25519 over id, timestamp and body; libraries for `v1` pass it over."""
    configuration = await created(api, webhook(hook.url, private_key=PRIVATE))
    assert configuration.webhook.private_key == "****" + PRIVATE[-4:]
    await api.append("a")
    (posted,) = await hook.until(1)
    assert verifies(posted, SECRET)
    (signature,) = [s for s in posted.headers["webhook-signature"].split() if s.startswith("v1a,")]
    signed = f"{posted.id}.{posted.headers['webhook-timestamp']}.".encode() + posted.body
    public = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
    public.verify(base64.b64decode(signature.removeprefix("v1a,")), signed)


async def test_a_cloud_event_on_request(api: Api, hook: WebhookReceiver) -> None:
    """D28: every payload names its source, in either format."""
    await created(api, webhook(hook.url, format=pb.WEBHOOK_FORMAT_CLOUDEVENTS))
    event = await api.append(
        "user.scan", source=log_pb.EventSource(service="scan ner"), resource=log_pb.EventResource(id="nginx"),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", correlation_id="c",
    )  # fmt: skip
    (posted,) = await hook.until(1)
    assert posted.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    found = posted.verified()
    data = found.pop("data")
    assert (data["id"], data["source"]["service"]) == (event.id, "scan ner")
    assert found == {
        "specversion": "1.0",
        "id": event.id,
        "source": "/accounts/admin/services/scan%20ner",
        "type": "user.scan",
        "subject": "nginx",
        "time": found["time"],
        "datacontenttype": "application/json",
        "traceparent": event.traceparent,
        "correlationid": "c",
    }


async def test_headers_and_credentials_of_ones_own(api: Api, hook: WebhookReceiver) -> None:
    first = await created(api, webhook(hook.url, headers={"X-Team": "red"}, username="ann", password="p:w"))
    assert (first.webhook.password, dict(first.webhook.headers)) == ("****", {"X-Team": "red"})
    await api.append("a")
    (posted,) = await hook.until(1)
    assert posted.headers["x-team"] == "red"
    assert posted.headers["authorization"] == "Basic " + base64.b64encode(b"ann:p:w").decode()
    await changed(api, first, username="", password="", bearer_token="t0ken")
    await api.append("b")
    assert (await hook.until(2))[1].headers["authorization"] == "Bearer t0ken"


async def test_a_password_does_not_move_to_another_url(api: Api, hook: WebhookReceiver) -> None:
    """The signing secret, which is never sent, may."""
    first = await created(api, webhook(hook.url, username="ann", password="p" * 16))
    refusal = await refused(changed(api, first, url=f"{hook.url}/other"))
    assert list(refusal.fields) == ["configuration.webhook.password"]
    moved = await changed(api, first, url=f"{hook.url}/other", password="q" * 16)
    assert moved.webhook.url.endswith("/other")


@pytest.mark.parametrize(
    ("connection", "field"),
    [
        ({"headers": {"Content-Length": "1"}}, "headers.Content-Length"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "headers.Transfer-Encoding"),
        ({"headers": {"Host": "x"}}, "headers.Host"),
        ({"headers": {"Authorization": "x"}}, "headers.Authorization"),
        ({"headers": {"webhook-id": "x"}}, "headers.webhook-id"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "headers.X-A"),
        ({"headers": {"X A": "a"}}, "headers.X A"),
        ({"bearer_token": "a\r\nb"}, "bearer_token"),
        ({"bearer_token": "t", "username": "u"}, "bearer_token"),
        ({"password": "p"}, "username"),
        ({"username": "a:b", "password": "p"}, "username"),
        ({"private_key": "whsk_AAAA"}, "private_key"),
        ({"private_key": SECRET}, "private_key"),
        ({"ca_certificate": "no certificate"}, "ca_certificate"),
        ({"secret_overlap": Duration(seconds=604_801)}, "secret_overlap"),
    ],
)
async def test_what_cannot_be_sent_is_refused(api: Api, connection: dict[str, Any], field: str) -> None:
    """XD23: no header of the user's frames, signs or authorises a request, and none ends early."""
    refusal = await refused(created(api, webhook("http://127.0.0.1:9/", **connection)))
    assert f"configuration.webhook.{field}" in refusal.fields


@pytest.mark.parametrize(
    ("connection", "field", "said"),
    [
        ({"headers": {"Authorization": "x"}}, "headers.Authorization", "bearer_token"),
        ({"secret_overlap": Duration(seconds=604_801)}, "secret_overlap", "0 s to 7 days"),
        ({"url": "ftp://example.org/"}, "url", "is not an http or https URL"),
        ({"url": "https://example.org/a b"}, "url", "without spaces"),
    ],
)
async def test_a_refusal_says_what_is_wanted(api: Api, connection: dict[str, Any], field: str, said: str) -> None:
    wanted = webhook("http://127.0.0.1:9/")
    wanted.webhook.MergeFrom(pb.WebhookConnection(**connection))
    refusal = await refused(created(api, wanted))
    assert said in refusal.fields[f"configuration.webhook.{field}"]


@asynccontextmanager
async def protected(folder: Path, host: str) -> AsyncIterator[tuple[str, str, list[bytes]]]:
    """Run an HTTPS receiver with a certificate for a host; give its URL, its authority in PEM, and its bodies."""
    authority = Authority(folder)
    context = authority.context(host)
    bodies: list[bytes] = []

    async def handle(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}/", authority.pem, bodies
    await runner.cleanup()


async def test_a_certificate_of_ones_own_authority(api: Api, tmp_path: Path) -> None:
    """XD22: trusted where it is given, refused where it is not, and for no other host."""
    async with protected(tmp_path, "127.0.0.1") as (url, ca, bodies):
        await created(api, webhook(url, ca_certificate=ca))
        event = await api.append("a")
        (delivery,) = await settled(api)
        assert delivery.state == pb.DELIVERY_STATE_DELIVERED
        assert json.loads(bodies[0])["data"]["id"] == event.id
        test = pb.TestEndpointConfigurationRequest(configuration=webhook(url))
        answer = await api.notifications.TestEndpointConfiguration(test)
        assert not answer.delivered
        assert answer.attempt.error_class == pb.ERROR_CLASS_TLS_ERROR
    async with protected(tmp_path, "127.0.0.2") as (url, ca, bodies):
        test = pb.TestEndpointConfigurationRequest(configuration=webhook(url, ca_certificate=ca))
        answer = await api.notifications.TestEndpointConfiguration(test)
        assert (answer.delivered, answer.attempt.error_class) == (False, pb.ERROR_CLASS_TLS_ERROR)
        assert not bodies


async def test_a_status_decides_whatever_the_body_says(api: Api, hook: WebhookReceiver) -> None:
    """XD26: a webhook is taken with 2xx; the body that says otherwise is kept for people."""
    hook.answer = lambda posted: web.json_response({"ok": False, "error": "channel_not_found"})
    await created(api, webhook(hook.url))
    await api.append("a")
    (delivery,) = await settled(api)
    assert delivery.state == pb.DELIVERY_STATE_DELIVERED
    assert "channel_not_found" in delivery.attempts[0].response_excerpt


async def test_a_program_gets_every_property(api: Api, hook: WebhookReceiver) -> None:
    """A08, D26: JSON with whatever the event has, structures as structures."""
    details: dict[str, Any] = {"scan": {"id": "s1", "failures": 3, "controls": ["a", "b"]}, "at": "2026-01-02T03:04Z"}
    event = log_pb.Event(type="com.ibm.cloud.compliance.posture", subtype="posture-scan-completed")
    event.details.struct_value.update(details)
    await created(api, webhook(hook.url))
    await api.events.AppendEvent(log_pb.AppendEventRequest(event=event))
    (posted,) = await hook.until(1)
    payload = posted.verified()
    assert (payload["type"], payload["data"]["subtype"]) == (event.type, event.subtype)
    assert payload["data"]["details"] == details
