"""The built-in types on a real store, run by run: what they find becomes instances, events and messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tocsin_server.alert_types import discover
from tocsin_server.dispatch.execution import Execution
from tocsin_server.domain.alerting import Action, Alert, AlertSpec, AlertStatus, AlertTypes
from tocsin_server.domain.event_log import OwnEvent
from tocsin_server.domain.variables import Json
from tocsin_server.store import event_aggregates

from tests.support.alert_house import MINUTE, House, deliveries

ACTIONS = tuple(
    Action(group, "hook", {"body": f"{group} {{{{alertInstanceId}}}}: {{{{{{context.reason}}}}}}"})
    for group in ("default", "recovered")
)


def spec(type_id: str, actions: tuple[Action, ...] = ACTIONS, **params: Any) -> AlertSpec:
    source = {"event_types": ["system.scan.*"]}
    return AlertSpec(
        name="scans", alert_type_id=type_id, consumer="c", interval="1m", actions=actions,
        params={"window": "5m", "source": source, **params},
    )  # fmt: skip


def serving_all(house: House) -> House:
    """Let a house have every type that comes with the server."""
    house.types = AlertTypes(discover())
    house.execution = Execution(house.runs, house.types, house.clock.runtime())
    return house


@pytest.fixture
def types(house: House) -> House:
    return serving_all(house)


async def scan(house: House, resource: str, times: int = 1, **details: Json) -> None:
    await house.append(*[OwnEvent("acme", "system.scan.done", "m", details, resource_id=resource)] * times)


async def groups(house: House, alert: Alert, minutes: int = 1) -> dict[str, str]:
    """Let time pass, run for the newest minute that is due, and say in which group each instance is."""
    house.clock.time += minutes * MINUTE
    await house.run_due()
    memory = (await house.alerts.state("acme", alert.id)).memory
    return {id: instance.group for id, instance in memory.instances.items()}


def sent(house: House) -> list[str]:
    return [content["body"] for _, _, _, content, _ in deliveries(house)]


def instances_told(house: House) -> list[str]:
    return [kind for kind in house.told() if kind.endswith("_instance")]


async def test_a_users_threshold_of_failures_is_told_of(types: House) -> None:
    """D04: when a scan has more failures than its user allows, by severity, and once until it is over."""
    severities: list[Mapping[str, Json]] = [
        {"group": "critical", "threshold": 100},
        {"group": "warning", "threshold": 10},
    ]
    actions = tuple(
        Action(group, "hook", {"body": f"{group}: {{{{context.value}}}} failures of {{{{context.group.resource_id}}}}"})
        for group in ("warning", "critical", "recovered")
    )
    wanted = spec(
        ".event-threshold", actions, aggregation="max", field="details.summary.failed", group_by=["resource_id"],
        severities=severities, recovery={"comparator": "<", "threshold": 5},
    )  # fmt: skip
    alert = await types.create(replace(wanted, throttle="1h"))
    await types.run_due()
    await scan(types, "profile-1", summary={"failed": 12})
    await scan(types, "profile-2", summary={"failed": 9})
    assert await groups(types, alert) == {"profile-1": "warning"}
    await scan(types, "profile-1", summary={"failed": 140})
    assert await groups(types, alert) == {"profile-1": "critical"}
    await scan(types, "profile-1", summary={"failed": 7})
    assert await groups(types, alert, 5) == {"profile-1": "critical"}  # held: not yet below 5
    await scan(types, "profile-1", summary={"failed": 4})
    assert await groups(types, alert, 5) == {}
    assert sent(types) == [
        "warning: 12 failures of profile-1",
        "critical: 140 failures of profile-1",
        "recovered: 7 failures of profile-1",
    ]


async def test_what_cannot_be_decoded_in_time_is_an_error_and_no_recovery(
    types: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 8."""
    alert = await types.create(
        spec(".event-threshold", aggregation="sum", field="details.n", threshold=3, group_by=["resource_id"])
    )
    await types.run_due()
    await scan(types, "a", 3, n=1)
    assert await groups(types, alert) == {"a": "default"}
    monkeypatch.setattr(event_aggregates, "EVENTS_DECODED_MAX", 2)
    assert await groups(types, alert) == {"a": "default"}
    failed = await types.alerts.get("acme", alert.id)
    assert failed.status is AlertStatus.ERROR
    assert failed.error is not None
    assert failed.error.reason == "LIMIT"
    assert failed.error.message.startswith("more than 2 events would have to be decoded")
    monkeypatch.undo()
    assert await groups(types, alert, 10) == {}


async def test_what_is_silent_is_told_of_until_it_is_back(types: House) -> None:
    alert = await types.create(spec(".event-absence", group_by=["resource_id"]))
    await scan(types, "a")
    await scan(types, "b")
    assert await groups(types, alert) == {}
    await scan(types, "b")
    assert await groups(types, alert, 5) == {"a": "default"}
    assert await groups(types, alert, 5) == {"a": "default", "b": "default"}
    await scan(types, "a")
    assert await groups(types, alert) == {"b": "default"}
    assert [text.partition(":")[0] for text in sent(types)] == ["default a"] * 2 + ["default b"] + [
        "recovered a",
        "default b",
    ]


async def test_what_is_forgotten_is_not_well_again(types: House) -> None:
    """Its end is in the log with its reason, and nobody is told that it has recovered."""
    alert = await types.create(spec(".event-absence", group_by=["resource_id"], forget_after="30m"))
    await scan(types, "a")
    assert await groups(types, alert, 10) == {"a": "default"}
    assert await groups(types, alert, 30) == {}
    assert [text.partition(":")[0] for text in sent(types)] == ["default a"]
    assert instances_told(types) == ["new_instance", "recovered_instance"]
    (message,) = types.rows("SELECT body FROM events WHERE type = 'system.alerting.recovered_instance'")
    assert b"instance a ended: forgotten" in message[0]
    assert await groups(types, alert) == {}


async def test_a_spike_over_a_restart(types: House) -> None:
    """Trap 13: nothing of it is in the process; no verdict before the log reaches back far enough."""
    alert = await types.create(spec(".event-spike", height=3, reference_windows=2))
    await scan(types, "a", 9)
    assert await groups(types, alert, 4) == {}
    state = (await types.alerts.state("acme", alert.id)).memory.state
    assert state == {"first_verdict_at": "2027-01-15T08:15:00.000000Z"}
    await scan(types, "a", 2)
    assert await groups(types, alert, 10) == {}
    house = serving_all(types.reopened())
    await scan(house, "a", 40)
    assert await groups(house, alert, 2) == {"*": "default"}
    house = serving_all(house.reopened())
    assert await groups(house, alert) == {"*": "default"}
    assert await groups(house, alert, 10) == {}
    assert sent(house)[0] == "default *: 40 events in 5m: 40 times more than 1"
    assert instances_told(house) == ["new_instance", "recovered_instance"]
    house.close()
