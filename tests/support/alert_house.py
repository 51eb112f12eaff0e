"""Alerts on a real store with a clock that is held still, without a network: to run them step by step."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tocsin_server.alert_types.event_threshold import ALERT_TYPE
from tocsin_server.dispatch.execution import Execution
from tocsin_server.domain.alert_checks import checked
from tocsin_server.domain.alerting import (
    Action,
    ActionGroup,
    Alert,
    AlertSpec,
    AlertType,
    AlertTypes,
    InstanceReport,
    Report,
    RunContext,
)
from tocsin_server.domain.event_log import OwnEvent
from tocsin_server.domain.execution import Claim
from tocsin_server.domain.ports import Runtime
from tocsin_server.domain.schedule import SECOND_US
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


def deliveries(house: House) -> list[tuple[Any, ...]]:
    rows = house.rows("SELECT route_key, state, reason, content, subject FROM deliveries ORDER BY id")
    return [
        (key, state, reason, json.loads(content or "{}"), json.loads(subject))
        for key, state, reason, content, subject in rows
    ]
