"""Silences: what they mean is not told, others are; the log says when they start and end."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.runtime import system_runtime
from tocsin_server.store import silences as store

from tests.service.test_explanations import explained, routed
from tests.service.test_firing import fail, firing
from tests.service.test_notifications import created, settled, webhook
from tests.support.alerts import create
from tests.support.alerts import webhook as hook_of_alerts
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, Subscriber, refused, serving

SYSTEM = pb.Selector(scope="account", level="*", type="system.*", resource_type="*")
STARTED, ENDED = "system.notifications.silence_started", "system.notifications.silence_ended"


def at(seconds: float) -> Timestamp:
    """Give a time so far from now."""
    found = Timestamp()
    found.FromMicroseconds(time.time_ns() // 1000 + int(seconds * 1_000_000))
    return found


async def silenced(api: Api, seconds: float = 600, request_id: str = "", **fields: Any) -> pb.Silence:
    given: dict[str, Any] = {"filter": log_pb.EventFilter(types=["quiet.*"]), "comment": "the registry moves"}
    request = pb.CreateSilenceRequest(
        silence=pb.Silence(**given | fields), duration=Duration(nanos=int(seconds % 1 * 1e9), seconds=int(seconds)),
        request_id=request_id,
    )  # fmt: skip
    return (await api.notifications.CreateSilence(request)).silence


def notices(api: Api) -> Subscriber:
    return Subscriber(
        api, beginning=log_pb.SubscribeRequest.Beginning(), filter=log_pb.EventFilter(types=[f"{STARTED[:-7]}*"])
    )


async def test_what_a_silence_means_is_not_told_and_all_else_is(api: Api, hook: WebhookReceiver) -> None:
    """A silenced delivery ends as such, names its silence, and can be recovered by hand."""
    await created(api, webhook(hook.url))
    silence = await silenced(api)
    quiet, loud = await api.append("quiet.a"), await api.append("loud.a")
    await routed(api, loud.position)
    (posted,) = [p for p in await hook.until(1) if p.verified()["type"] != "marker.of.the.test"]
    assert posted.verified()["data"]["id"] == loud.id
    (delivery,) = await settled(api, event_id=quiet.id)
    assert (delivery.state, delivery.reason) == (pb.DELIVERY_STATE_SILENCED, "SILENCE")
    assert delivery.silence_id == silence.id
    assert not delivery.attempts
    (explanation,) = (await explained(api, event_id=quiet.id)).explanations
    assert (explanation.fate, explanation.reason) == (pb.EVENT_FATE_SILENCED, silence.id)
    statistics = await api.notifications.GetDeliveryStatistics(pb.GetDeliveryStatisticsRequest())
    assert statistics.silenced == 1
    await api.notifications.RetryDelivery(pb.RetryDeliveryRequest(id=delivery.id))
    (delivery,) = await settled(api, event_id=quiet.id)
    assert delivery.state == pb.DELIVERY_STATE_DELIVERED


async def test_the_log_says_when_a_silence_starts_and_ends(api: Api, hook: WebhookReceiver) -> None:
    """The notices reach a selector for system events, whatever the silence means."""
    await created(api, webhook(hook.url, SYSTEM))
    watch = notices(api)
    everything = log_pb.EventFilter(types=["*"])
    silence = await silenced(api, 1.0, filter=everything, author="ann", comment="maintenance")
    await watch.until(2)
    started, ended = watch.events
    assert (started.type, ended.type) == (STARTED, ENDED)
    for event in (started, ended):
        assert (event.resource.type, event.resource.id) == ("silence", silence.id)
        assert event.details.struct_value["author"] == "ann"
        assert event.details.struct_value["comment"] == "maintenance"
    assert "maintenance" in started.message
    assert ended.details.struct_value["reason"] == "TIME"
    assert ended.created_at.ToMicroseconds() >= silence.end_time.ToMicroseconds()
    assert [p.verified()["type"] for p in await hook.until(2)] == [STARTED, ENDED]
    found = (await api.notifications.GetSilence(pb.GetSilenceRequest(id=silence.id))).silence
    assert found.state == pb.SILENCE_STATE_ENDED
    await watch.close()


async def test_a_silence_that_is_deleted_ends_at_once(api: Api, hook: WebhookReceiver) -> None:
    await created(api, webhook(hook.url))
    silence = await silenced(api)
    await api.append("quiet.a")
    await api.notifications.DeleteSilence(pb.DeleteSilenceRequest(id=silence.id))
    told = await api.append("quiet.b")
    assert (await hook.until(1))[0].verified()["data"]["id"] == told.id
    assert (await refused(api.notifications.GetSilence(pb.GetSilenceRequest(id=silence.id)))).reason == "NOT_FOUND"
    watch = notices(api)
    await watch.until(2)
    assert watch.events[1].details.struct_value["reason"] == "DELETED"
    await watch.close()
    assert not (await api.notifications.ListSilences(pb.ListSilencesRequest())).silences


async def test_a_silence_that_is_deleted_before_its_start_leaves_nothing(tmp_path: Path, hook: WebhookReceiver) -> None:
    ahead = [0]
    system = system_runtime()
    async with serving(tmp_path, replace(system, now=lambda: system.now() + ahead[0])) as api:
        await created(api, webhook(hook.url))
        silence = await silenced(api, 600, start_time=at(600))
        await api.notifications.DeleteSilence(pb.DeleteSilenceRequest(id=silence.id))
        connection = sqlite3.connect(tmp_path / "tocsin.db")
        assert connection.execute("SELECT count(*) FROM silences").fetchone() == (0,)
        connection.close()
        refusal = await refused(api.notifications.DeleteSilence(pb.DeleteSilenceRequest(id=silence.id)))
        assert refusal.reason == "NOT_FOUND"
        ahead[0] = 700 * 1_000_000
        await api.append("quiet.a")
        await hook.until(1)


async def test_deleted_silences_are_bounded_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "DELETED_MAX", 2)
    for _ in range(2):
        silence = await silenced(api)
        await api.notifications.DeleteSilence(pb.DeleteSilenceRequest(id=silence.id))
    refusal = await refused(silenced(api))
    assert (refusal.reason, "at most 2 silences in 30 days" in refusal.text) == ("LIMIT_REACHED", True)


async def test_a_silence_to_come_holds_from_its_start(api: Api, hook: WebhookReceiver) -> None:
    await created(api, webhook(hook.url))
    silence = await silenced(api, 600, start_time=at(1.0))
    assert silence.state == pb.SILENCE_STATE_PENDING
    before = await api.append("quiet.before")
    assert (await hook.until(1))[0].verified()["data"]["id"] == before.id
    watch = notices(api)
    await watch.until(1)
    after = await api.append("quiet.after")
    (delivery,) = await settled(api, event_id=after.id)
    assert delivery.state == pb.DELIVERY_STATE_SILENCED
    await watch.close()


async def test_a_restart_forgets_no_notice(tmp_path: Path) -> None:
    """XD1: the time of an end passes while the server is down."""
    async with serving(tmp_path) as api:
        silence = await silenced(api, 1.0)
    async with serving(tmp_path) as api:
        watch = notices(api)
        await watch.until(2)
        assert [e.type for e in watch.events] == [STARTED, ENDED]
        assert {e.resource.id for e in watch.events} == {silence.id}
        await watch.close()


async def test_a_silence_is_changed_while_it_holds(api: Api) -> None:
    silence = await silenced(api, start_time=at(300))
    stub = api.notifications

    async def change(*paths: str, **fields: Any) -> pb.Silence:
        sent = pb.Silence(id=silence.id, **fields)
        request = pb.UpdateSilenceRequest(silence=sent, update_mask=FieldMask(paths=paths))
        return (await stub.UpdateSilence(request)).silence

    end = at(7200)
    changed = await change(comment="longer", end_time=end)
    assert (changed.comment, changed.end_time, changed.filter) == ("longer", end, silence.filter)
    assert (await change("author", author="bob", comment="ignored")).comment == "longer"
    assert (await change(start_time=at(-5))).state == pb.SILENCE_STATE_ACTIVE
    refusals = [
        (change("comment"), "silence.comment"),
        (change("state"), "update_mask"),
        (change(end_time=at(-1)), "silence.end_time"),
        (change(start_time=at(100)), "silence.start_time"),
        (change(filter=log_pb.EventFilter()), "silence.filter"),
    ]
    for call, field in refusals:
        assert field in (await refused(call)).fields


async def test_an_ended_silence_does_not_change(api: Api) -> None:
    silence = await silenced(api, 1.0)
    watch = notices(api)
    await watch.until(2)
    sent = pb.Silence(id=silence.id, end_time=at(60))
    assert (await refused(api.notifications.UpdateSilence(pb.UpdateSilenceRequest(silence=sent)))).reason == (
        "SILENCE_ENDED"
    )
    await watch.close()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"comment": ""}, "silence.comment"),
        ({"filter": log_pb.EventFilter()}, "silence.filter"),
        ({"filter": log_pb.EventFilter(types=["a"], since=Timestamp(seconds=1))}, "silence.filter.since"),
        ({"filter": log_pb.EventFilter(where="event.")}, "silence.filter.where"),
        ({"id": "x"}, "silence.id"),
        ({"end_time": Timestamp(seconds=1)}, "duration"),
        ({"start_time": Timestamp(seconds=1)}, "duration"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, fields: dict[str, Any], field: str) -> None:
    assert field in (await refused(silenced(api, **fields))).fields


async def test_a_repeat_after_the_end_answers_the_first(tmp_path: Path) -> None:
    """Promise P4: a request id answers what it made, whenever it comes again."""
    ahead = [0]
    system = system_runtime()
    async with serving(tmp_path, replace(system, now=lambda: system.now() + ahead[0])) as api:
        filter = log_pb.EventFilter(types=["quiet.*"])
        silence = pb.Silence(filter=filter, comment="the registry moves", end_time=at(600))
        request = pb.CreateSilenceRequest(silence=silence, request_id="once")
        first = (await api.notifications.CreateSilence(request)).silence
        ahead[0] = 3600 * 1_000_000
        again = (await api.notifications.CreateSilence(request)).silence
        assert (again.id, again.state) == (first.id, pb.SILENCE_STATE_ENDED)
        request.request_id = "another"
        refusal = await refused(api.notifications.CreateSilence(request))
        assert refusal.fields == {"silence.end_time": "has passed"}


async def test_everybodys_events_are_silenced_by_the_admin_only(api: Api) -> None:
    wanted = log_pb.EventFilter(types=["a"], scope=log_pb.SCOPE_GLOBAL)
    request = pb.CreateSilenceRequest(silence=pb.Silence(filter=wanted, comment="c"), duration=Duration(seconds=60))
    refusal = await refused(api.notifications.CreateSilence(request, metadata=(("x-tocsin-account", "acme"),)))
    assert refusal.reason == "PERMISSION_DENIED"
    assert (await api.notifications.CreateSilence(request)).silence.filter.scope == log_pb.SCOPE_GLOBAL


async def test_a_silence_of_one_account_is_nothing_to_another(api: Api, hook: WebhookReceiver) -> None:
    """P5: the same events, told to everybody by the admin, are silenced for one account only."""
    await created(api, webhook(hook.url, pb.Selector(scope="global", level="*", type="quiet.*", resource_type="*")))
    other = (("x-tocsin-account", "acme"),)
    request = pb.CreateSilenceRequest(
        silence=pb.Silence(filter=log_pb.EventFilter(types=["quiet.*"]), comment="c"), duration=Duration(seconds=60)
    )
    await api.notifications.CreateSilence(request, metadata=other)
    event = await api.append("quiet.a", metadata=other)
    assert (await hook.until(1))[0].verified()["data"]["id"] == event.id


async def test_silences_come_in_pages_by_state(api: Api) -> None:
    made = [(await silenced(api, start_time=at(n * 100))).id for n in range(1, 6)]
    now = await silenced(api, request_id="r")
    assert (await silenced(api, request_id="r")).id == now.id
    pending = [pb.SILENCE_STATE_PENDING]
    first = await api.notifications.ListSilences(pb.ListSilencesRequest(states=pending, page_size=3))
    rest = await api.notifications.ListSilences(
        pb.ListSilencesRequest(states=pending, page_size=3, page_token=first.next_page_token)
    )
    assert [s.id for s in (*first.silences, *rest.silences)] == made[::-1]
    assert not rest.next_page_token
    active = await api.notifications.ListSilences(pb.ListSilencesRequest(states=[pb.SILENCE_STATE_ACTIVE]))
    assert [s.id for s in active.silences] == [now.id]


async def test_an_action_of_an_alert_is_judged_by_its_transition(api: Api, hook: WebhookReceiver) -> None:
    """The alert goes on, its events are in the log, and its recovery, which the silence does not mean, is told."""
    silence = await silenced(api, filter=log_pb.EventFilter(types=["system.alerting.new_instance"]))
    await create(api, firing(await hook_of_alerts(api, hook.url)))
    for _ in range(2):
        await fail(api, "nginx:latest")
    (recovered,) = await hook.until(1)
    assert recovered.body.decode() == "nginx:latest is fine"
    rows = await settled(api)
    assert {row.alert.action_group: (row.state, row.silence_id) for row in rows} == {
        "recovered": (pb.DELIVERY_STATE_DELIVERED, ""),
        "default": (pb.DELIVERY_STATE_SILENCED, silence.id),
    }
