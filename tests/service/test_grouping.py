"""Digests: several events in one delivery, each in exactly one, through failures, restarts and switches."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.runtime import system_runtime

from tests.service.test_explanations import explained
from tests.service.test_notifications import created, mail, webhook
from tests.support.receivers import Mailbox, Posted, WebhookReceiver, plain_of
from tests.support.servers import Api, refused, serving

DAY_US = 86_400 * 1_000_000
DIGEST = "system.notifications.digest"
QUICK = {"wait": Duration(seconds=1), "interval": Duration(seconds=1)}


def grouped(configuration: pb.EndpointConfiguration, *by: str, **rules: Any) -> pb.EndpointConfiguration:
    configuration.options.grouping.CopyFrom(pb.Grouping(by=by, **(QUICK | rules)))
    return configuration


async def deliveries(api: Api, **query: Any) -> list[pb.Delivery]:
    found = await api.notifications.ListDeliveries(pb.ListDeliveriesRequest(page_size=1000, **query))
    return list(found.deliveries)


async def until(api: Api, there: Callable[[list[pb.Delivery]], bool], **query: Any) -> list[pb.Delivery]:
    """Wait until the deliveries are as they should be."""
    async with asyncio.timeout(20):
        while not there(found := await deliveries(api, **query)):
            await asyncio.sleep(0.02)
    return found


def over(rows: list[pb.Delivery]) -> bool:
    return bool(rows) and all(row.HasField("end_time") for row in rows)


def ids(posted: Posted) -> list[str]:
    return [event["id"] for event in posted.verified()["data"]["events"]]


async def sums_hold(api: Api) -> None:
    """Promise P3."""
    told = await api.notifications.GetDeliveryStatistics(pb.GetDeliveryStatisticsRequest())
    assert told.routed == told.delivered + told.exhausted + told.cancelled + told.silenced + told.open


async def test_events_of_a_group_come_together(api: Api, hook: WebhookReceiver) -> None:
    await created(api, grouped(webhook(hook.url), "labels.team", "level"))
    red = [(await api.append("a", labels={"team": "red"})).id for _ in range(3)]
    blue = [(await api.append("b", labels={"team": "blue"})).id for _ in range(2)]
    posted = await hook.until(2)
    assert sorted(map(ids, posted)) == sorted([red, blue])
    for one in posted:
        payload = one.verified()
        assert payload["type"] == DIGEST
        assert payload["data"]["count"] == len(ids(one))
        assert payload["data"]["group"] == {"labels.team": "red" if red == ids(one) else "blue", "level": "info"}
        assert payload["data"]["events"][0]["labels"]
    rows = await until(api, over)
    digests = {row.id: row for row in rows if row.HasField("digest")}
    assert set(digests) == {one.id for one in posted}
    members = [row for row in rows if row.HasField("event")]
    assert len(members) == 5
    for row in members:
        assert row.state == digests[row.digest_id].state == pb.DELIVERY_STATE_DELIVERED
        assert row.end_time == digests[row.digest_id].end_time
    await sums_hold(api)


async def test_a_full_digest_goes_at_once_and_the_rest_in_the_next(api: Api, hook: WebhookReceiver) -> None:
    await created(api, grouped(webhook(hook.url), max_items=3, wait=Duration(seconds=600)))
    made = [(await api.append("a")).id for _ in range(7)]
    posted = await hook.until(2)
    assert [ids(one) for one in posted] == [made[:3], made[3:6]]
    rows = await until(api, lambda rows: sum(over([row]) for row in rows) == 8)
    (waiting,) = [row for row in rows if row.HasField("digest") and not row.HasField("end_time")]
    assert waiting.state == pb.DELIVERY_STATE_PENDING
    assert waiting.digest.number == 3
    (last,) = [row for row in rows if row.HasField("event") and not row.HasField("end_time")]
    assert (last.state, last.digest_id) == (pb.DELIVERY_STATE_GROUPED, waiting.id)
    await sums_hold(api)


async def test_a_digest_that_fails_is_tried_again_whole(api: Api, hook: WebhookReceiver) -> None:
    """XD3: under one id, with the same events, though others came meanwhile."""
    answers = [503, 200]
    hook.answer = lambda posted: answers.pop(0) if answers else 200
    configuration = grouped(webhook(hook.url))
    configuration.options.retry_schedule.extend([1])
    await created(api, configuration)
    first = [(await api.append("a")).id for _ in range(2)]
    await hook.until(1)
    later = await api.append("b")
    posted = await hook.until(3)
    assert sorted(map(ids, posted)) == sorted([first, first, [later.id]])
    again = [one for one in posted if ids(one) == first]
    assert again[0].id == again[1].id
    await until(api, over)
    await sums_hold(api)


async def test_a_restart_neither_loses_nor_repeats(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XD1, XD2: what was gathered before goes with what came after."""
    async with serving(tmp_path) as api:
        await created(api, grouped(webhook(hook.url), wait=Duration(seconds=2)))
        before = (await api.append("a")).id
        await until(api, lambda rows: len(rows) == 2)
    async with serving(tmp_path) as api:
        after = (await api.append("a")).id
        assert ids((await hook.until(1))[0]) == [before, after]
        assert over(await until(api, over))
        assert len(hook.posted) == 1


