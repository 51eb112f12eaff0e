"""What an author says of an alert type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tocsin_server.domain.alerting import (
    TYPE_TIMEOUT_S,
    ActionGroup,
    ActionVariables,
    AlertType,
    Names,
    ParamsCheck,
)
from tocsin_server.plugins.running import PluginThreads, executor_of
from tocsin_server.plugins.services import ExecutorOptions, State

RECOVERED = ActionGroup("recovered", "Recovered")
NO_VARIABLES = ActionVariables()
ANYTHING: Mapping[str, Any] = {"type": "object"}
PluginExecutor: TypeAlias = "Callable[[ExecutorOptions], State | Awaitable[State]]"


@dataclass(frozen=True, slots=True)
class AlertTypeSpec:
    """An alert type of a plug-in; `executor` is a function, `async` or not.

    `id` is of a-z A-Z 0-9 _ - . and does not begin with a dot; by convention `<plug-in>.<type>`. The first of
    `action_groups` is the default unless `default_action_group_id` says otherwise; `recovery_action_group`
    is not among them. `params_schema` is a JSON Schema (2020-12); without one params may be anything.
    `producer` is the application that brings the type: the distribution unless set. `timeout_s` bounds a run,
    in seconds. A spec that contradicts itself is refused when it is loaded.
    """

    id: str
    name: str
    executor: PluginExecutor
    action_groups: tuple[ActionGroup, ...]
    default_action_group_id: str = ""
    recovery_action_group: ActionGroup = RECOVERED
    action_variables: ActionVariables = NO_VARIABLES
    params_schema: Mapping[str, Any] = field(default_factory=lambda: ANYTHING)
    check: ParamsCheck = lambda params: ()
    producer: str = ""
    default_interval: str = "1m"
    timeout_s: float = TYPE_TIMEOUT_S
    enabled: bool = True
    translations: Mapping[str, Names] = field(default_factory=dict)

    def alert_type(self, distribution: str, threads: PluginThreads) -> AlertType:
        """Make the type that the server registers; ValueError or a SchemaError for one that cannot be."""
        if not self.action_groups:
            raise ValueError(f"alert type {self.id!r} has no action groups")
        return AlertType(
            id=self.id,
            name=self.name,
            executor=executor_of(self.id, self.executor, self.timeout_s, threads),
            params_schema=self.params_schema,
            action_groups=tuple(self.action_groups),
            default_action_group_id=self.default_action_group_id or self.action_groups[0].id,
            recovery_action_group=self.recovery_action_group,
            action_variables=self.action_variables,
            producer=self.producer or distribution,
            default_interval=self.default_interval,
            timeout_s=self.timeout_s,
            enabled=self.enabled,
            check=self.check,
            translations=self.translations,
            apart=True,
        )
