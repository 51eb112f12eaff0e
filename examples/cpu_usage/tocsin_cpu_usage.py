"""An alert type: servers whose CPU usage is above a threshold, an instance for each.

The agents on the servers append what they measure as events `host.cpu`, such as
`{"type": "host.cpu", "source": {"host": "server_1"}, "details": {"usage": 0.92}}`. One read of the log
gives the mean of the last minute of all servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from tocsin_server import plugins

MEASURED_OVER = timedelta(minutes=1)


def cpu_usage_by_server(events: plugins.Events) -> Iterator[tuple[str, float]]:
    groups = events.aggregate(
        MEASURED_OVER, types=["host.cpu"], group_by=["host"], aggregation="avg", field="details.usage"
    )
    for group in groups:
        if group.value is not None:
            yield group.values[0], group.value


async def execute(options: plugins.ExecutorOptions) -> plugins.State:
    services, threshold = options.services, options.params["threshold"]
    for server, usage in cpu_usage_by_server(services.events):
        # Only execute if the usage is greater than the threshold.
        if usage > threshold:
            # The id says what the instance is about; by it `get_state` finds what the run before left.
            instance = services.alert_instance_factory(server)
            previous = instance.get_state().get("cpuUsage")
            # The whole state is replaced; it is there again in the next run.
            instance.replace_state({"cpuUsage": usage})
            # "default" is the group whose actions run; the rest is for their templates.
            instance.schedule_actions(
                "default",
                {"server": server, "hasCpuUsageIncreased": previous is not None and usage > previous},
            )
    services.log(["debug", "cpu"], {"threshold": threshold})
    # State that is not about one server: `options.state` at the next run.
    return {"lastChecked": options.started_at}


CPU_USAGE = plugins.AlertTypeSpec(
    id="example.cpu-usage",
    name="CPU usage",
    executor=execute,
    params_schema={
        "type": "object",
        "required": ["threshold"],
        "additionalProperties": False,
        "properties": {"threshold": {"type": "number", "minimum": 0, "maximum": 1}},
    },
    action_groups=(plugins.ActionGroup("default", "Default"),),
    action_variables=plugins.ActionVariables(
        context=(
            plugins.ActionVariable("server", "the server"),
            plugins.ActionVariable("hasCpuUsageIncreased", "boolean indicating if the cpu usage has increased"),
        ),
        state=(plugins.ActionVariable("cpuUsage", "CPU usage"),),
    ),
    translations={
        "de": plugins.Names(
            name="CPU-Auslastung",
            action_groups={"default": "Standard", "recovered": "Erholt"},
            variables={"context.server": "der Server", "state.cpuUsage": "CPU-Auslastung"},
        )
    },
)
