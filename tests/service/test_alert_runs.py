"""Runs of alerts on a real store with a clock that is held still: fences, crashes, catching up."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tocsin_server.alert_types.event_threshold import ALERT_TYPE
from tocsin_server.dispatch.execution import Execution
from tocsin_server.domain.alert_checks import checked
from tocsin_server.domain.alerting import (
    Action,
    ActionGroup,
    Alert,
    AlertSpec,
    AlertStatus,
    AlertType,
    AlertTypes,
    InstanceReport,
    Report,
    RunContext,
    RunErrorReason,
)
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import Level, OwnEvent
from tocsin_server.domain.execution import Claim
from tocsin_server.domain.ports import Runtime
from tocsin_server.domain.schedule import SECOND_US
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.variables import Json
from tocsin_server.store.alerting import Alerts
from tocsin_server.store.database import Readers, open_store
from tocsin_server.store.execution import Runs
from tocsin_server.store.writer import Transaction, Writer

MINUTE = 60 * SECOND_US
T0 = 1_800_000_000 * SECOND_US
LEASE = 300 * SECOND_US


@dataclass
class Clock:
    """A clock that moves when a test says so; its waits are only remembered."""

    time: int = T0
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def runtime(self) -> Runtime:
        return Runtime(
            now=lambda: self.time,
            monotonic=lambda: self.time / SECOND_US,
            new_id=lambda: f"{next(self.ids):032x}",
            jitter=lambda: 0.5,
        )


class Scripted:
    """An executor that a test writes run by run; it remembers what it was given."""

    def __init__(self) -> None:
        self.report: Callable[[RunContext], Report] = lambda context: Report()
        self.seen: list[RunContext] = []

    def __call__(self, context: RunContext) -> Report:
        self.seen.append(context)
        return self.report(context)

    def says(self, *ids: str) -> None:
        found = tuple(InstanceReport(id, "default", {"server": id}) for id in ids)
        self.report = lambda context: Report(found)


@dataclass
class House:
    """One open store with its parts, as `app.py` puts them together."""

    path: Path
    clock: Clock
    scripted: Scripted = field(default_factory=Scripted)

    def __post_init__(self) -> None:
        runtime = self.clock.runtime()
        self.store = open_store(f"sqlite:///{self.path}", runtime.new_id)
        self.readers = Readers(self.store, 2)
        self.writer = Writer(self.store, runtime, lambda stored, deleted: None)
        self.writer.start()
        self.alerts = Alerts(self.writer, self.readers)
        self.runs = Runs(self.writer, self.readers)
        self.types = AlertTypes([ALERT_TYPE, scripted_type(self.scripted)])
        self.execution = Execution(self.runs, self.types, runtime)

    def close(self) -> None:
        self.writer.stop()
        self.readers.close()
        self.store.close()

    def reopened(self) -> House:
        """The same file in a new process: what was not committed is gone."""
        self.close()
        return House(self.path, self.clock, self.scripted)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.path) as connection:
            return connection.execute(sql, values).fetchall()

    def events(self) -> list[tuple[str, str]]:
        rows = self.rows("SELECT type, resource_id FROM events WHERE service = 'tocsin' ORDER BY position")
        return [(type.removeprefix("system.alerting."), alert) for type, alert in rows]

    def told(self) -> list[str]:
        return [kind for kind, _ in self.events() if kind != "status_changed"]

    async def create(self, spec: AlertSpec, **more: Any) -> Alert:
        alert_type = self.types.usable(spec.alert_type_id)
        bare = Alert("acme", "", 0, True, checked(spec, alert_type), "u", "u", 0, 0)
        return await self.alerts.create(replace(bare, **more), "", b"")

    async def append(self, *events: OwnEvent) -> None:
        await self.writer.run(lambda tx: tx.append(events))

    async def claim(self) -> Claim:
        (claim,) = (await self.runs.claim(10, LEASE)).claims
        return claim

    async def run_due(self) -> list[Claim]:
        """Execute all that is due now."""
        claims = (await self.runs.claim(10, LEASE)).claims
        for claim in claims:
            await self.execution.execute(claim)
        return list(claims)

    async def configure(self, *ids: str, enabled: bool = True, account: str = "acme") -> None:
        def unit(transaction: Transaction) -> None:
            for id in ids:
                transaction.connection.execute(
                    "INSERT INTO endpoint_configurations (account, id, kind, name, description, enabled,"
                    " connection, selectors, version, created_at, updated_at)"
                    " VALUES (?, ?, 'webhook', '', '', ?, '{}', '[]', 1, 0, 0)",
                    (account, id, enabled),
                )

        await self.writer.run(unit)


def scripted_type(executor: Callable[[RunContext], Report], **changes: Any) -> AlertType:
    bare = AlertType(
        id="test.scripted",
        name="Scripted",
        executor=executor,
        params_schema={"type": "object", "properties": {"n": {"type": "number"}}},
        action_groups=(ActionGroup("default", "Default"),),
        default_action_group_id="default",
    )
    return replace(bare, **changes)


SCRIPTED = AlertSpec(
    name="scripted",
    alert_type_id="test.scripted",
    consumer="c",
    interval="1m",
    actions=(
        Action("default", "hook", {"body": "{{context.server}} is bad"}),
        Action("recovered", "hook", {"body": "{{context.server}} is fine"}),
    ),
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    houses = [House(tmp_path / "tocsin.db", Clock())]
    await houses[0].configure("hook")
    yield houses[0]
    if not houses[0].store.lock.closed:
        houses[0].close()


def deliveries(house: House) -> list[tuple[Any, ...]]:
    rows = house.rows("SELECT route_key, state, reason, content, subject FROM deliveries ORDER BY id")
    return [
        (key, state, reason, json.loads(content or "{}"), json.loads(subject))
        for key, state, reason, content, subject in rows
    ]


async def test_a_run_writes_everything_at_once(house: House) -> None:
    """XE5: state, instances, events, deliveries and the next run in one transaction."""
    alert = await house.create(SCRIPTED)
    house.scripted.says("web-1")
    (claim,) = await house.run_due()
    assert (claim.number, claim.scheduled_at, claim.missed) == (1, T0, 0)
    assert house.events() == [("new_instance", alert.id), ("status_changed", alert.id)]
    assert deliveries(house) == [
        (
            f"alert/{alert.id}/1/web-1/0",
            "PENDING",
            "",
            {"body": "web-1 is bad"},
            {
                "alert_id": alert.id,
                "instance_id": "web-1",
                "action_group": "default",
                "run_number": 1,
            },
        )
    ]
    stored = await house.alerts.get("acme", alert.id)
    assert (stored.status, stored.last_execution_at, stored.error) == (AlertStatus.ACTIVE, T0, None)
    state = await house.alerts.state("acme", alert.id)
    assert list(state.memory.instances) == ["web-1"]
    assert state.previous_started_at == T0


async def test_the_next_run_is_at_the_alerts_own_phase(house: House) -> None:
    alert = await house.create(SCRIPTED)
    await house.run_due()
    assert await house.run_due() == []
    (next_run_at,) = house.rows("SELECT next_run_at FROM alert_tasks")[0]
    assert T0 < next_run_at <= T0 + MINUTE
    house.clock.time = next_run_at
    (claim,) = await house.run_due()
    assert claim.scheduled_at == next_run_at
    assert (await house.runs.claim(1, LEASE)).next_due_at == next_run_at + MINUTE
    assert [context.previous_started_at for context in house.scripted.seen] == [None, T0]
    assert {context.alert_id for context in house.scripted.seen} == {alert.id}


@pytest.mark.parametrize("moment", ["claimed", "performed"])
async def test_a_crash_repeats_the_run_and_applies_it_once(house: House, moment: str) -> None:
    """Trap 6, XE5: kill -9 before the settling transaction; the same scheduled time, one message."""
    await house.create(SCRIPTED)
    house.scripted.says("web-1")
    first = await house.claim()
    if moment == "performed":
        run = await house.runs.load(first)
        assert run is not None
        await house.execution._outcome(run)
    house.clock.time += 1000  # later by less than a tick: a newer tick would be run in its place
    after = house.reopened()
    try:
        assert deliveries(after) == []
        await after.runs.release()
        (second,) = await after.run_due()
        assert (second.scheduled_at, second.number) == (first.scheduled_at, first.number + 1)
        assert len(deliveries(after)) == 1
        assert after.told() == ["new_instance"]
        await after.execution.execute(first)
        assert len(deliveries(after)) == 1
    finally:
        after.close()


async def test_a_lease_keeps_others_away_until_it_ends(house: House) -> None:
    """XE8: one claim at a time; the first is fenced off when it comes late."""
    await house.create(SCRIPTED)
    house.scripted.says("web-1")
    first = await house.claim()
    assert await house.run_due() == []
    house.clock.time += LEASE
    (second,) = await house.run_due()
    assert second.number == first.number + 1
    written = deliveries(house)
    await house.execution.execute(first)
    assert deliveries(house) == written


async def test_three_hours_down_are_one_run(house: House) -> None:
    """XE7: the newest tick, and the next one in its place."""
    await house.create(SCRIPTED)
    await house.run_due()
    house.clock.time += 3 * 60 * MINUTE
    (claim,) = await house.run_due()
    assert house.clock.time - MINUTE < claim.scheduled_at <= house.clock.time
    assert claim.missed in (179, 180)
    assert await house.run_due() == []


async def test_what_was_reported_recovers_with_a_message(house: House) -> None:
    await house.create(SCRIPTED)
    house.scripted.says("web-1")
    await house.run_due()
    house.clock.time += MINUTE
    house.scripted.says()
    await house.run_due()
    assert house.told() == ["new_instance", "recovered_instance"]
    assert [content["body"] for _, _, _, content, _ in deliveries(house)] == ["web-1 is bad", "web-1 is fine"]
    assert house.rows("SELECT * FROM alert_instances") == []


async def test_an_executor_that_raises_changes_only_the_status(house: House) -> None:
    """XE1: and its text does not leave the log."""
    alert = await house.create(SCRIPTED)
    house.scripted.says("web-1")
    await house.run_due()

    def explode(context: RunContext) -> Report:
        raise RuntimeError("the password is 1234")

    house.scripted.report = explode
    house.clock.time += MINUTE
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.status is AlertStatus.ERROR
    assert failed.error is not None
    assert failed.error.reason is RunErrorReason.EXECUTE
    assert "1234" not in failed.error.message
    assert list((await house.alerts.state("acme", alert.id)).memory.instances) == ["web-1"]
    house.scripted.says("web-1")
    house.clock.time += MINUTE
    await house.run_due()
    assert house.told() == ["new_instance"]
    assert [c.previous_started_at for c in house.scripted.seen][-1] == T0


async def test_a_run_that_takes_too_long_is_an_error(house: House) -> None:
    """XE2: the query is interrupted, the alert runs again at its next tick."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def slow(context: RunContext) -> Report:
        context.events._connection.execute(endless).fetchone()  # type: ignore[attr-defined]
        return Report()

    house.types = AlertTypes([scripted_type(slow, timeout_s=0.05)])
    house.execution = Execution(house.runs, house.types, house.clock.runtime())
    alert = await house.create(SCRIPTED)
    await house.run_due()
    late = await house.alerts.get("acme", alert.id)
    assert late.error is not None
    assert late.error.reason is RunErrorReason.TIMEOUT
    assert house.rows("SELECT next_run_at > ? FROM alert_tasks", T0) == [(1,)]


