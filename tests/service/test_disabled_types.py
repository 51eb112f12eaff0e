"""Alert types that are switched off, and plug-ins that cannot be used, on a whole server."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import event_log_pb2 as log_pb

from tests.support.alerts import ALERT_EVENTS, OTHER, alert, create, struct, update, webhook
from tests.support.plugin_packages import install
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, Subscriber, refused, serving


async def changes(api: Api, count: int) -> list[str]:
    """Wait until the log tells so many changes of status, and give them."""
    seen = Subscriber(api, beginning=log_pb.SubscribeRequest.Beginning(), filter=ALERT_EVENTS)
    await seen.until(count)
    await seen.close()
    return [event.details.struct_value.fields["status"].string_value for event in seen.events]


async def test_a_type_that_is_switched_off(tmp_path: Path) -> None:
    """KC9: create and enable are refused, a run is an error; to disable still works."""
    async with serving(tmp_path) as api:
        running = await create(api, alert(schedule=pb.Schedule(interval="1s")))
        paused = await create(api, alert(enabled=False))
        assert await changes(api, 1) == ["OK"]
    async with serving(tmp_path, alerting__disabled_types=[".event-threshold", "nobodys"]) as api:
        listed = (await api.alerting.ListAlertTypes(pb.ListAlertTypesRequest())).alert_types
        assert {one.id: one.enabled for one in listed} == {
            ".event-absence": True,
            ".event-spike": True,
            ".event-threshold": False,
        }
        for refusal in (
            await refused(api.alerting.CreateAlert(pb.CreateAlertRequest(alert=alert()))),
            await refused(api.alerting.EnableAlert(pb.EnableAlertRequest(id=paused.id))),
        ):
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ALERT_TYPE_DISABLED")
            assert refusal.metadata == {"alert_type_id": ".event-threshold"}
        assert await changes(api, 2) == ["OK", "ERROR"]
        error = (await api.alerting.GetAlert(pb.GetAlertRequest(id=running.id))).alert.execution_status.error
        assert (error.reason, error.message) == (
            "DISABLED",
            'Alert type ".event-threshold" is not registered or disabled.',
        )
        await api.alerting.EnableAlert(pb.EnableAlertRequest(id=running.id))  # it is enabled: nothing to do
        await api.alerting.DisableAlert(pb.DisableAlertRequest(id=running.id))
    async with serving(tmp_path) as api:
        await api.alerting.EnableAlert(pb.EnableAlertRequest(id=paused.id))


@pytest.mark.parametrize("enabled", [True, False])
async def test_an_alert_of_a_type_that_is_off_can_be_changed(
    tmp_path: Path, hook: WebhookReceiver, enabled: bool
) -> None:
    """KC9: one by one and all at once; params are checked as if the type were on, and nothing is enabled by it."""
    async with serving(tmp_path) as api:
        created = await create(api, alert(enabled=enabled))
        hook_id = await webhook(api, hook.url)
    async with serving(tmp_path, alerting__disabled_types=[".event-threshold"]) as api:
        assert (await update(api, pb.Alert(id=created.id, name="renamed"), "name")).name == "renamed"
        action = pb.Action(id=hook_id, params=struct({"body": "{{alertName}}"}))
        changed = await update(api, pb.Alert(id=created.id, actions=[action]), "actions")
        assert [(one.group, one.id) for one in changed.actions] == [("default", hook_id)]
        params = struct({"window": "10m", "threshold": 7})
        changed = await update(api, pb.Alert(id=created.id, params=params), "params")
        assert changed.params["threshold"] == 7
        whole = await update(api, alert(id=created.id, name="whole", schedule=pb.Schedule(interval="2h")))
        assert (whole.name, whole.schedule.interval, list(whole.actions)) == ("whole", "2h", [])
        refusal = await refused(update(api, pb.Alert(id=created.id, params=struct({"window": "1x"})), "params"))
        assert (refusal.reason, list(refusal.fields)) == ("INVALID_FIELD", ["alert.params.window"])
        refusal = await refused(
            update(api, pb.Alert(id=created.id, actions=[pb.Action(group="x", id=hook_id)]), "actions")
        )
        assert list(refusal.fields) == ["alert.actions[0].group"]
        kept = (await api.alerting.GetAlert(pb.GetAlertRequest(id=created.id))).alert
        assert (kept.name, kept.enabled) == ("whole", enabled)


async def test_a_plugin_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KR1, KC3: the server runs, says what is wrong to its admin alone, and the rest is there."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "acme-broken", "import nothing_of_that_name")
    install(site, "acme-disk", "TYPE = spec('acme.disk', translations={'de': plugins.Names('Platte')})")
    monkeypatch.syspath_prepend(str(site))
    async with serving(tmp_path / "data") as api:
        listed = await api.alerting.ListAlertTypes(pb.ListAlertTypesRequest(), metadata=(("accept-language", "de"),))
        (failed,) = listed.failed
        assert (failed.entry_point, failed.distribution) == ("one", "acme-broken")
        assert failed.error == "ModuleNotFoundError: No module named 'nothing_of_that_name'"
        (disk,) = [one for one in listed.alert_types if one.id == "acme.disk"]
        assert (disk.name, disk.producer, disk.enabled) == ("Platte", "acme-disk", True)
        theirs = await api.alerting.ListAlertTypes(pb.ListAlertTypesRequest(), metadata=OTHER)
        assert list(theirs.failed) == []
        assert "acme.disk" in {one.id for one in theirs.alert_types}
        await create(api, alert(alert_type_id="acme.disk", params=Struct()))
        assert await changes(api, 1) == ["OK"]
