"""One alert that lives through runs, minute by minute; and the types and alerts that tests share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tocsin_server.domain.alerting import (
    Action,
    ActionGroup,
    Alert,
    AlertSpec,
    AlertType,
    InstanceReport,
    Report,
    RunError,
    RunErrorReason,
)
from tocsin_server.domain.execution import Claim, Run, RunOutcome, advance, fail, silence
from tocsin_server.domain.instances import Memory
from tocsin_server.domain.schedule import SECOND_US

MINUTE = 60 * SECOND_US
T0 = 1_800_000_000 * SECOND_US

TYPE = AlertType(
    id="example.cpu",
    name="CPU",
    executor=lambda context: Report(),
    params_schema={},
    action_groups=(ActionGroup("default", "High"), ActionGroup("critical", "Critical")),
    default_action_group_id="default",
)
ALERT = Alert(
    account="acme",
    id="123",
    version=1,
    enabled=True,
    spec=AlertSpec(
        name="cpu alert",
        alert_type_id=TYPE.id,
        consumer="ops",
        interval="1m",
        tags=("infra", "cpu"),
        actions=(
            Action("default", "mail", {"body": "{{context.server}} {{state.cpuUsage}}"}),
            Action("critical", "page", {"body": "critical {{context.server}}"}),
            Action("recovered", "mail", {"body": "{{context.server}} is fine"}),
        ),
    ),
    created_by="u",
    updated_by="u",
    created_at=0,
    updated_at=0,
)


def spec(**changes: Any) -> Alert:
    return replace(ALERT, spec=replace(ALERT.spec, **changes))


def found(id: str, group: str | None = "default", subgroup: str = "", **context: Any) -> InstanceReport:
    return InstanceReport(id=id, group=group, subgroup=subgroup, context={"server": id} | context)


@dataclass
class Life:
    """Runs one alert minute by minute, feeding each run what the one before left behind."""

    alert: Alert = ALERT
    at: int = T0
    memory: Memory = field(default_factory=Memory)

    def run(self, *reports: InstanceReport, silenced: Iterable[str] = (), **more: Any) -> RunOutcome:
        outcome = advance(self.alert, TYPE, self.memory, Report(reports, **more), self.at)
        silences = {one.instance_id: "s" for one in outcome.decisions if one.instance_id in silenced}
        if not silences:
            return self.keep(outcome)
        claim = Claim(self.alert.account, self.alert.id, self.alert.spec.alert_type_id, 1, self.at, self.at, 0)
        return self.keep(silence(Run(claim, self.alert, self.memory, None), outcome, silences))

    def fail(self) -> RunOutcome:
        return self.keep(fail(self.memory, RunError(RunErrorReason.EXECUTE, "boom")))

    def keep(self, outcome: RunOutcome) -> RunOutcome:
        self.memory = Memory(outcome.status, outcome.state, {i.id: i for i in outcome.instances})
        self.at += MINUTE
        return outcome


def sent(outcome: RunOutcome) -> list[tuple[str, str]]:
    return [(n.instance_id, n.group) for n in outcome.notifications]


def verdicts(outcome: RunOutcome) -> dict[str, str]:
    return {one.instance_id: one.verdict.value for one in outcome.decisions}


def told(outcome: RunOutcome) -> list[str]:
    return [f"{t.kind} {t.details['instance_id']}" for t in outcome.transitions if "instance_id" in t.details]


def statuses(outcome: RunOutcome) -> list[tuple[Any, Any]]:
    return [(t.details["previous_status"], t.details["status"]) for t in outcome.transitions if "status" in t.details]
