"""Previews of each built-in type, on a whole server with a clock that is held: run by run what live runs did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin_server.domain.schedule import Ticks
from tocsin_server.domain.variables import time_text
from tocsin_server.runtime import system_runtime

from tests.service.test_alert_control import executions, run
from tests.service.test_alert_previews import preview, runs, time
from tests.service.test_firing import fail
from tests.support.alert_house import MINUTE, T0, Clock
from tests.support.alerts import alert, create, struct, webhook
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, serving

HOUR = 60 * MINUTE
BODY = (
    "{{alertActionGroup}} {{alertActionSubgroup}} {{alertInstanceId}}: {{alertInstanceDurationSeconds}} "
    "{{date}} {{{context.reason}}}"
)


@dataclass(frozen=True)
class Story:
    """An alert by resource, how many events of each there are in each hour, and what is told of them."""

    alert: dict[str, Any]
    params: dict[str, Any]
    hours: list[dict[str, int]]
    told: list[str]

    def wanted(self, hook_id: str) -> pb.Alert:
        groups = ["default", *(one["group"] for one in self.params.get("severities", ()) if one["group"] != "default")]
        actions = [pb.Action(group=g, id=hook_id, params=struct({"body": BODY})) for g in (*groups, "recovered")]
        params = struct({"window": "1h", "group_by": ["resource_id"]} | self.params)
        return alert(schedule=pb.Schedule(interval="1h"), params=params, actions=actions, **self.alert)


STORIES = {
    "absence": Story(
        {"alert_type_id": ".event-absence"},
        {"seen_within": "1d"},
        [{"a": 1, "b": 1}, {"b": 1}, {}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 1}],
        ["default a", "default a", "default b", "recovered a", "default b", "recovered b"],
    ),
    "absence, expected and throttled": Story(
        {"alert_type_id": ".event-absence", "throttle": "2h"},
        {"expected": ["a", "c"], "threshold": 2},
        [{"a": 2, "c": 2}, {"a": 1, "c": 3}, {"a": 1}, {"a": 1, "c": 2}, {"a": 2, "b": 1}, {}],
        ["default a", "default c", "recovered c", "default a", "recovered a", "default c", "default a"],
    ),
    "spike": Story(
        {"alert_type_id": ".event-spike", "notify_when": pb.NOTIFY_WHEN_ON_ACTION_GROUP_CHANGE},
        {"height": 3, "direction": "both", "min_current": 2},
        [{"a": 2, "b": 3}, {"a": 2, "b": 3}, {"a": 6, "b": 3}, {"a": 2, "b": 1}, {"a": 7, "b": 9}, {"a": 7, "b": 9}],
        [
            "default up a",
            "default down a",
            "default down b",
            "default up a",
            "default up b",
            "recovered a",
            "recovered b",
        ],
    ),
    "severities": Story(
        {"throttle": "3h"},
        {
            "severities": [
                {"group": "critical", "comparator": ">=", "threshold": 5},
                {"group": "warning", "comparator": ">=", "threshold": 2},
            ]
        },
        [{"a": 1}, {"a": 2, "b": 5}, {"a": 2, "b": 6}, {"a": 9, "b": 2}, {"a": 3}, {"b": 1}],
        ["warning a", "critical b", "critical a", "warning b", "recovered b", "warning a", "recovered a"],
    ),
}


@dataclass
class Live:
    """What live runs did: the record of them, the events that tell of them, and what was posted."""

    executions: list[pb.Execution]
    transitions: list[tuple[str, str, Any]]
    said: list[str]


async def happen(api: Api, events: dict[str, int]) -> None:
    for resource, count in events.items():
        for _ in range(count):
            await fail(api, resource)


async def lived(api: Api, clock: Clock, hook: WebhookReceiver, story: Story, alert_id: str, first: int) -> Live:
    """Run on each full tick, ten minutes after the events of its hour."""
    for hour, events in enumerate(story.hours):
        clock.time = first + hour * HOUR - 10 * MINUTE
        await happen(api, events)
        clock.time = first + hour * HOUR
        execution = await run(api, alert_id)
        assert execution.scheduled_time.ToMicroseconds() == clock.time
    found = [one for one in reversed(await executions(api, alert_id)) if one.scheduled_time.ToMicroseconds() >= first]
    meant = log_pb.EventFilter(types=["system.alerting.*"], resource_ids=[alert_id])
    meant.since.CopyFrom(time(first))
    request = log_pb.ListEventsRequest(filter=meant, order=log_pb.ORDER_OLDEST_FIRST)
    listed = (await api.events.ListEvents(request)).events
    count = sum(len(instance.delivery_ids) for one in found for instance in one.instances)
    posted = await hook.until(count)
    return Live(
        found,
        [(e.type, e.message, MessageToDict(e.details)) for e in listed],
        [post.body.decode() for post in posted],
    )


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
async def test_a_preview_of_a_type_is_what_live_runs_did(tmp_path: Path, hook: WebhookReceiver, story: Story) -> None:
    """Run by run: status, instances, verdicts, events of the life cycle with all their words, and every message."""
    clock = Clock(T0 - 10 * MINUTE)
    async with serving(tmp_path, replace(system_runtime(), now=lambda: clock.time)) as api:
        await happen(api, story.hours[0])
        clock.time = T0
        created = await create(api, story.wanted(await webhook(api, hook.url)))
        first_run = await run(api, created.id)  # at once, and finds nothing
        assert not first_run.instances
        first = Ticks.of(created.id, HOUR).after(T0 + HOUR)
        live = await lived(api, clock, hook, story, created.id, first)
        clock.time += MINUTE
        parts = await preview(api, id=created.id, start_time=time(first), end_time=time(clock.time), every_run=True)
    replayed = runs(parts)
    assert [shown(one.execution) for one in replayed] == [shown(one) for one in live.executions]
    # The very first run was live's: from PENDING to OK. What every event says of its alert, a preview does not repeat.
    _, *transitions = [
        (t.type, f"Alert 'failures': {t.message}", MessageToDict(t.details) | about(created, one))
        for one in replayed
        for t in one.transitions
    ]
    assert transitions == live.transitions
    said = [str(n.params["body"]) for one in replayed for n in one.notifications]
    assert Counter(said) == Counter(live.said)
    assert [" ".join(text.partition(":")[0].split()) for text in said] == story.told
    assert parts[-1].done.errors == 0


def about(alert: pb.Alert, one: pb.PreviewAlertResponse.Run) -> dict[str, str]:
    """Give what every event about an alert says of it."""
    at = time_text(one.execution.scheduled_time.ToMicroseconds())
    return {"alert_id": alert.id, "alert_name": alert.name, "alert_type_id": alert.alert_type_id, "scheduled_at": at}


def shown(execution: pb.Execution) -> Any:
    """Give what a run did, without its number, its duration and its deliveries."""
    instances = [
        (i.id, i.action_group, i.action_subgroup, i.recovered, pb.NotifyVerdict.Name(i.verdict))
        for i in execution.instances
    ]
    return execution.scheduled_time.ToMicroseconds(), pb.AlertStatus.Name(execution.status), instances
