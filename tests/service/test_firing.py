"""Alerts that run in a real server: they fire, notify, recover, and end when they are switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as notifications_pb

from tests.support.alerts import ALERT_EVENTS, OTHER, alert, create, find, mail, struct, update, webhook
from tests.support.receivers import Mailbox, WebhookReceiver
from tests.support.servers import Api, Subscriber, refused, serving


async def fail(api: Api, resource: str) -> None:
    await api.append(
        "user.image.analysis_failed",
        level=log_pb.LEVEL_ERROR,
        resource=log_pb.EventResource(type="image_tag", id=resource),
    )


def firing(hook_id: str, **changes: Any) -> pb.Alert:
    """An alert that looks at the last two seconds each second, by resource."""
    params = {
        "source": {"event_types": ["user.image.*"], "levels": ["error"]},
        "window": "2s",
        "group_by": ["resource_id"],
        "threshold": 2,
    }
    fields: dict[str, Any] = {
        "schedule": pb.Schedule(interval="1s"),
        "throttle": "1h",
        "params": struct(params),
        "actions": [
            pb.Action(id=hook_id, params=struct({"body": "{{alertInstanceId}}: {{{context.reason}}}"})),
            pb.Action(group="recovered", id=hook_id, params=struct({"body": "{{alertInstanceId}} is fine"})),
        ],
    }
    return alert(**fields | changes)


async def test_an_alert_fires_notifies_once_and_recovers(api: Api, hook: WebhookReceiver) -> None:
    """KC1, KC2, KE19, KI9: The main job: grouped by resource, a rendered message, one notification, one recovery."""
    seen = Subscriber(api, filter=ALERT_EVENTS)
    await seen.until(step="caught_up")
    created = await create(api, firing(await webhook(api, hook.url)))
    await seen.until(1)  # the first run is at once: PENDING became OK
    assert seen.events[0].type == "system.alerting.status_changed"
    await fail(api, "nginx:latest")
    await fail(api, "nginx:latest")
    await fail(api, "redis:7")
    (fired,) = await hook.until(1)
    assert fired.body.decode() == "nginx:latest: 2 events in 2s with resource_id nginx:latest: >= 2"
    fired_headers = fired.headers
    state = await api.alerting.GetAlertState(pb.GetAlertStateRequest(id=created.id))
    recovered = (await hook.until(2))[1]
    assert recovered.body.decode() == "nginx:latest is fine"
    assert recovered.headers["webhook-id"] != fired_headers["webhook-id"]
    if state.alert_instances:  # the run after may have ended it already
        instance = state.alert_instances["nginx:latest"]
        assert instance.action_group == "default"
        assert instance.meta.last_scheduled_actions.group == "default"
    await seen.until(5)
    kinds = [event.type.removeprefix("system.alerting.") for event in seen.events]
    assert kinds == ["status_changed", "new_instance", "status_changed", "recovered_instance", "status_changed"]
    assert {event.resource.id for event in seen.events} == {created.id}
    assert {event.source.service for event in seen.events} == {"tocsin"}
    told = f"Alert {created.name!r}: instance nginx:latest is active (Threshold met): "
    assert seen.events[1].message == told + "2 events in 2s with resource_id nginx:latest: >= 2"
    details = json_format.MessageToDict(seen.events[3].details)
    assert details["instance_id"] == "nginx:latest"
    deliveries = await api.notifications.ListDeliveries(notifications_pb.ListDeliveriesRequest(alert_id=created.id))
    assert [d.alert.action_group for d in deliveries.deliveries] == ["recovered", "default"]
    await seen.close()


async def test_a_message_by_mail_is_escaped_as_the_source_does(api: Api, box: Mailbox) -> None:
    """KM9: HTML by default, neither with three braces nor with an ampersand; numbers as JSON writes them."""
    action = pb.Action(
        id=await mail(api, box),
        params=struct(
            {
                "to": ["destination@example.com"],
                "subject": "{{{alertName}}} {{context.count}}",
                "body": "{{alertName}} {{{alertName}}} {{&alertName}} {{spaceId}} {{#tags}}<{{.}}>{{/tags}}",
            }
        ),
    )
    params = struct({"window": "1m", "threshold": 0})
    await create(api, alert(name='a "b" <c>', tags=["x", "y"], params=params, actions=[action]))
    ((recipients, message),) = await box.until(1)
    assert recipients == ["destination@example.com"]
    assert message["subject"] == 'a "b" <c> 0'
    body = message.get_body(("plain",))
    assert body is not None
    assert 'a &quot;b&quot; &lt;c&gt; a "b" <c> a "b" <c> admin <x><y>' in body.get_content()


async def test_alerts_survive_a_restart(tmp_path: Path, hook: WebhookReceiver) -> None:
    """What is due after a restart runs; what is active stays known, so nobody is told twice."""
    params = struct({"window": "1h", "threshold": 1, "source": {"event_types": ["user.*"]}})
    async with serving(tmp_path) as before:
        await before.append("user.thing.happened")
        schedule = pb.Schedule(interval="1s")
        hook_id = await webhook(before, hook.url)
        actions = [pb.Action(id=hook_id, params=struct({"body": "once"}))]
        created = await create(before, alert(schedule=schedule, throttle="1d", params=params, actions=actions))
        await hook.until(1)
    async with serving(tmp_path) as after:
        seen = Subscriber(after, filter=log_pb.EventFilter(resource_ids=[created.id]))
        state = await after.alerting.GetAlertState(pb.GetAlertStateRequest(id=created.id))
        assert list(state.alert_instances) == ["*"]
        await after.alerting.DisableAlert(pb.DisableAlertRequest(id=created.id))
        await seen.until(1)
        assert seen.events[0].type == "system.alerting.recovered_instance"
        assert len(hook.posted) == 1
        await seen.close()


async def test_a_changed_schedule_runs_at_once(api: Api) -> None:
    seen = Subscriber(api, filter=ALERT_EVENTS)
    await seen.until(step="caught_up")
    created = await create(api, alert(params=struct({"window": "1m", "threshold": 0})))
    await seen.until(2)
    await update(api, pb.Alert(id=created.id, params=struct({"window": "1m", "threshold": 9})), "params")
    await update(api, pb.Alert(id=created.id, schedule=pb.Schedule(interval="2h")), "schedule")
    await seen.until(4)
    assert seen.events[2].type == "system.alerting.recovered_instance"
    await seen.close()


async def test_disable_and_enable(api: Api) -> None:
    """KA5, KA9, KA10: no-ops when it is so already; the state is empty while it is disabled."""
    seen = Subscriber(api, filter=ALERT_EVENTS)
    await seen.until(step="caught_up")
    created = await create(api, alert(params=struct({"window": "1m", "threshold": 0})))
    await seen.until(2)
    state = await api.alerting.GetAlertState(pb.GetAlertStateRequest(id=created.id))
    assert list(state.alert_instances) == ["*"]
    assert state.HasField("previous_started_at")
    disabled = (await api.alerting.DisableAlert(pb.DisableAlertRequest(id=created.id))).alert
    assert not disabled.enabled
    again = (await api.alerting.DisableAlert(pb.DisableAlertRequest(id=created.id))).alert
    assert again == disabled
    state = await api.alerting.GetAlertState(pb.GetAlertStateRequest(id=created.id))
    assert state == pb.GetAlertStateResponse(alert_type_state=Struct())
    enabled = (await api.alerting.EnableAlert(pb.EnableAlertRequest(id=created.id))).alert
    assert enabled.enabled
    await seen.until(5)
    kinds = [event.type.removeprefix("system.alerting.") for event in seen.events]
    assert kinds[:4] == ["new_instance", "status_changed", "recovered_instance", "new_instance"]
    again = (await api.alerting.EnableAlert(pb.EnableAlertRequest(id=created.id))).alert
    assert again.update_time == enabled.update_time
    await seen.close()


async def test_a_deleted_alert_is_gone(api: Api) -> None:
    """KC3, KA2: its instances end with a reason."""
    seen = Subscriber(api, filter=ALERT_EVENTS)
    await seen.until(step="caught_up")
    created = await create(api, alert(params=struct({"window": "1m", "threshold": 0})))
    await seen.until(2)
    assert (await api.alerting.DeleteAlert(pb.DeleteAlertRequest(id=created.id))).id == created.id
    await seen.until(3)
    assert json_format.MessageToDict(seen.events[2].details)["reason"] == "deleted"
    assert (await refused(api.alerting.GetAlert(pb.GetAlertRequest(id=created.id)))).reason == "NOT_FOUND"
    assert (await find(api)).total_size == 0
    await seen.close()


async def test_an_alert_counts_its_own_accounts_events(api: Api) -> None:
    """P5: even of the account admin, whose own selectors may be global."""
    await api.append("user.thing.happened", metadata=OTHER)
    seen = Subscriber(api, filter=ALERT_EVENTS)
    await seen.until(step="caught_up")
    params = struct({"window": "1h", "threshold": 1, "source": {"event_types": ["user.*"]}})
    await create(api, alert(params=params))
    await seen.until(1)
    assert json_format.MessageToDict(seen.events[0].details)["status"] == "OK"
    await seen.close()


async def test_alerts_that_are_switched_off_do_not_run(tmp_path: Path) -> None:
    """alerting.enabled = false: everything answers, nothing runs."""
    async with serving(tmp_path, alerting__enabled=False) as api:
        created = await create(api, alert())
        got = (await api.alerting.GetAlert(pb.GetAlertRequest(id=created.id))).alert
        assert got.execution_status.status == pb.ALERT_STATUS_PENDING
