"""Where alerts are shown: navigations, and the links of messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tocsin.v1 import alerting_pb2 as pb

from tests.service.test_alert_control import HOURLY, run
from tests.service.test_firing import fail
from tests.support.alerts import OTHER, alert, create, mail, struct, webhook
from tests.support.receivers import Mailbox, WebhookReceiver, plain_of
from tests.support.servers import Api, refused, serving


async def register(api: Api, path: str, type_id: str = "", consumer: str = "ops", **call: Any) -> None:
    if type_id:
        await api.alerting.RegisterNavigation(
            pb.RegisterNavigationRequest(consumer=consumer, alert_type_id=type_id, path_template=path), **call
        )
    else:
        await api.alerting.RegisterDefaultNavigation(
            pb.RegisterDefaultNavigationRequest(consumer=consumer, path_template=path), **call
        )


async def test_the_navigation_of_a_type_goes_before_the_default(tmp_path: Path) -> None:
    """KN1, KN2, KN3, KN4, KN5: once per pair, once per consumer; looked up by the alert's consumer."""
    async with serving(tmp_path, server__ui_url="https://ui.example.com/") as api:
        created = await create(api, alert(name="a b/c"))
        request = pb.GetAlertNavigationRequest(id=created.id)
        refusal = await refused(api.alerting.GetAlertNavigation(request))
        assert refusal.reason == "NAVIGATION_NOT_REGISTERED"
        await register(api, "/theirs", consumer="other")
        await register(api, "/else", ".event-absence")
        assert (await refused(api.alerting.GetAlertNavigation(request))).reason == "NAVIGATION_NOT_REGISTERED"
        await register(api, "/ops/{{alert.name}}")
        answer = await api.alerting.GetAlertNavigation(request)
        assert answer.path == "/ops/a%20b%2Fc"
        assert answer.url == "https://ui.example.com/ops/a%20b%2Fc"
        await register(api, "/thresholds/{{alert.id}}?type={{alert.alertTypeId}}&space={{spaceId}}", ".event-threshold")
        path = f"/thresholds/{created.id}?type=.event-threshold&space=admin"
        assert (await api.alerting.GetAlertNavigation(request)).path == path
        for type_id in ("", ".event-threshold"):
            refusal = await refused(register(api, "/again", type_id))
            assert (refusal.reason, refusal.code.name) == ("NAVIGATION_REGISTERED", "ALREADY_EXISTS")
        await api.alerting.DeleteNavigation(
            pb.DeleteNavigationRequest(consumer="ops", alert_type_id=".event-threshold")
        )
        assert (await api.alerting.GetAlertNavigation(request)).path == "/ops/a%20b%2Fc"
        gone = pb.DeleteNavigationRequest(consumer="ops", alert_type_id=".event-threshold")
        assert (await refused(api.alerting.DeleteNavigation(gone))).reason == "NAVIGATION_NOT_REGISTERED"
        theirs = pb.DeleteNavigationRequest(consumer="ops")
        assert (await refused(api.alerting.DeleteNavigation(theirs, metadata=OTHER))).reason == (
            "NAVIGATION_NOT_REGISTERED"
        )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("ops", "INVALID_FIELD"),
        ("//evil.example.com/", "INVALID_FIELD"),
        ("/\\evil.example.com", "INVALID_FIELD"),
        ("https://evil.example.com/", "INVALID_FIELD"),
        ("/a b", "INVALID_FIELD"),
        ("/{{{alert.name}}}", "INVALID_FIELD"),
        ("/{{&alert.name}}", "INVALID_FIELD"),
        ("/a\u2028b", "INVALID_FIELD"),
        ("/a\u202eb", "INVALID_FIELD"),
        ("/a\x7fb", "INVALID_FIELD"),
        ("/a\xa0b", "INVALID_FIELD"),
        ("/{{alert.nme}}", "INVALID_FIELD"),
        ("/{{id}}", "INVALID_FIELD"),
        ("/{{alert.name.first}}", "INVALID_FIELD"),
        ("/{{.}}", "INVALID_FIELD"),
        ("/{{^state}}x{{/state}}", "INVALID_FIELD"),
        ("/{{#alert}}", "INVALID_TEMPLATE"),
        ("/{{>x}}", "INVALID_TEMPLATE"),
    ],
)
async def test_a_path_that_could_lead_elsewhere_is_refused(api: Api, path: str, reason: str) -> None:
    refusal = await refused(register(api, path))
    assert (refusal.reason, list(refusal.fields)) == (reason, ["path_template"])


@pytest.mark.parametrize(
    "path",
    [
        "/{{spaceId}}/{{alert.alertTypeId}}/{{alert.consumer}}/{{ alert.id }}{{! a comment }}",
        "/{{#alert}}{{name}}{{#params}}{{window}}{{/params}}{{spaceId}}{{/alert}}",
        "/{{alert.params.source.types}}{{#alert.tags}}{{.}},{{/alert.tags}}{{^alert.tags}}none{{/alert.tags}}",
    ],
)
async def test_a_path_has_what_an_alert_has(api: Api, path: str) -> None:
    await register(api, path)


@pytest.mark.parametrize(
    ("ui_url", "path", "link"),
    [
        ("https://ui.example.com/", "/ops/{{alert.id}}", "https://ui.example.com/ops/ID"),
        ("https://ui.example.com/", "", "https://ui.example.com/"),
        ("", "/ops/{{alert.id}}", ""),
    ],
)
async def test_messages_link_to_where_the_alert_is_shown(
    tmp_path: Path, box: Mailbox, ui_url: str, path: str, link: str
) -> None:
    """KC8: A18, A19, KN5: the navigation, else `ui_url`, else nothing."""
    async with serving(tmp_path, server__ui_url=ui_url) as api:
        if path:
            await register(api, path)
        action = pb.Action(id=await mail(api, box), params=struct({"subject": "s", "body": "b"}))
        created = await create(api, alert(**HOURLY | {"actions": [action]}))
        await fail(api, "nginx")
        await run(api, created.id)
        ((_, message),) = await box.until(1)
        assert ("://" in plain_of(message)) == bool(link)
        assert link.replace("ID", created.id) in plain_of(message)


async def test_a_body_of_ones_own_can_have_the_link(tmp_path: Path, hook: WebhookReceiver) -> None:
    """KN5: a webhook has the link where its body asks for it, or as `url` where it has no body; previews too."""
    async with serving(tmp_path, server__ui_url="https://ui.example.com") as api:
        await register(api, "/ops/{{alert.name}}")
        hook_id = await webhook(api, hook.url)
        actions = [pb.Action(id=hook_id, params=struct({"body": "see {{{alertUrl}}}"})), pb.Action(id=hook_id)]
        created = await create(api, alert(**HOURLY | {"actions": actions}))
        await fail(api, "nginx")
        await run(api, created.id)
        link = "https://ui.example.com/ops/failures"
        bodies = [posted.body.decode() for posted in await hook.until(2)]
        assert f"see {link}" in bodies
        (whole,) = [json.loads(body) for body in bodies if body.startswith("{")]
        assert whole["data"]["url"] == link
        call = api.alerting.PreviewAlert(pb.PreviewAlertRequest(id=created.id, every_run=True))
        parts = [part async for part in call]
        assert parts[-1].HasField("done")
