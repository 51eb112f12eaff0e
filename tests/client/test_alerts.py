"""Alerts through both clients, on the real server: found, changed, muted, run, looked back at, previewed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import tocsin
from tocsin import alerts
from tocsin.v1 import alerting_pb2 as pb

HOUR = timedelta(hours=1)


def receiver(live: Any) -> str:
    """Create a receiver at which nobody listens: what it is told waits."""
    hook = tocsin.webhook("ops", "http://127.0.0.1:1/", tocsin.new_webhook_secret())
    return str(live.create_configuration(hook).id)


def hourly(live: Any, name: str = "failing", **more: Any) -> pb.Alert:
    """Create an alert of which one failure of a resource is enough; it is run by hand."""
    params = {"source": {"levels": ["error"]}, "window": "1h", "threshold": 1, "group_by": ["resource_id"]}
    created: pb.Alert = live.create_alert(tocsin.alert(name, ".event-threshold", params, interval="1h", **more))
    live.run_alert(created.id)  # in place of the first, which is at once
    return created


def fail(live: Any, resource: str) -> None:
    live.append("a.b", level="error", resource={"type": "image_tag", "id": resource})


def verdicts(execution: pb.Execution) -> dict[str, str]:
    return {one.id: pb.NotifyVerdict.Name(one.verdict).removeprefix("NOTIFY_VERDICT_") for one in execution.instances}


def test_types_are_listed(live: Any) -> None:
    (threshold,) = [found for found in live.list_alert_types() if found.id == ".event-threshold"]
    assert (threshold.producer, threshold.default_action_group_id) == ("tocsin", "default")


def test_alerts_are_found_by_all_criteria(live: Any) -> None:
    goes = receiver(live)
    first = hourly(live, "first", tags=["red", "blue"], actions=[tocsin.action(goes, body="x")])
    second = hourly(live, "second", tags=["red"], enabled=None)
    names = [found.name for found in live.find_alerts(page_size=1, sort_by="name", descending=True)]
    assert names == ["second", "first"]
    assert [found.id for found in live.find_alerts(configuration_id=goes)] == [first.id]
    assert [found.id for found in live.find_alerts(search="red blue", all_words=True)] == [first.id]
    assert [found.id for found in live.find_alerts(search="second", search_fields=["name"])] == [second.id]
    (few,) = live.find_alerts(filter='alert.name == "second"', fields=["name"])
    assert {field.name for field, _ in few.ListFields()} == {"id", "name", "alert_type_id", "consumer"}


def test_an_alert_is_changed_in_part_or_whole(live: Any) -> None:
    alert = hourly(live)
    alert.name, alert.throttle = "renamed", "5m"
    assert live.update_alert(alert, ["name"]).throttle == ""
    changed = live.update_alert(alert)
    assert (changed.name, changed.throttle) == ("renamed", "5m")
    with pytest.raises(tocsin.InvalidField):
        live.update_alert(alert, ["consumer"])


def test_a_disabled_alert_does_not_run(live: Any) -> None:
    alert = hourly(live)
    fail(live, "nginx")
    assert verdicts(live.run_alert(alert.id)) == {"nginx": "FIRST"}
    assert not live.disable_alert(alert.id).enabled
    with pytest.raises(tocsin.AlertDisabled):
        live.run_alert(alert.id)
    assert not live.get_alert_state(alert.id).alert_instances
    assert live.enable_alert(alert.id).enabled
    assert verdicts(live.run_alert(alert.id, timeout_s=5)).keys() == {"nginx"}


def test_who_is_muted_is_not_told(live: Any) -> None:
    alert = hourly(live)
    fail(live, "nginx")
    assert live.mute_alert(alert.id).mute_all
    assert verdicts(live.run_alert(alert.id)) == {"nginx": "MUTED"}
    assert not live.unmute_alert(alert.id).mute_all
    assert list(live.mute_instance(alert.id, "redis").muted_instance_ids) == ["redis"]
    fail(live, "redis")
    assert verdicts(live.run_alert(alert.id)) == {"nginx": "FIRST", "redis": "MUTED"}
    assert not live.unmute_instance(alert.id, "redis").muted_instance_ids


def test_runs_are_looked_back_at(live: Any) -> None:
    alert = hourly(live)
    fail(live, "nginx")
    run = live.run_alert(alert.id)
    found = list(live.list_executions(alert.id, page_size=1))
    assert found[0] == run
    assert len(found) > 1
    assert list(live.list_executions(alert.id, ["active"])) == [run]
    now = datetime.now(UTC)
    assert list(live.list_executions(alert.id, since=now - HOUR, before=now)) == found
    assert list(live.list_executions(alert.id, before=now - HOUR)) == []
    with pytest.raises(tocsin.NotFound):
        list(live.list_executions("nobody"))


@pytest.mark.parametrize(("since", "span_s"), [(None, 60 * 3600), (timedelta(minutes=90), 5400)])
def test_a_summary_tells_how_instances_are(live: Any, since: timedelta | None, span_s: int) -> None:
    alert = hourly(live)
    fail(live, "nginx")
    live.run_alert(alert.id)
    summary = live.summarize_alert(alert.id, since)
    assert summary.instances["nginx"].status == pb.GetAlertInstanceSummaryResponse.INSTANCE_STATUS_ACTIVE
    assert summary.status_end_date.ToSeconds() - summary.status_start_date.ToSeconds() == span_s


def test_a_summary_begins_at_a_time(live: Any) -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert live.summarize_alert(hourly(live).id, start).status_start_date.ToDatetime(UTC) == start


def test_the_navigation_of_a_type_goes_before_the_default(live: Any) -> None:
    alert = hourly(live, consumer="ops")
    with pytest.raises(tocsin.NavigationNotRegistered):
        live.get_alert_navigation(alert.id)
    live.register_navigation("ops", "/all")
    assert live.get_alert_navigation(alert.id).path == "/all"
    live.register_navigation("ops", "/checks/{{alert.id}}", ".event-threshold")
    assert live.get_alert_navigation(alert.id).path == f"/checks/{alert.id}"
    with pytest.raises(tocsin.NavigationRegistered):
        live.register_navigation("ops", "/again")
    live.delete_navigation("ops", ".event-threshold")
    assert live.get_alert_navigation(alert.id).path == "/all"
    live.delete_navigation("ops")
    with pytest.raises(tocsin.NavigationNotRegistered):
        live.delete_navigation("ops")


def test_a_preview_tells_what_would_have_been(live: Any) -> None:
    """Of an alert that is not stored and of one that is; the stream can be left before its end."""
    params = {"source": {"levels": ["error"]}, "window": "1h", "threshold": 1, "group_by": ["resource_id"]}
    told = tocsin.action(receiver(live), body="{{alertInstanceId}} fails")
    wanted = tocsin.alert("failing", ".event-threshold", params, interval="1s", throttle="1h", actions=[told])
    start = datetime.now(UTC)
    fail(live, "nginx")
    said: list[Any] = []
    while not said:  # until a run was due since then
        parts = list(live.preview_alert(wanted, start=start - timedelta(minutes=1)))
        said = [tocsin.to_python(one.params) for part in parts for one in part.run.notifications]
    assert said == [{"body": "nginx fails"}]
    assert list(live.find_alerts()) == []
    stored = hourly(live)
    span = {"start": start - 5 * HOUR, "end": start}
    parts = list(live.preview_alert(stored.id, every_run=True, **span))
    assert parts[0].started.runs == parts[-1].done.runs == sum(part.HasField("run") for part in parts) == 5
    assert sum(part.HasField("run") for part in live.preview_alert(stored.id, **span)) < 5
    with pytest.raises(tocsin.InvalidField):
        list(live.preview_alert(wanted, start=start, end=start))
    with live.preview_alert(wanted, start=start - HOUR) as left:
        assert next(iter(left)).started.runs >= 3600


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: alerts.find_request(colour="red"), TypeError, "not found by colour"),
        (lambda: alerts.find_request(search_fields="name"), TypeError, "search_fields is a list of strings"),
        (lambda: alerts.update_request(pb.Alert(), "name"), TypeError, "fields is a list of strings"),
        (lambda: alerts.executions_request("x", ["fine"]), ValueError, "each of statuses is one of"),
        (lambda: alerts.executions_request("x", since=datetime(2026, 1, 1)), ValueError, "needs a time zone"),
        (lambda: alerts.summary_request("x", datetime(2026, 1, 1)), ValueError, "needs a time zone"),
    ],
)
def test_what_means_nothing_is_refused(make: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        make()


def test_a_request_has_what_was_asked_for() -> None:
    request = alerts.find_request(sort_by="name", search="a", configuration_id="c", page_size=3)
    assert (request.sort_field, request.search, request.page_size) == ("name", "a", 3)
    assert (request.has_reference.type, request.has_reference.id) == ("endpoint_configuration", "c")
    assert not alerts.find_request().HasField("has_reference")
    assert alerts.summary_request("x", HOUR).date_start == "3600s"