@pytest.mark.parametrize("types", [[], [scripted_type(lambda c: Report(), enabled=False)]])
async def test_a_type_that_is_gone_or_off_is_an_error(house: House, types: list[AlertType]) -> None:
    """C9."""
    alert = await house.create(SCRIPTED)
    house.execution = Execution(house.runs, AlertTypes(types), house.clock.runtime())
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.error is not None
    assert failed.error.reason is RunErrorReason.DISABLED


async def test_params_are_checked_before_each_run(house: House) -> None:
    """R8: a type whose schema has changed."""
    alert = await house.create(SCRIPTED)
    strict = scripted_type(house.scripted, params_schema={"type": "object", "required": ["n"]})
    house.execution = Execution(house.runs, AlertTypes([strict]), house.clock.runtime())
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.error is not None
    assert failed.error.reason is RunErrorReason.PARAMS
    assert house.scripted.seen == []


@pytest.mark.parametrize("change", ["update", "disable", "delete", "disable and enable"])
async def test_a_change_during_a_run_drops_the_run(house: House, change: str) -> None:
    """XE9: nothing of a run is written that began with another alert."""
    alert = await house.create(SCRIPTED)
    house.scripted.says("web-1")
    claim = await house.claim()
    run = await house.runs.load(claim)
    assert run is not None
    outcome = await house.execution._outcome(run)
    if change == "update":
        await house.alerts.update(alert, run_now=False)
    elif change == "delete":
        await house.alerts.delete("acme", alert.id)
    else:
        await house.alerts.disable("acme", alert.id, "u")
        if "enable" in change:
            await house.alerts.enable("acme", alert.id, "u")
    assert not await house.runs.settle(run, outcome)
    assert deliveries(house) == []
    assert house.events() == []
    # Changed, it is due again for the same time at once; disabled or deleted, never.
    again = await house.run_due()
    assert [c.scheduled_at for c in again] == ([T0] if change in ("update", "disable and enable") else [])


