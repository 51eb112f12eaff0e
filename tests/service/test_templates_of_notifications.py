"""Texts of one's own: saved with care, previewed, rendered for each event, harmless whatever an event holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb

from tests.service.test_notifications import created, mail, settled, webhook
from tests.support.receivers import SECRET, Mailbox, WebhookReceiver
from tests.support.servers import Api, refused, serving

SLACKISH = '{"text": "[{{level}}] {{message}}", "labels": {{{labels}}}, "n": {{details.n}}}'


def with_template(configuration: pb.EndpointConfiguration, **options: Any) -> pb.EndpointConfiguration:
    body, subject = options.pop("body", ""), options.pop("subject", "")
    configuration.options.MergeFrom(pb.DeliveryOptions(**options))
    if body or subject:
        configuration.options.template.CopyFrom(pb.Template(subject=subject, body=body))
    return configuration


async def preview(api: Api, configuration: pb.EndpointConfiguration, **event: Any) -> pb.PreviewNotificationResponse:
    request = pb.PreviewNotificationRequest(configuration=configuration, event=log_pb.Event(**({"type": "a"} | event)))
    return await api.notifications.PreviewNotification(request)


def details(**fields: Any) -> Value:
    value = Value()
    value.struct_value.update(fields)
    return value


async def test_a_webhook_posts_the_rendered_body(api: Api, hook: WebhookReceiver) -> None:
    """XE12: quotes and line breaks of an event cannot break the JSON around them."""
    await created(api, with_template(webhook(hook.url), body=SLACKISH))
    nasty = 'a "quote"\nand a \\ backslash </script>'
    await api.append("a", message=nasty, details=details(n=80), labels={"team": "red"})
    (posted,) = await hook.until(1)
    assert posted.headers["content-type"] == "application/json"
    assert posted.verified() == {"text": f"[INFO] {nasty}", "labels": {"team": "red"}, "n": 80}


async def test_a_mail_has_subject_and_body_of_ones_own(api: Api, box: Mailbox) -> None:
    """XD24: a line break in a value does not become a header."""
    text = "Dear team,\n{{message}} on {{source.host}}\n"
    configuration = with_template(mail(box, "ann@example.com"), subject="{{type}}: {{message}}", body=text)
    await created(api, configuration)
    await api.append("a.b", message="disk <full>\nBcc: eve@example.com", source=log_pb.EventSource(host="h1"))
    ((recipients, message),) = await box.until(1)
    assert recipients == ["ann@example.com"]
    assert message["Subject"] == "a.b: disk <full> Bcc: eve@example.com"
    assert message["Bcc"] is None
    body = message.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n").startswith("Dear team,\ndisk <full>\nBcc: eve@example.com on h1")


async def test_a_digest_has_a_text_of_its_own(api: Api, hook: WebhookReceiver) -> None:
    configuration = with_template(
        webhook(hook.url), body='{"n": {{count}}, "of": "{{group.type}}", "ids": [{{#events}}"{{id}}",{{/events}}""]}'
    )
    configuration.options.grouping.CopyFrom(pb.Grouping(by=["type"], wait=Duration(seconds=1)))
    await created(api, configuration)
    made = [(await api.append("a")).id for _ in range(2)]
    (posted,) = await hook.until(1)
    assert posted.verified() == {"n": 2, "of": "a", "ids": [*made, ""]}


async def test_a_preview_equals_what_is_sent(api: Api, hook: WebhookReceiver) -> None:
    """Of a stored event, by a stored configuration: the body to the letter."""
    configuration = await created(api, with_template(webhook(hook.url), body=SLACKISH))
    event = await api.append("a", message="é", details=details(n=1.5))
    (posted,) = await hook.until(1)
    answer = await api.notifications.PreviewNotification(
        pb.PreviewNotificationRequest(id=configuration.id, event_id=event.id)
    )
    assert answer.body.encode() == posted.body
    assert (answer.content_type, list(answer.missing), answer.subject) == ("application/json", [], "")


async def test_a_preview_without_a_template_is_the_usual_message(api: Api, box: Mailbox) -> None:
    answer = await preview(api, webhook("http://127.0.0.1:9/"), message="m")
    assert json.loads(answer.body)["data"]["message"] == "m"
    answer = await preview(api, mail(box, "ann@example.com"), message="disk full")
    assert answer.subject == "[INFO] disk full"
    assert "disk full" in answer.body
    assert list(answer.recipients) == ["ann@example.com"]
    assert not box.mails


async def test_a_preview_names_what_is_missing(api: Api) -> None:
    configuration = with_template(webhook("http://127.0.0.1:9/"), body='"{{mesage}} {{details.nope}} {{type}}"')
    assert list((await preview(api, configuration)).missing) == ["mesage", "details.nope"]


@pytest.mark.parametrize(
    ("escape", "told"),
    [
        (pb.ESCAPE_HTML, "&lt;b&gt; *x*"),
        (pb.ESCAPE_MARKDOWN, r"<b> \*x\*"),
        (pb.ESCAPE_SLACK, "`<b> *x*`"),
        (pb.ESCAPE_URL, "%3Cb%3E%20%2Ax%2A"),
        (pb.ESCAPE_NONE, "<b> *x*"),
    ],
)
async def test_each_channel_has_its_escape(api: Api, escape: pb.Escape.ValueType, told: str) -> None:
    configuration = with_template(webhook("http://127.0.0.1:9/"), body="{{message}}|{{{message}}}", escape=escape)
    answer = await preview(api, configuration, message="<b> *x*")
    assert answer.body == f"{told}|<b> *x*"
    assert answer.content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("options", "reason", "field", "said"),
    [
        ({"body": "a\nb {{#x}}"}, "INVALID_TEMPLATE", "template.body", "line 2, column 3"),
        ({"body": "{{>x}}"}, "INVALID_TEMPLATE", "template.body", "partials"),
        ({"body": "hello {{message}}"}, "INVALID_TEMPLATE", "template.body", "can never be JSON"),
        ({"body": "[1"}, "INVALID_TEMPLATE", "template.body", "can never be JSON"),
        ({"body": "{{a"}, "INVALID_TEMPLATE", "template.body", "not closed"),
        ({"body": "{{"}, "INVALID_TEMPLATE", "template.body", "line 1, column 1"),
        ({"subject": "x"}, "INVALID_FIELD", "template.subject", "no subject"),
        ({"add_notification_payload": True}, "INVALID_FIELD", "add_notification_payload", "whole payload"),
        ({"recipients": ["a@example.com"]}, "INVALID_FIELD", "recipients", "one receiver"),
    ],
)
async def test_what_cannot_be_used_is_refused_when_it_is_saved(
    api: Api, options: dict[str, Any], reason: str, field: str, said: str
) -> None:
    """XE11: with line and column."""
    refusal = await refused(created(api, with_template(webhook("http://127.0.0.1:9/"), **options)))
    assert refusal.reason == reason
    assert said in refusal.fields[f"configuration.options.{field}"]


async def test_a_message_that_cannot_be_made_ends_alone(api: Api, hook: WebhookReceiver) -> None:
    """XD27: EXHAUSTED {RENDER}; a preview says the same before."""
    configuration = with_template(webhook(hook.url), body='{"n": {{{details}}}}')
    await created(api, configuration)
    event = await api.append("a", details=Value(string_value="no JSON"))
    fine = await api.append("b", details=details(n=1))
    assert (await hook.until(1))[0].verified() == {"n": {"n": 1}}
    (delivery,) = await settled(api, event_id=event.id)
    assert (delivery.state, delivery.reason) == (pb.DELIVERY_STATE_EXHAUSTED, "RENDER")
    assert "is not JSON when rendered" in delivery.attempts[0].error
    assert (await settled(api, event_id=fine.id))[0].state == pb.DELIVERY_STATE_DELIVERED
    refusal = await refused(preview(api, configuration, details=Value(string_value="no JSON")))
    assert (refusal.reason, "template.body" in refusal.text) == ("RENDER_FAILED", True)


@pytest.mark.parametrize("escape", [pb.ESCAPE_JSON, pb.ESCAPE_NONE])
async def test_a_message_nested_too_deep_to_be_read_ends(
    api: Api, hook: WebhookReceiver, escape: pb.Escape.ValueType
) -> None:
    """XE11: it is no JSON where JSON is due, and plain text where it is not."""
    configuration = with_template(webhook(hook.url), body="{{{message}}}", escape=escape)
    await created(api, configuration)
    event = await api.append("a", message="[" * 2000)
    (delivery,) = await settled(api, event_id=event.id)
    if escape == pb.ESCAPE_JSON:
        assert (delivery.state, delivery.reason) == (pb.DELIVERY_STATE_EXHAUSTED, "RENDER")
        refusal = await refused(preview(api, configuration, message="[" * 2000))
        assert refusal.reason == "RENDER_FAILED"
    else:
        (posted,) = await hook.until(1)
        assert posted.headers["content-type"] == "text/plain; charset=utf-8"


async def test_a_bomb_of_sections_ends_alone(api: Api, hook: WebhookReceiver) -> None:
    """XE11: the budget of a rendering is counted."""
    body = '"' + "{{#details.l}}" * 8 + "x" + "{{/details.l}}" * 8 + '"'
    configuration = with_template(webhook(hook.url), body=body)
    refusal = await refused(preview(api, configuration, details=details(l=[1] * 40)))
    assert refusal.reason == "RENDER_FAILED"
    assert "10000 steps" in refusal.text


async def test_a_mail_has_the_whole_payload_on_request(tmp_path: Path, box: Mailbox) -> None:
    """D25."""
    async with serving(tmp_path) as api:
        configuration = with_template(
            mail(box, "ann@example.com"), add_notification_payload=True, recipients=["bob@example.com"]
        )
        await created(api, configuration)
        event = await api.append("a", message="m", details=details(n=1))
        ((recipients, message),) = await box.until(1)
        assert recipients == ["bob@example.com"]
        body = message.get_body(("plain",))
        assert body is not None
        payload = json.loads(body.get_content().replace("\r\n", "\n").partition("Payload:\n")[2])
        assert payload["data"]["id"] == event.id
        assert SECRET not in body.get_content()
