"""Requests of the alerting service, made from plain Python: alerts and their actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tocsin import arguments
from tocsin.v1.alerting_pb2 import Action, Alert, AlertStatus, NotifyWhen, Schedule

RECOVERED = "recovered"
"""The group of an instance that is not active any more, unless its type names another."""


def action(configuration_id: str, group: str = "", **params: object) -> Action:
    """Say what to do when an instance is in a group (empty: the type's default group).

    Params belong to the kind of the configuration: email subject, body, to; webhook body. Every
    string is a mustache template.
    """
    return Action(id=configuration_id, group=group, params=arguments.struct("params", params))


def alert(
    name: str,
    alert_type_id: str,
    params: Mapping[str, object],
    *,
    actions: Iterable[Action] = (),
    interval: str = "",
    throttle: str = "",
    notify_when: str = "unspecified",
    tags: Iterable[str] = (),
    consumer: str = "tocsin",
    enabled: bool | None = None,
) -> Alert:
    """Describe an alert. `interval` and `throttle` are like "10s", "5m"; empty interval: the type's.

    `notify_when` is "on_active_alert", "on_throttle_interval" or "on_action_group_change".
    """
    return Alert(
        name=name,
        alert_type_id=alert_type_id,
        consumer=consumer,
        params=arguments.struct("params", params),
        actions=actions,
        schedule=Schedule(interval=interval) if interval else None,
        throttle=throttle,
        notify_when=arguments.member("notify_when", NotifyWhen, notify_when),
        tags=arguments.strings("tags", tags),
        enabled=enabled,
    )


def to_status(status: str) -> AlertStatus.ValueType:
    """Read a status: "pending", "ok", "active" or "error". Raises ValueError for others."""
    return arguments.member("status", AlertStatus, status)