async def test_disabling_ends_the_instances(house: House) -> None:
    """Trap 7: closed with a reason, nobody notified, nothing left when it is enabled again."""
    alert = await house.create(SCRIPTED)
    house.scripted.says("web-1")
    await house.run_due()
    sent = deliveries(house)
    disabled = await house.alerts.disable("acme", alert.id, "someone")
    assert (disabled.enabled, disabled.updated_by, disabled.status) == (False, "someone", AlertStatus.PENDING)
    assert house.told() == ["new_instance", "recovered_instance"]
    assert deliveries(house) == sent
    assert (await house.alerts.state("acme", alert.id)).memory.instances == {}
    house.clock.time += 10 * MINUTE
    assert await house.run_due() == []
    assert (await house.alerts.disable("acme", alert.id, "u")).version == disabled.version
    await house.alerts.enable("acme", alert.id, "u")
    (claim,) = await house.run_due()
    assert (claim.scheduled_at, claim.missed) == (house.clock.time, 0)
    assert house.told() == ["new_instance", "recovered_instance", "new_instance"]


async def test_how_a_delivery_waits(house: House) -> None:
    """A configuration that is off, an endpoint that is off, one that was deleted, another account's."""
    await house.configure("off", enabled=False)
    await house.configure("theirs", account="other")
    ids = ("hook", "off", "gone", "theirs")
    actions = tuple(Action("default", id, {"body": "x"}) for id in ids)
    await house.create(replace(SCRIPTED, actions=actions))
    house.scripted.says("a")
    await house.run_due()
    assert [(state, reason) for _, state, reason, _, _ in deliveries(house)] == [
        ("PENDING", ""),
        ("PAUSED", "DISABLED"),
        ("CANCELLED", "DELETED"),
        ("CANCELLED", "DELETED"),
    ]


