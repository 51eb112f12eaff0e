"""Alerting through a real server: every RPC, what it answers and what it refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import notifications_pb2 as notifications_pb

from tests.support.alerts import OTHER, alert, create, find, struct, update, webhook
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, refused


async def test_alert_types_are_listed(api: Api) -> None:
    """KC3, KA7, KR3 to KR7: what a user needs to write an alert."""
    listed = (await api.alerting.ListAlertTypes(pb.ListAlertTypesRequest())).alert_types
    (threshold,) = [found for found in listed if found.id == ".event-threshold"]
    assert threshold.producer == "tocsin"
    assert threshold.enabled
    assert [group.id for group in threshold.action_groups] == ["default", "warning", "critical", "no_data"]
    assert threshold.default_action_group_id == "default"
    assert threshold.recovery_action_group.id == "recovered"
    assert "group.resource_id" in {variable.name for variable in threshold.action_variables.context}
    assert json_format.MessageToDict(threshold.params_schema)["required"] == ["window"]


async def test_create_answers_what_get_answers(api: Api, hook: WebhookReceiver) -> None:
    """KC3, KC7, KA1, KA4: defaults are filled in; what only the server sets is ignored."""
    action = pb.Action(id=await webhook(api, hook.url), params=struct({"body": {"n": [1, "{{x}}"]}}))
    wanted = alert(tags=["t"], throttle="10m", actions=[action], enabled=False, created_by="me", account="x")
    wanted.ClearField("schedule")
    created = await create(api, wanted)
    assert (created.account, created.created_by, created.schedule.interval) == ("admin", "admin", "1m")
    assert created.actions[0].group == "default"
    assert created.execution_status.status == pb.ALERT_STATUS_PENDING
    assert created.HasField("enabled")
    assert not created.enabled
    assert json_format.MessageToDict(created.params)["comparator"] == ">="
    assert created.create_time == created.update_time
    got = await api.alerting.GetAlert(pb.GetAlertRequest(id=created.id))
    assert got.alert == created
    # What was read can be sent back.
    sent_back = pb.UpdateAlertRequest(alert=got.alert)
    updated = (await api.alerting.UpdateAlert(sent_back)).alert
    updated.update_time.CopyFrom(created.update_time)
    assert updated == created


async def test_the_same_request_id_answers_the_same_alert(api: Api) -> None:
    """P4."""
    first = await create(api, alert(), "r-1")
    assert (await create(api, alert(), "r-1")).id == first.id
    reused = await refused(create(api, alert(name="else"), "r-1"))
    assert (reused.code, reused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert (await create(api, alert(), "r-1", metadata=OTHER)).id != first.id
    assert (await find(api)).total_size == 1


def nested(depth: int) -> dict[str, Any]:
    return {"deep": nested(depth - 1)} if depth else {}


THRESHOLD = {"window": "5m", "threshold": 1}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"id": "mine"}, "alert.id"),
        ({"name": ""}, "alert.name"),
        ({"name": "x" * 257}, "alert.name"),
        ({"alert_type_id": ""}, "alert.alert_type_id"),
        ({"alert_type_id": "no spaces"}, "alert.alert_type_id"),
        ({"consumer": ""}, "alert.consumer"),
        ({"consumer": "x" * 257}, "alert.consumer"),
        ({"tags": ["x"] * 33}, "alert.tags"),
        ({"tags": ["x" * 65]}, "alert.tags[0]"),
        ({"tags": [""]}, "alert.tags[0]"),
        ({"schedule": pb.Schedule(interval="0s")}, "alert.schedule.interval"),
        ({"schedule": pb.Schedule(interval="1w")}, "alert.schedule.interval"),
        ({"schedule": pb.Schedule(interval="366d")}, "alert.schedule.interval"),
        ({"throttle": "1.5m"}, "alert.throttle"),
        ({"throttle": "9999d"}, "alert.throttle"),
        ({"notify_when": 9}, "alert.notify_when"),
        ({"params": struct({"window": "5m"})}, "alert.params.threshold"),
        ({"params": struct(THRESHOLD | {"window": "x"})}, "alert.params.window"),
        ({"params": struct(THRESHOLD | {"source": {"hosts": "h"}})}, "alert.params.source.hosts"),
        ({"params": struct({"x": "x" * 70_000})}, "alert.params"),
        ({"params": struct(nested(32))}, "alert.params" + ".deep" * 32),
        ({"actions": [pb.Action(id="x")] * 33}, "alert.actions"),
        ({"actions": [pb.Action()]}, "alert.actions[0].id"),
        ({"actions": [pb.Action(id="no such")]}, "alert.actions[0].id"),
        ({"actions": [pb.Action(id="nothing")]}, "alert.actions[0].id"),
        ({"actions": [pb.Action(id="HOOK", group="fatal")]}, "alert.actions[0].group"),
        ({"actions": [pb.Action(id="HOOK", group="x" * 257)]}, "alert.actions[0].group"),
        ({"actions": [pb.Action(id="HOOK", params=struct({"subject": "s"}))]}, "alert.actions[0].params.subject"),
        ({"actions": [pb.Action(id="HOOK", params=struct({"headers": 1}))]}, "alert.actions[0].params.headers"),
        ({"actions": [pb.Action(id="HOOK", params=struct({"body": "x" * 70_000}))]}, "alert.actions[0].params"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
async def test_every_bound_of_an_alert(api: Api, hook: WebhookReceiver, changes: dict[str, Any], path: str) -> None:
    """INVALID_ARGUMENT with the field's path, and nothing is stored; on create and on update."""
    hook_id = await webhook(api, hook.url)
    wanted = alert(**changes)
    for action in wanted.actions:
        action.id = action.id.replace("HOOK", hook_id)
    refusal = await refused(create(api, wanted))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(refusal.fields) == [path]
    assert (await find(api)).total_size == 0
    if path in ("alert.id", "alert.alert_type_id", "alert.consumer"):
        return
    kept = await create(api, alert())
    wanted.id = kept.id
    refusal = await refused(api.alerting.UpdateAlert(pb.UpdateAlertRequest(alert=wanted)))
    assert list(refusal.fields) == [path]
    assert (await api.alerting.GetAlert(pb.GetAlertRequest(id=kept.id))).alert.name == "failures"


