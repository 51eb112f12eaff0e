"""Alerts in the hands of people: mutes, runs by hand, what every run did, summaries, and where alerts are shown."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as notifications_pb
from tocsin_server.runtime import system_runtime

from tests.service.test_firing import fail, firing
from tests.service.test_silences import silenced
from tests.support.alerts import alert, create, struct, update, webhook
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, refused, serving

HOURLY = {"schedule": pb.Schedule(interval="1h"), "throttle": "", "params": struct({"window": "1h", "threshold": 1})}


def verdicts(execution: pb.Execution) -> dict[str, str]:
    return {one.id: pb.NotifyVerdict.Name(one.verdict).removeprefix("NOTIFY_VERDICT_") for one in execution.instances}


async def run(api: Api, alert_id: str) -> pb.Execution:
    return (await api.alerting.RunAlert(pb.RunAlertRequest(id=alert_id))).execution


async def executions(api: Api, alert_id: str, **more: Any) -> list[pb.Execution]:
    answer = await api.alerting.ListExecutions(pb.ListExecutionsRequest(id=alert_id, **more))
    return list(answer.executions)


async def made(api: Api, hook: WebhookReceiver, **changes: Any) -> pb.Alert:
    """Make an alert that runs by hand: by resource, one failure is enough, each run notifies."""
    params = struct({"window": "1h", "threshold": 1, "group_by": ["resource_id"]})
    created = await create(api, firing(await webhook(api, hook.url), **HOURLY | {"params": params} | changes))
    await run(api, created.id)  # after the first, which is at once, or in its place
    return created


async def test_a_muted_alert_runs_on_and_tells_nobody(api: Api, hook: WebhookReceiver) -> None:
    """KA11, KA13, trap 1: on a change too; what is still active is told when the mute has ended."""
    made_alert = await made(api, hook)
    muted = (await api.alerting.MuteAll(pb.MuteAllRequest(id=made_alert.id))).alert
    assert muted.mute_all
    again = (await api.alerting.MuteAll(pb.MuteAllRequest(id=made_alert.id))).alert
    assert again.update_time == muted.update_time
    await fail(api, "nginx")
    execution = await run(api, made_alert.id)
    assert verdicts(execution) == {"nginx": "MUTED"}
    assert not execution.instances[0].delivery_ids
    state = await api.alerting.GetAlertState(pb.GetAlertStateRequest(id=made_alert.id))
    assert not state.alert_instances["nginx"].meta.HasField("last_scheduled_actions")
    assert (await update(api, pb.Alert(id=made_alert.id, name="renamed"), "name")).mute_all
    assert not (await api.alerting.UnmuteAll(pb.UnmuteAllRequest(id=made_alert.id))).alert.mute_all
    execution = await run(api, made_alert.id)
    assert verdicts(execution) == {"nginx": "FIRST"}
    (posted,) = await hook.until(1)
    (delivery_id,) = execution.instances[0].delivery_ids
    assert posted.id == delivery_id


async def test_a_muted_instance_is_the_only_quiet_one(api: Api, hook: WebhookReceiver) -> None:
    """KA12, KA14: it need not exist; MuteAll keeps the list."""
    made_alert = await made(api, hook)
    for _ in range(2):
        answer = await api.alerting.MuteInstance(pb.MuteInstanceRequest(id=made_alert.id, instance_id="nginx"))
        assert list(answer.alert.muted_instance_ids) == ["nginx"]
    await fail(api, "nginx")
    await fail(api, "redis")
    assert verdicts(await run(api, made_alert.id)) == {"nginx": "MUTED", "redis": "FIRST"}
    await api.alerting.MuteAll(pb.MuteAllRequest(id=made_alert.id))
    assert verdicts(await run(api, made_alert.id)) == {"nginx": "MUTED", "redis": "MUTED"}
    unmuted = (await api.alerting.UnmuteAll(pb.UnmuteAllRequest(id=made_alert.id))).alert
    assert list(unmuted.muted_instance_ids) == ["nginx"]
    answer_un = await api.alerting.UnmuteInstance(pb.UnmuteInstanceRequest(id=made_alert.id, instance_id="nginx"))
    assert not answer_un.alert.muted_instance_ids
    assert verdicts(await run(api, made_alert.id)) == {"nginx": "FIRST", "redis": "EVERY_RUN"}


async def test_too_many_muted_instances_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_server.api.alert_runs.MUTED_MAX", 2)
    created = await create(api, alert())
    for name in ("a", "b"):
        await api.alerting.MuteInstance(pb.MuteInstanceRequest(id=created.id, instance_id=name))
    refusal = await refused(api.alerting.MuteInstance(pb.MuteInstanceRequest(id=created.id, instance_id="c")))
    assert refusal.reason == "LIMIT_REACHED"


async def test_a_silence_goes_before_a_mute_and_moves_no_clock(api: Api, hook: WebhookReceiver) -> None:
    """The order is silence, mute, throttle; what a silence withholds can be recovered by hand."""
    made_alert = await made(api, hook, throttle="1h")
    await fail(api, "nginx")
    about = log_pb.EventFilter(resource_ids=[made_alert.id], types=["system.alerting.*"])
    silence = await silenced(api, 600, filter=about)
    execution = await run(api, made_alert.id)
    assert verdicts(execution) == {"nginx": "SILENCED"}
    assert execution.instances[0].silence_id == silence.id
    (delivery_id,) = execution.instances[0].delivery_ids
    delivery = (await api.notifications.GetDelivery(notifications_pb.GetDeliveryRequest(id=delivery_id))).delivery
    assert delivery.state == notifications_pb.DELIVERY_STATE_SILENCED
    # The second is within the throttle: nothing more is kept of it.
    assert not (await run(api, made_alert.id)).instances[0].delivery_ids
    await api.alerting.MuteAll(pb.MuteAllRequest(id=made_alert.id))
    assert verdicts(await run(api, made_alert.id)) == {"nginx": "SILENCED"}
    await api.notifications.DeleteSilence(notifications_pb.DeleteSilenceRequest(id=silence.id))
    assert verdicts(await run(api, made_alert.id)) == {"nginx": "MUTED"}
    await api.alerting.UnmuteAll(pb.UnmuteAllRequest(id=made_alert.id))
    assert verdicts(await run(api, made_alert.id)) == {"nginx": "FIRST"}
    assert verdicts(await run(api, made_alert.id)) == {"nginx": "THROTTLED"}
    assert len(await hook.until(1)) == 1


async def test_executions_tell_what_every_run_did(api: Api, hook: WebhookReceiver) -> None:
    made_alert = await made(api, hook)
    await fail(api, "nginx")
    first = await run(api, made_alert.id)
    second = await run(api, made_alert.id)
    assert second.number > first.number
    assert first.status == pb.ALERT_STATUS_ACTIVE
    assert first.log_position > 0
    listed = await executions(api, made_alert.id)
    assert listed[:2] == [second, first]
    assert listed[2].status == pb.ALERT_STATUS_OK
    assert await executions(api, made_alert.id, statuses=[pb.ALERT_STATUS_OK]) == listed[2:]
    assert await executions(api, made_alert.id, before=second.start_time) == listed[1:]
    assert await executions(api, made_alert.id, since=second.start_time) == listed[:1]


async def test_executions_come_in_pages(api: Api, hook: WebhookReceiver) -> None:
    made_alert = await made(api, hook)
    await run(api, made_alert.id)
    whole, token = await executions(api, made_alert.id), ""
    paged: list[pb.Execution] = []
    while True:
        request = pb.ListExecutionsRequest(id=made_alert.id, page_size=1, page_token=token)
        answer = await api.alerting.ListExecutions(request)
        paged += answer.executions
        token = answer.next_page_token
        if not token:
            break
    assert paged == whole
    other = pb.ListExecutionsRequest(id=made_alert.id, statuses=[pb.ALERT_STATUS_OK], page_token="x")
    assert (await refused(api.alerting.ListExecutions(other))).reason == "INVALID_PAGE_TOKEN"


async def test_a_run_by_hand_says_why_it_cannot_be(api: Api, tmp_path: Path) -> None:
    created = await create(api, alert(enabled=False))
    assert (await refused(api.alerting.RunAlert(pb.RunAlertRequest(id=created.id)))).reason == "ALERT_DISABLED"
    assert (await refused(api.alerting.RunAlert(pb.RunAlertRequest(id="nobody")))).reason == "NOT_FOUND"
    async with serving(tmp_path / "off", alerting__enabled=False) as off:
        created = await create(off, alert())
        assert (await refused(off.alerting.RunAlert(pb.RunAlertRequest(id=created.id)))).reason == "ALERTING_OFF"


async def test_runs_by_hand_at_once_all_get_an_answer(api: Api, hook: WebhookReceiver) -> None:
    """Some of them the same run: it stands for all who asked before it began."""
    made_alert = await made(api, hook)
    await fail(api, "nginx")
    found = await asyncio.gather(*(run(api, made_alert.id) for _ in range(20)))
    assert {one.status for one in found} == {pb.ALERT_STATUS_ACTIVE}
    assert verdicts(found[0]).keys() == {"nginx"}


async def test_a_summary_tells_how_instances_are(tmp_path: Path, hook: WebhookReceiver) -> None:
    """KA6: status, mutes, groups and begin of each; what was active since then is there as OK."""
    ahead = [0]
    system = system_runtime()
    async with serving(tmp_path, replace(system, now=lambda: system.now() + ahead[0])) as api:
        daily = pb.Schedule(interval="1d")  # no run of its own when the clock jumps by hours
        made_alert = await made(api, hook, tags=["t"], schedule=daily)
        await fail(api, "nginx")
        first = await run(api, made_alert.id)
        await api.alerting.MuteInstance(pb.MuteInstanceRequest(id=made_alert.id, instance_id="quiet"))
        request = pb.GetAlertInstanceSummaryRequest(id=made_alert.id)
        summary = await api.alerting.GetAlertInstanceSummary(request)
        kind = pb.GetAlertInstanceSummaryResponse
        assert (summary.name, list(summary.tags), summary.alert_type_id) == ("failures", ["t"], ".event-threshold")
        assert (summary.status, summary.last_run) == (pb.ALERT_STATUS_ACTIVE, first.start_time)
        assert set(summary.instances) == {"nginx", "quiet"}
        nginx, quiet = summary.instances["nginx"], summary.instances["quiet"]
        assert (nginx.status, nginx.muted, nginx.action_group_id) == (kind.INSTANCE_STATUS_ACTIVE, False, "default")
        assert nginx.active_start_date == first.scheduled_time
        assert (quiet.status, quiet.muted) == (kind.INSTANCE_STATUS_OK, True)
        span = summary.status_end_date.ToMicroseconds() - summary.status_start_date.ToMicroseconds()
        assert span == 60 * 24 * 3600 * 1_000_000
        ahead[0] = 2 * 3600 * 1_000_000  # the window has passed the failure by
        assert verdicts(await run(api, made_alert.id)) == {"nginx": "RECOVERED"}
        summary = await api.alerting.GetAlertInstanceSummary(request)
        assert summary.instances["nginx"].status == kind.INSTANCE_STATUS_OK
        assert not summary.instances["nginx"].HasField("active_start_date")
        ahead[0] *= 2
        request.date_start = "1h"
        assert set((await api.alerting.GetAlertInstanceSummary(request)).instances) == {"quiet"}
        request.date_start = first.start_time.ToJsonString()
        assert set((await api.alerting.GetAlertInstanceSummary(request)).instances) == {"nginx", "quiet"}


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-01-02", "2026-01-02T03:04:05", "2016-12-31T23:59:60Z", "1.5h", "0s"]
)
async def test_a_date_that_is_none_is_refused(api: Api, text: str) -> None:
    """KA6; XB21: there is no leap second."""
    created = await create(api, alert())
    request = pb.GetAlertInstanceSummaryRequest(id=created.id, date_start=text)
    refusal = await refused(api.alerting.GetAlertInstanceSummary(request))
    assert f'Invalid date for parameter dateStart: "{text}"' in refusal.fields["date_start"]


async def test_a_summary_does_not_begin_in_the_future(api: Api) -> None:
    created = await create(api, alert())
    request = pb.GetAlertInstanceSummaryRequest(id=created.id, date_start="9999-12-31T23:59:59-23:00")
    assert "in the future" in (await refused(api.alerting.GetAlertInstanceSummary(request))).fields["date_start"]


async def test_a_summary_begins_where_it_is_told(api: Api) -> None:
    created = await create(api, alert())
    for text, micros in (("2026-01-02T03:04:05Z", 1767323045), ("2026-01-02T04:04:05+01:00", 1767323045)):
        request = pb.GetAlertInstanceSummaryRequest(id=created.id, date_start=text)
        summary = await api.alerting.GetAlertInstanceSummary(request)
        assert summary.status_start_date == Timestamp(seconds=micros)


async def test_errors_of_runs_are_in_executions_and_summary(tmp_path: Path) -> None:
    """XE1: the run is an error, the reason is kept."""
    async with serving(tmp_path) as api:
        created = await create(api, alert(enabled=False))
        connection = sqlite3.connect(tmp_path / "tocsin.db")
        connection.execute("UPDATE alerts SET spec = json_set(spec, '$.params.window', 'never')")
        connection.commit()
        connection.close()
        await api.alerting.EnableAlert(pb.EnableAlertRequest(id=created.id))
        execution = await run(api, created.id)
        assert (execution.status, execution.error.reason) == (pb.ALERT_STATUS_ERROR, "PARAMS")
        summary = await api.alerting.GetAlertInstanceSummary(pb.GetAlertInstanceSummaryRequest(id=created.id))
        assert summary.error_messages[-1].message == execution.error.message
        assert summary.error_messages[-1].date == execution.start_time


async def test_a_type_that_has_grown_fills_in_what_it_did_not_ask_for_before(
    tmp_path: Path, hook: WebhookReceiver
) -> None:
    """KR8: an alert of an older version runs on, and can be previewed, without being saved anew."""
    async with serving(tmp_path) as api:
        made_alert = await made(api, hook)
        connection = sqlite3.connect(tmp_path / "tocsin.db")
        new = ", ".join(f"'$.params.{name}'" for name in ("source.where", "aggregation", "missing_group", "no_data"))
        connection.execute(f"UPDATE alerts SET version = version + 1, spec = json_remove(spec, {new})")
        connection.commit()
        connection.close()
        await fail(api, "nginx")
        assert verdicts(await run(api, made_alert.id)) == {"nginx": "FIRST"}
        call = api.alerting.PreviewAlert(pb.PreviewAlertRequest(id=made_alert.id, every_run=True))
        parts = [part async for part in call]
        assert (parts[-1].done.runs, parts[-1].done.errors) == (24, 0)


async def test_every_run_is_an_event_where_it_is_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, alerting__log_runs=True) as api:
        created = await create(api, alert())
        execution = await run(api, created.id)
        executed = log_pb.EventFilter(types=["system.alerting.executed"], resource_ids=[created.id])
        listed = (await api.events.ListEvents(log_pb.ListEventsRequest(filter=executed))).events
        details = listed[0].details.struct_value
        assert (details["run_number"], details["status"], details["told"]) == (execution.number, "OK", 0)
