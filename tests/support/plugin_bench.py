"""An alert whose type is a plug-in that a test writes run by run, on a real store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from tocsin_server.dispatch.execution import Execution
from tocsin_server.domain.alerting import Action, Alert, AlertSpec, AlertTypes
from tocsin_server.plugins import ActionGroup, AlertTypeSpec, ExecutorOptions, State
from tocsin_server.plugins.running import HUNG_MAX, PluginThreads

from tests.support.alert_house import MINUTE, House, deliveries

Body = Callable[[ExecutorOptions], Any]
GROUPS = (ActionGroup("default", "Default"), ActionGroup("warning", "Warning"))
ALERT = AlertSpec(
    name="cpu alert",
    alert_type_id="example.cpu",
    consumer="c",
    interval="1m",
    tags=("infra", "cpu"),
    params={"server": "server_1", "threshold": 0.8},
    actions=(
        Action("default", "hook", {"body": "{{alertInstanceId}} {{context.server}} {{state.cpuUsage}}"}),
        Action("warning", "hook", {"body": "warning {{alertInstanceId}}"}),
        Action("recovered", "hook", {"body": "{{alertInstanceId}} is fine"}),
    ),
)


class Bench:
    """An alert whose type is a plug-in, run by run."""

    def __init__(self, house: House, timeout_s: float, threads: PluginThreads) -> None:
        self.house = house
        self.seen: list[ExecutorOptions] = []
        self.body: Body = lambda options: None
        spec = AlertTypeSpec("example.cpu", "CPU", self.execute, GROUPS, timeout_s=timeout_s)
        self.type = spec.alert_type("example", threads)
        house.types = AlertTypes([self.type])
        house.execution = Execution(house.runs, house.types, house.clock.runtime())
        self.alert: Alert

    def execute(self, options: ExecutorOptions) -> State | Awaitable[State]:
        self.seen.append(options)
        answer: State | Awaitable[State] = self.body(options)
        return answer

    async def run(self, body: Body) -> Alert:
        """Run once, a minute after the run before."""
        await self.run_all(body)
        return await self.house.alerts.get("acme", self.alert.id)

    async def run_all(self, body: Body) -> None:
        """Run every alert once, a minute after the run before."""
        self.body = body
        await self.house.run_due()
        self.house.clock.time += MINUTE

    async def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        memory = (await self.house.alerts.state("acme", self.alert.id)).memory
        return dict(memory.state), {id: dict(one.state) for id, one in memory.instances.items()}

    def sent(self) -> list[Any]:
        return [content["body"] for _, _, _, content, _ in deliveries(self.house)]


async def bench_of(
    house: House, timeout_s: float = 30.0, hung_max: Mapping[str, int] = HUNG_MAX, **changes: Any
) -> Bench:
    bench = Bench(house, timeout_s, PluginThreads(hung_max))
    bench.alert = await house.create(replace(ALERT, **changes))
    return bench


def schedule(id: str, group: str = "default", sub_group: str = "", **state: Any) -> Body:
    def body(options: ExecutorOptions) -> None:
        instance = options.services.alert_instance_factory(id)
        instance.replace_state(state) if state else None
        context = {"server": id}
        if sub_group:
            instance.schedule_actions_with_sub_group(group, sub_group, context)
        else:
            instance.schedule_actions(group, context)

    return body
