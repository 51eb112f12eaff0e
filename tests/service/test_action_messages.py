"""What actions of alerts send: values made harmless for where they stand, and what cannot be sent at all."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import notifications_pb2 as notifications_pb
from tocsin.v1 import system_pb2

from tests.service.test_alert_control import HOURLY, run
from tests.service.test_firing import fail, firing
from tests.support.alerts import create, struct, webhook
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api

PARAMS = struct({"window": "1h", "threshold": 1, "group_by": ["resource_id"]})
NASTY = 'a "quoted"\nline \\ <b>'


async def acting(api: Api, hook: WebhookReceiver, escape: Any = 0, **params: Any) -> tuple[str, str]:
    """Make an alert with one action; give its id and that of the receiver's configuration."""
    receiver = await webhook(api, hook.url)
    actions = [pb.Action(id=receiver, params=struct(params), escape=escape)]
    created = await create(api, firing(receiver, **HOURLY | {"params": PARAMS, "actions": actions}))
    assert created.actions[0].escape == escape
    await run(api, created.id)
    return created.id, receiver


async def deliveries(api: Api, receiver: str, state: notifications_pb.DeliveryState.ValueType) -> list[Any]:
    request = notifications_pb.ListDeliveriesRequest(configuration_id=receiver, states=[state])
    return list((await api.notifications.ListDeliveries(request)).deliveries)


@pytest.mark.parametrize(
    ("escape", "expected"),
    [
        (notifications_pb.ESCAPE_JSON, json.dumps(NASTY)[1:-1]),
        (notifications_pb.ESCAPE_UNSPECIFIED, "a &quot;quoted&quot;\nline \\ &lt;b&gt;"),
        (notifications_pb.ESCAPE_NONE, NASTY),
        (notifications_pb.ESCAPE_URL, "a%20%22quoted%22%0Aline%20%5C%20%3Cb%3E"),
    ],
)
async def test_a_value_is_made_harmless_for_where_it_stands(
    api: Api, hook: WebhookReceiver, escape: notifications_pb.Escape.ValueType, expected: str
) -> None:
    """XE12: as the action says; HTML where it says nothing, as the source has it."""
    alert_id, _ = await acting(api, hook, escape, body='"{{alertInstanceId}}"')
    await fail(api, NASTY)
    await run(api, alert_id)
    (posted,) = await hook.until(1)
    assert posted.body.decode() == f'"{expected}"'
    if escape == notifications_pb.ESCAPE_JSON:
        assert json.loads(posted.body) == NASTY
        assert posted.headers["content-type"] == "application/json"


async def test_a_body_that_is_to_be_json_and_is_none_is_not_sent(api: Api, hook: WebhookReceiver) -> None:
    """XE12: what is rendered is read again."""
    alert_id, receiver = await acting(api, hook, notifications_pb.ESCAPE_JSON, body='{"text": {{alertInstanceId}}}')
    await fail(api, "nginx")
    (instance,) = (await run(api, alert_id)).instances
    (ended,) = await deliveries(api, receiver, notifications_pb.DELIVERY_STATE_EXHAUSTED)
    assert [ended.id] == list(instance.delivery_ids)
    assert ended.reason == "RENDER"
    assert hook.posted == []


async def test_others_are_answered_while_a_megabyte_of_templates_is_read(api: Api, hook: WebhookReceiver) -> None:
    """XE11: all of them within their bounds, in one call."""
    receiver = await webhook(api, hook.url)
    template = "{{a.b}} " * 1200
    actions = [
        pb.Action(id=receiver, params=struct({"body": [f"{template}{n}/{m}" for m in range(6)]})) for n in range(16)
    ]
    creating = asyncio.create_task(create(api, firing(receiver, **HOURLY | {"params": PARAMS, "actions": actions})))
    answered = 0
    while not creating.done():
        await api.system.GetInfo(system_pb2.GetInfoRequest())
        answered += 1
    assert len((await creating).actions) == 16
    assert answered > 20


@pytest.mark.parametrize("resource", ["x\ny", "é", "x" * 1024])
async def test_a_header_that_cannot_be_is_no_fault_of_the_receiver(
    api: Api, hook: WebhookReceiver, resource: str
) -> None:
    """XE12: whoever writes events cannot smuggle headers in, nor have a receiver held for a failing one."""
    alert_id, receiver = await acting(api, hook, body="b", headers={"x-resource": "r-{{{alertInstanceId}}}"})
    request = notifications_pb.WatchDeliveriesRequest(
        configuration_id=receiver, states=[notifications_pb.DELIVERY_STATE_EXHAUSTED]
    )
    watching: Any = api.notifications.WatchDeliveries(request)
    assert not (await watching.read()).deliveries  # what there is as it begins
    await fail(api, resource)
    await run(api, alert_id)
    (ended,) = (await watching.read()).deliveries
    watching.cancel()
    assert (ended.reason, hook.posted) == ("RENDER", [])
    get = notifications_pb.GetEndpointConfigurationRequest(id=receiver)
    found = (await api.notifications.GetEndpointConfiguration(get)).configuration
    assert found.health.state == notifications_pb.HEALTH_STATE_HEALTHY
    await fail(api, "nginx")
    await run(api, alert_id)
    (posted,) = await hook.until(1)
    assert posted.headers["x-resource"] == "r-nginx"