async def test_an_unknown_type_is_refused(api: Api) -> None:
    refusal = await refused(create(api, alert(alert_type_id="nope")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ALERT_TYPE_NOT_REGISTERED")
    assert refusal.text == 'Alert type "nope" is not registered.'


@pytest.mark.parametrize("body", ["{{" * 4000, "{{>../../etc/passwd}}", "{{#a}}" * 1000, "line\n{{/x}}"])
async def test_templates_that_cannot_be_used_are_refused(api: Api, hook: WebhookReceiver, body: str) -> None:
    """XE11: with the path of the string, the line and the column."""
    action = pb.Action(id=await webhook(api, hook.url), params=struct({"body": {"text": [body]}}))
    refusal = await refused(create(api, alert(actions=[action])))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TEMPLATE")
    assert "(line " in refusal.fields["alert.actions[0].params.body.text[0]"]
    assert (await find(api)).total_size == 0


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ({"search": "x" * 257}, "search"),
        ({"search_fields": ["params"]}, "search_fields[0]"),
        ({"search_fields": ["name"] * 5}, "search_fields"),
        ({"default_search_operator": 7}, "default_search_operator"),
        ({"sort_field": "tags"}, "sort_field"),
        ({"sort_order": 7}, "sort_order"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "no token!"}, "page_token"),
        ({"page_token": "x" * 1025}, "page_token"),
    ],
)
async def test_every_bound_of_a_search(api: Api, request_: dict[str, Any], path: str) -> None:
    refusal = await refused(find(api, **request_))
    assert (refusal.code, list(refusal.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [path])


async def test_finding_by_what_alerts_refer_to_and_by_a_condition(api: Api, hook: WebhookReceiver) -> None:
    """KA3: has_reference, fields and filter, in pages and counted."""
    one, other = await webhook(api, hook.url), await webhook(api, hook.url)
    for name, action, tags in (("a", one, ["infra"]), ("b", other, ["infra"]), ("c", one, [])):
        actions = [pb.Action(id=action, params=struct({"body": "x"}))]
        await create(api, alert(name=name, tags=tags, actions=actions, enabled=name != "b"))

    async def names(**request: Any) -> list[str]:
        answer = await find(api, **request)
        assert answer.total_size == len(answer.alerts)
        return [found.name for found in answer.alerts]

    assert await names(has_reference=pb.Reference(type="endpoint_configuration", id=one)) == ["a", "c"]
    assert await names(has_reference=pb.Reference(type="endpoint_configuration", id="nobody")) == []
    assert await names(filter='"infra" in alert.tags') == ["a", "b"]
    assert await names(filter='"infra" in alert.tags && !alert.enabled') == ["b"]
    assert await names(filter='alert.status == "PENDING" && !alert.enabled') == ["b"]
    assert await names(filter=f'alert.configuration_ids.exists(c, c == "{other}")') == ["b"]
    assert await names(filter="alert.params.threshold > 5.0", search="a", search_fields=["name"]) == ["a"]
    assert await names(filter="alert.interval == '1h'", sort_order=pb.SORT_ORDER_DESC) == ["c", "b", "a"]
    first = await find(api, filter="alert.name != 'b'", page_size=1)
    assert (first.alerts[0].name, first.total_size) == ("a", 2)
    second = await find(api, filter="alert.name != 'b'", page_size=1, page_token=first.next_page_token)
    assert [found.name for found in second.alerts] == ["c"]
    assert not second.next_page_token
    few = (await find(api, fields=["name", "tags"])).alerts[0]
    assert {field.name for field, _ in few.ListFields()} == {"id", "name", "tags", "alert_type_id", "consumer"}
    for fields in ({"filter": "alert.nme == 'x'"}, {"filter": "1"}, {"filter": "alert.name =="}):
        assert list((await refused(find(api, **fields))).fields) == ["filter"]
    assert list((await refused(find(api, fields=["name", "nme"]))).fields) == ["fields[1]"]


@pytest.mark.parametrize(
    ("condition", "known"),
    [
        ('alert.status == "activ"', "PENDING, OK, ACTIVE, ERROR"),
        ('alert.enabled && "ok" != alert.status', "PENDING, OK, ACTIVE, ERROR"),
        (
            'alert.tags.exists(t, t == "x" && alert.status == "FAILED")',
            "PENDING, OK, ACTIVE, ERROR",
        ),
        ('alert.status in ["OK", "FAILED"]', "PENDING, OK, ACTIVE, ERROR"),
        ('alert.notify_when == "ON_CHANGE"', "ON_ACTIVE_ALERT, ON_THROTTLE_INTERVAL, ON_ACTION_GROUP_CHANGE"),
    ],
)
async def test_a_word_that_no_alert_can_have_is_refused(api: Api, condition: str, known: str) -> None:
    """It would find nothing, or everything, without a word."""
    assert (await refused(find(api, filter=condition))).fields["filter"].endswith(f"it is one of {known}")
    found = await find(api, filter='alert.status in ["OK", "PENDING"] && alert.name != "activ"')
    assert not found.alerts


async def test_a_reference_has_a_type(api: Api) -> None:
    assert list((await refused(find(api, has_reference=pb.Reference(id="x")))).fields) == ["has_reference.type"]


async def test_finding(api: Api) -> None:
    """KA3: words in fields, joined by OR or AND, sorted, in pages, counted."""
    for name, tags in (("Äpfel", ["red"]), ("apples", ["red", "green"]), ("pears", ["Green"]), ("zebra", [])):
        await create(api, alert(name=name, tags=tags, consumer="zoo" if name == "zebra" else "fruit"))
    await create(api, alert(name="not mine"), metadata=OTHER)

    async def names(**request: Any) -> list[str]:
        answer = await find(api, **request)
        assert answer.total_size == len(answer.alerts)
        return [found.name for found in answer.alerts]

    assert await names() == ["apples", "pears", "zebra", "Äpfel"]
    assert await names(sort_order=pb.SORT_ORDER_DESC) == ["Äpfel", "zebra", "pears", "apples"]
    assert await names(sort_field="create_time") == ["Äpfel", "apples", "pears", "zebra"]
    assert await names(search="ÄPF pear") == ["pears", "Äpfel"]
    assert await names(search="green") == ["apples", "pears"]
    assert await names(search="red green", default_search_operator=pb.SEARCH_OPERATOR_AND) == ["apples"]
    assert await names(search="zoo") == []
    assert await names(search="zoo", search_fields=["consumer"]) == ["zebra"]
    assert await names(search="THRESHOLD", search_fields=["alert_type_id", "name"]) == await names()
    assert await names(search="100% nothing_like' this") == []


async def test_pages(api: Api) -> None:
    """KA3."""
    for number in range(5):
        await create(api, alert(name=f"n{number // 2}"))
    seen: list[str] = []
    token = ""
    while True:
        page = await find(api, page_size=2, page_token=token, sort_order=pb.SORT_ORDER_DESC)
        assert page.total_size == 5
        seen += [found.id for found in page.alerts]
        token = page.next_page_token
        if not token:
            break
    assert len(set(seen)) == len(seen) == 5
    first = await find(api, page_size=2)
    for other in ({"search": "n"}, {"sort_field": "consumer"}):
        refusal = await refused(find(api, page_token=first.next_page_token, **other))
        assert refusal.reason == "PAGE_TOKEN_MISMATCH"
    stolen = pb.FindAlertsRequest(page_token=first.next_page_token)
    refusal = await refused(api.alerting.FindAlerts(stolen, metadata=OTHER))
    assert refusal.reason == "PAGE_TOKEN_MISMATCH"
    assert (await refused(find(api, page_token="AAAA"))).reason == "INVALID_PAGE_TOKEN"


async def test_a_page_fits_into_a_message(api: Api, hook: WebhookReceiver) -> None:
    """Small numbers are much larger on the wire than as text: pages are cut by what is sent."""
    action = pb.Action(id=await webhook(api, hook.url), params=struct({"body": [1] * 5000}))
    for number in range(4):
        await create(api, alert(name=f"n{number}", actions=[action] * 15))
    names: list[str] = []
    pages = 0
    request = pb.FindAlertsRequest()
    while True:
        page = await api.alerting.FindAlerts(request)
        assert page.ByteSize() < 4 * 1024 * 1024
        names += [found.name for found in page.alerts]
        pages += 1
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert names == ["n0", "n1", "n2", "n3"]
    assert pages > 1


async def test_an_update_changes_what_the_mask_names(api: Api) -> None:
    """KC3, KA8."""
    before = await create(api, alert(tags=["old"], throttle="5m"))
    after = await update(api, pb.Alert(id=before.id, name="new", tags=["ignored"]), "name", "throttle")
    assert (after.name, after.throttle, list(after.tags)) == ("new", "", ["old"])
    assert after.consumer == "ops"
    assert after.update_time.ToMicroseconds() >= before.update_time.ToMicroseconds()
    whole = await update(api, alert(id=before.id, name="whole", consumer="other"))
    assert (whole.name, list(whole.tags), whole.consumer) == ("whole", [], "ops")


@pytest.mark.parametrize(
    "path", ["enabled", "alert_type_id", "consumer", "id", "created_by", "nothing", "params.window"]
)
async def test_what_cannot_be_updated_is_refused(api: Api, path: str) -> None:
    """KA8: not enabled, alert_type_id, consumer."""
    before = await create(api, alert())
    refusal = await refused(update(api, alert(id=before.id), path))
    assert (refusal.reason, list(refusal.fields)) == ("INVALID_FIELD", ["update_mask"])


async def test_an_update_leaves_alone_what_the_mask_does_not_name(api: Api, hook: WebhookReceiver) -> None:
    """KA8: an action whose configuration is gone is no reason to refuse another name."""
    hook_id = await webhook(api, hook.url)
    before = await create(api, alert(actions=[pb.Action(id=hook_id)]))
    deletion = notifications_pb.DeleteEndpointConfigurationRequest(id=hook_id)
    await api.notifications.DeleteEndpointConfiguration(deletion)
    after = await update(api, pb.Alert(id=before.id, name="new"), "name")
    assert (after.name, after.params) == ("new", before.params)
    assert list(after.actions) == list(before.actions)
    for paths in ((), ("name", "actions")):
        refusal = await refused(update(api, after, *paths))
        assert list(refusal.fields) == ["alert.actions[0].id"]
    refusal = await refused(update(api, pb.Alert(id=before.id), "params"))
    assert list(refusal.fields) == ["alert.params"]


BY_ID: list[tuple[str, Callable[[str], Any]]] = [
    ("GetAlert", lambda id: pb.GetAlertRequest(id=id)),
    ("UpdateAlert", lambda id: pb.UpdateAlertRequest(alert=alert(id=id))),
    ("DeleteAlert", lambda id: pb.DeleteAlertRequest(id=id)),
    ("EnableAlert", lambda id: pb.EnableAlertRequest(id=id)),
    ("DisableAlert", lambda id: pb.DisableAlertRequest(id=id)),
    ("GetAlertState", lambda id: pb.GetAlertStateRequest(id=id)),
]


@pytest.mark.parametrize(("method", "request_of"), BY_ID, ids=[name for name, _ in BY_ID])
async def test_no_call_crosses_accounts(api: Api, method: str, request_of: Callable[[str], Any]) -> None:
    """P5: another account's alert is not found, and stays as it is."""
    mine = await create(api, alert())
    call: Callable[..., Awaitable[Any]] = getattr(api.alerting, method)
    refusal = await refused(call(request_of(mine.id), metadata=OTHER))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    kept = (await api.alerting.GetAlert(pb.GetAlertRequest(id=mine.id))).alert
    assert (kept.enabled, kept.update_time) == (mine.enabled, mine.update_time)
    for wrong, reason in (("", "INVALID_FIELD"), ("x" * 65, "INVALID_FIELD"), ("no such", "INVALID_FIELD")):
        assert (await refused(call(request_of(wrong)))).reason == reason


async def test_lists_and_creates_keep_to_the_account(api: Api, hook: WebhookReceiver) -> None:
    """P5: nothing of another account is listed, counted, or can be written to."""
    mine = await webhook(api, hook.url)
    await create(api, alert(actions=[pb.Action(id=mine)]))
    theirs = await api.alerting.FindAlerts(pb.FindAlertsRequest(), metadata=OTHER)
    assert (list(theirs.alerts), theirs.total_size) == ([], 0)
    refusal = await refused(create(api, alert(actions=[pb.Action(id=mine)]), metadata=OTHER))
    assert list(refusal.fields) == ["alert.actions[0].id"]
