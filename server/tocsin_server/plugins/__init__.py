"""What an author of alert types imports: `from tocsin_server import plugins`.

A plug-in is a distribution with an entry point in the group `tocsin.alert_types`; its value is an
`AlertTypeSpec`, a list of them, or a function without arguments that gives either. An executor is a
function, `async` or not, of `ExecutorOptions`; what it returns is the alert's state at the next run.

    from tocsin_server import plugins

    async def execute(options: plugins.ExecutorOptions) -> plugins.State:
        instance = options.services.alert_instance_factory("server_1")
        instance.replace_state({"cpuUsage": 80}).schedule_actions("default", {"server": "server_1"})
        return {"lastChecked": options.started_at}

    TYPE = plugins.AlertTypeSpec(
        id="example.cpu",
        name="CPU usage",
        executor=execute,
        action_groups=(plugins.ActionGroup("default", "Default"),),
    )

`docs/alert-types/plug-ins.md` has the whole of it.
"""

from __future__ import annotations

from tocsin_server.domain.aggregation import EventSample, Group
from tocsin_server.domain.alerting import ActionGroup, ActionVariable, ActionVariables, Names
from tocsin_server.domain.errors import Violation
from tocsin_server.plugins.services import (
    AlertInstance,
    AlreadyScheduled,
    Events,
    ExecutorOptions,
    RunEnded,
    Services,
    State,
)
from tocsin_server.plugins.spec import AlertTypeSpec

__all__ = [
    "ActionGroup",
    "ActionVariable",
    "ActionVariables",
    "AlertInstance",
    "AlertTypeSpec",
    "AlreadyScheduled",
    "EventSample",
    "Events",
    "ExecutorOptions",
    "Group",
    "Names",
    "RunEnded",
    "Services",
    "State",
    "Violation",
]