async def test_a_message_that_cannot_be_rendered_ends_at_once(house: House) -> None:
    """XD27: EXHAUSTED {RENDER}, and its neighbours go out."""
    await house.create(SCRIPTED)
    big = {"server": "<" * 60_000}
    house.scripted.report = lambda context: Report(
        (InstanceReport("big", "default", big), InstanceReport("small", "default", {"server": "s"}))
    )
    await house.run_due()
    assert [(state, reason) for _, state, reason, _, _ in deliveries(house)] == [
        ("EXHAUSTED", "RENDER"),
        ("PENDING", ""),
    ]


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


async def test_an_old_version_is_not_written_over_a_new_one(house: House) -> None:
    alert = await house.create(SCRIPTED)
    first = await house.alerts.update(replace(alert, spec=replace(alert.spec, name="one")), run_now=False)
    with pytest.raises(TocsinError) as refused:
        await house.alerts.update(replace(alert, spec=replace(alert.spec, name="two")), run_now=False)
    assert refused.value.reason is Reason.CONFLICT
    assert await house.alerts.get("acme", alert.id) == first


async def test_an_account_has_so_many_alerts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_server.store.alerting.ALERTS_MAX", 2)
    await house.create(SCRIPTED, account="other")
    await house.create(SCRIPTED)
    await house.create(SCRIPTED)
    with pytest.raises(TocsinError) as refused:
        await house.create(SCRIPTED)
    assert refused.value.reason is Reason.LIMIT_REACHED


async def test_an_executor_cannot_group_by_anything_else(house: House) -> None:
    """No word of an executor reaches a statement."""

    def curious(context: RunContext) -> Report:
        context.events.count(EventFilter(None), created_before=T0, group_by=["body FROM events --"])
        return Report()

    house.scripted.report = curious
    alert = await house.create(SCRIPTED)
    await house.run_due()
    failed = await house.alerts.get("acme", alert.id)
    assert failed.error is not None
    assert "ValueError" in failed.error.message


async def test_every_call_keeps_to_the_account(house: House) -> None:
    """P5: another account's alert does not exist."""
    alert = await house.create(SCRIPTED)
    calls: Sequence[Callable[[], Any]] = (
        lambda: house.alerts.get("other", alert.id),
        lambda: house.alerts.update(replace(alert, account="other"), run_now=True),
        lambda: house.alerts.delete("other", alert.id),
        lambda: house.alerts.enable("other", alert.id, "u"),
        lambda: house.alerts.disable("other", alert.id, "u"),
        lambda: house.alerts.state("other", alert.id),
    )
    for call in calls:
        with pytest.raises(TocsinError) as refused:
            await call()
        assert refused.value.reason is Reason.NOT_FOUND
    assert await house.alerts.kinds("other", ["hook"]) == {}
    assert await house.alerts.get("acme", alert.id) == alert
