"""`.event-threshold` over a real log, with a clock that is held still."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tocsin_server.domain.alerting import (
    Action,
    Alert,
    AlertSpec,
    AlertStatus,
)
from tocsin_server.domain.event_log import Level, OwnEvent
from tocsin_server.domain.variables import Json

from tests.support.alert_house import MINUTE, SCRIPTED, T0, House, deliveries


def analysis(
    resource: str, *, account: str = "acme", level: Level = Level.ERROR, type: str = "system.image.failed"
) -> OwnEvent:
    return OwnEvent(account, type, "m", {}, level, "image_tag", resource)


THRESHOLD = AlertSpec(
    name="failures",
    alert_type_id=".event-threshold",
    consumer="c",
    interval="1m",
    params={
        "source": {"event_types": ["system.image.*"], "levels": ["error"]},
        "window": "5m",
        "threshold": 2,
        "group_by": ["resource_id"],
    },
    actions=(Action("default", "hook", {"body": "{{{context.reason}}}"}),),
)


async def counted(house: House, alert: Alert) -> list[str]:
    house.clock.time += MINUTE
    await house.run_due()
    return list((await house.alerts.state(alert.account, alert.id)).memory.instances)


async def test_event_threshold_over_the_log(house: House) -> None:
    """Groups become active, and recover when the window has passed them by."""
    alert = await house.create(THRESHOLD)
    await house.run_due()
    await house.append(analysis("nginx"), analysis("nginx"), analysis("redis"))
    await house.append(analysis("nginx", account="other"), analysis("redis", account="other"))
    await house.append(analysis("redis", level=Level.INFO), analysis("redis", type="system.feed.failed"))
    assert await counted(house, alert) == ["nginx"]
    assert deliveries(house)[0][3] == {"body": "2 events in 5m with resource_id nginx: >= 2"}
    await house.append(analysis("redis"))
    assert await counted(house, alert) == ["nginx", "redis"]
    house.clock.time += 10 * MINUTE
    assert await counted(house, alert) == []
    assert house.told()[-2:] == ["recovered_instance", "recovered_instance"]


@pytest.mark.parametrize(
    ("comparator", "threshold", "active"),
    [
        (">", 1e300, False),
        (">=", 1e300, False),
        ("<", 1e300, True),
        ("<=", 1e300, True),
        (">", 2**63 - 1, False),
        ("between", [0, 1e300], True),
        ("between", [2e300, 3e300], False),
        ("not_between", [0, 1e300], False),
    ],
)
async def test_a_threshold_may_be_larger_than_any_count(
    house: House, comparator: str, threshold: Json, active: bool
) -> None:
    condition: dict[str, Json] = {"comparator": comparator, "threshold": threshold}
    alert = await house.create(replace(THRESHOLD, params={**THRESHOLD.params, **condition}, actions=()))
    await house.append(analysis("nginx"))
    assert await counted(house, alert) == (["nginx"] if active else [])
    state = await house.alerts.state(alert.account, alert.id)
    assert state.memory.status is (AlertStatus.ACTIVE if active else AlertStatus.OK)


async def test_what_is_stored_after_the_scheduled_time_is_not_seen(house: House) -> None:
    """A re-run gives the same answer: `created_at < T`, whatever came since."""
    alert = await house.create(THRESHOLD)
    await house.append(analysis("nginx"), analysis("nginx"))
    house.clock.time += 1000
    assert [c.scheduled_at for c in await house.run_due()] == [T0]
    assert (await house.alerts.get("acme", alert.id)).status is AlertStatus.OK


async def test_tocsins_own_events_are_counted_only_when_asked_for(house: House) -> None:
    """A catch-all does not see them; a `system.` pattern does, but for those about the alert itself."""
    house.scripted.says("x")
    await house.create(SCRIPTED)
    everything: dict[str, Json] = {"window": "5m", "threshold": 1, "group_by": ["type"]}
    about_alerts: dict[str, Json] = everything | {"source": {"event_types": ["system.alerting.*"]}}
    catch_all = await house.create(replace(THRESHOLD, params=everything))
    watcher = await house.create(replace(THRESHOLD, params=about_alerts))
    await house.run_due()
    assert await counted(house, catch_all) == []
    assert await counted(house, watcher) == [
        "system.alerting.new_instance",
        "system.alerting.status_changed",
    ]


async def test_an_alert_never_counts_events_about_itself(house: House) -> None:
    about_alerts: dict[str, Json] = {
        "window": "5m",
        "threshold": 1,
        "source": {"event_types": ["system.alerting.*"]},
    }
    alert = await house.create(replace(THRESHOLD, params=about_alerts))
    await house.run_due()
    assert house.events() == [("status_changed", alert.id)]
    assert await counted(house, alert) == []