async def test_an_event_that_is_damaged_is_missing_in_its_digest(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XA11: the others are told, and how many cannot be."""
    async with serving(tmp_path) as api:
        await created(api, grouped(webhook(hook.url), wait=Duration(seconds=2)))
        damaged = await api.append("a")
        await until(api, lambda rows: len(rows) == 2)
        connection = sqlite3.connect(tmp_path / "tocsin.db")
        connection.execute("UPDATE events SET crc = crc + 1 WHERE position = ?", (damaged.position,))
        connection.commit()
        connection.close()
        whole = (await api.append("a")).id
        (posted,) = await hook.until(1)
        data = posted.verified()["data"]
        assert (ids(posted), data["count"], data["missing"]) == ([whole], 1, 1)
        assert over(await until(api, over))


async def test_the_digest_after_a_cancelled_one_waits_an_interval_from_then(api: Api, hook: WebhookReceiver) -> None:
    await created(api, grouped(webhook(hook.url), wait=Duration(seconds=600), interval=Duration(seconds=3600)))
    await api.append("a")
    (digest,) = [row for row in await until(api, lambda rows: len(rows) == 2) if row.HasField("digest")]
    await api.notifications.CancelDelivery(pb.CancelDeliveryRequest(id=digest.id))
    event = await api.append("a")
    rows = await until(api, lambda rows: sum(row.HasField("digest") for row in rows) == 2)
    (second,) = [row for row in rows if row.HasField("digest") and not row.HasField("end_time")]
    apart = second.next_attempt_at.ToMicroseconds() - event.created_at.ToMicroseconds()
    assert 3600_000_000 <= apart < 3660_000_000


async def test_what_is_switched_off_waits_in_its_digest(api: Api, hook: WebhookReceiver) -> None:
    configuration = grouped(webhook(hook.url))
    configuration.enabled = False
    off = await created(api, configuration)
    made = [(await api.append("a")).id for _ in range(2)]
    rows = await until(api, lambda rows: len(rows) == 3)
    assert {row.state for row in rows} == {pb.DELIVERY_STATE_PAUSED, pb.DELIVERY_STATE_GROUPED}
    (explanation,) = (await explained(api, event_id=made[0])).explanations
    assert (explanation.fate, explanation.reason) == (pb.EVENT_FATE_GROUPED, "DISABLED")
    await api.notifications.UpdateEndpointConfiguration(
        pb.UpdateEndpointConfigurationRequest(
            configuration=pb.EndpointConfiguration(id=off.id, enabled=True), update_mask=FieldMask(paths=["enabled"])
        )
    )
    assert ids((await hook.until(1))[0]) == made


async def test_what_ends_a_digest_ends_its_events_and_they_begin_anew_with_it(api: Api, hook: WebhookReceiver) -> None:
    stub = api.notifications
    configuration = await created(api, grouped(webhook(hook.url), wait=Duration(seconds=600)))
    made = [(await api.append("a")).id for _ in range(2)]
    rows = await until(api, lambda rows: len(rows) == 3)
    (digest,) = [row for row in rows if row.HasField("digest")]
    await stub.CancelDelivery(pb.CancelDeliveryRequest(id=digest.id))
    rows = await deliveries(api)
    assert {(row.state, row.reason) for row in rows} == {(pb.DELIVERY_STATE_CANCELLED, "BY_HAND")}
    await sums_hold(api)
    (member, *_) = [row for row in rows if row.HasField("event")]
    refusal = await refused(stub.RetryDelivery(pb.RetryDeliveryRequest(id=member.id)))
    assert (refusal.reason, digest.id in refusal.text) == ("DELIVERY_STATE", True)
    recovered = await stub.RecoverDeliveries(
        pb.RecoverDeliveriesRequest(configuration_id=configuration.id, since=digest.create_time)
    )
    assert recovered.recovered_count == 1
    assert ids((await hook.until(1))[0]) == made
    await until(api, over)
    await sums_hold(api)


async def test_digests_of_a_group_keep_their_distance(api: Api, hook: WebhookReceiver) -> None:
    await created(api, grouped(webhook(hook.url), interval=Duration(seconds=600)))
    await api.append("a")
    await hook.until(1)
    await api.append("a")
    rows = await until(api, lambda rows: sum(row.HasField("digest") for row in rows) == 2)
    second, first = (row for row in rows if row.HasField("digest"))
    apart = second.next_attempt_at.ToMicroseconds() - first.create_time.ToMicroseconds()
    assert apart == 601_000_000


async def test_digests_of_notices_do_not_tell_of_each_other_without_end(api: Api, hook: WebhookReceiver) -> None:
    """XD28: what fails to tell of a failure is not told in turn, in a digest neither."""
    hook.answer = lambda posted: 400
    system = pb.Selector(scope="account", level="*", type="system.*", resource_type="*")
    for _ in range(2):
        await created(api, grouped(webhook(hook.url, system)))
    await created(api, webhook(hook.url, pb.Selector(scope="account", level="*", type="a", resource_type="*")))
    await api.append("a")

    def ended(rows: list[pb.Delivery]) -> bool:
        return sum(row.HasField("digest") and row.HasField("end_time") for row in rows) == 2

    await until(api, ended)
    told = await api.events.ListEvents(
        log_pb.ListEventsRequest(filter=log_pb.EventFilter(types=["system.notifications.delivery_exhausted"]))
    )
    assert len(told.events) == 1


async def test_the_end_of_a_digest_finds_its_events_by_their_index(tmp_path: Path) -> None:
    """However many deliveries there are: the triggers read those of one digest."""
    async with serving(tmp_path):
        connection = sqlite3.connect(tmp_path / "tocsin.db")
        triggers = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'digests%'"
        ).fetchall()
        assert len(triggers) == 2
        for (sql,) in triggers:
            (statement,) = re.findall(r"BEGIN(.*?);", sql, re.DOTALL)
            plan = connection.execute("EXPLAIN QUERY PLAN " + re.sub(r"NEW\.\w+", "'x'", statement)).fetchall()
            assert "deliveries_grouped (account=? AND digest_id=?)" in str(plan)
        connection.close()


async def test_a_digest_by_mail_has_a_line_for_each_event(api: Api, box: Mailbox) -> None:
    await created(api, grouped(mail(box, "ann@example.com"), "resource.id"))
    about = log_pb.EventResource(type="image_tag", id="nginx:latest")
    await api.append("a", message="disk full", level=log_pb.LEVEL_ERROR, resource=about)
    await api.append("a", message="all is well", resource=about)
    ((recipients, message),) = await box.until(1)
    assert recipients == ["ann@example.com"]
    assert message["Subject"] == "[ERROR] 2 events: resource.id nginx:latest"
    text = plain_of(message)
    assert "disk full" in text
    assert "all is well" in text
    assert "2 events, 1 of them errors" in text


@pytest.mark.parametrize(
    ("by", "field"),
    [(["colour"], "by[0]"), (["type", "type"], "by"), (["labels."], "by[0]")],
)
async def test_rules_that_make_no_sense_are_refused(api: Api, by: list[str], field: str) -> None:
    configuration = grouped(webhook("http://127.0.0.1:9/"), *by)
    assert f"configuration.options.grouping.{field}" in (await refused(created(api, configuration))).fields


async def test_rules_are_answered_as_they_hold(api: Api) -> None:
    configuration = webhook("http://127.0.0.1:9/")
    configuration.options.grouping.SetInParent()
    rules = (await created(api, configuration)).options.grouping
    assert (rules.wait.seconds, rules.interval.seconds, rules.max_items) == (30, 300, 100)


def unsigned(posted: Posted) -> list[str]:
    """Give the events of a digest whose signature is of another time than this."""
    return [event["id"] for event in json.loads(posted.body)["data"]["events"]]


async def test_a_clock_that_jumps_neither_loses_nor_repeats(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XA19: a day ahead and back again; what was due is told once, though a clock set back makes it late."""
    ahead = [0]
    system = system_runtime()
    runtime = replace(system, now=lambda: system.now() + ahead[0])
    async with serving(tmp_path, runtime) as api:
        await created(api, grouped(webhook(hook.url), wait=Duration(seconds=3600)))
        first = (await api.append("a")).id
        await until(api, lambda rows: len(rows) == 2)
        ahead[0] = DAY_US
        second = (await api.append("a")).id  # wakes what looks at the clock, and is in the digest or in the next
        posted = await hook.until(1)
        assert unsigned(posted[0])[0] == first
        ahead[0] = 0
        third = (await api.append("a")).id
        await until(api, lambda rows: any(row.event.id == third for row in rows))
        ahead[0] = 2 * DAY_US
        await api.append("b")
        async with asyncio.timeout(30):
            while third not in [event for one in hook.posted for event in unsigned(one)]:
                await asyncio.sleep(0.05)
        told = [event for one in hook.posted for event in unsigned(one)]
        assert told[:3] == [first, second, third]
        assert len(set(told)) == len(told)
