"""Alerts and their instances as rows, and back. The one place that knows the columns."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from tocsin_server.domain.alerting import (
    Action,
    Alert,
    AlertSpec,
    AlertStatus,
    NotifyWhen,
    RunError,
    RunErrorReason,
)
from tocsin_server.domain.errors import not_found
from tocsin_server.domain.instances import Instance, Memory, Notified

ALERT_COLUMNS = (
    "a.account, a.id, a.version, a.enabled, a.spec, a.created_by, a.updated_by, a.created_at, a.updated_at,"
    " a.mute_all, a.muted_instance_ids, t.status, t.last_execution_at, t.error_reason, t.error_message"
)
ALERTS = "alerts AS a JOIN alert_tasks AS t ON t.account = a.account AND t.alert_id = a.id"
INSTANCE_COLUMNS = (
    "id, action_group, action_subgroup, started_at, context, state, notified_group, notified_subgroup, notified_at,"
    " withheld_group, withheld_subgroup, withheld_at, untold_change, waits_since"
)


def alert_of(row: tuple[Any, ...]) -> Alert:
    """Make an alert of a row of ALERT_COLUMNS."""
    account, alert_id, version, enabled, spec, created_by, updated_by, created_at, updated_at, *task = row
    mute_all, muted_instance_ids, status, last_execution_at, error_reason, error_message = task
    return Alert(
        account=account,
        id=alert_id,
        version=version,
        enabled=bool(enabled),
        spec=spec_of(json.loads(spec)),
        created_by=created_by,
        updated_by=updated_by,
        created_at=created_at,
        updated_at=updated_at,
        status=AlertStatus(status),
        last_execution_at=last_execution_at,
        error=RunError(RunErrorReason(error_reason), error_message) if error_reason else None,
        mute_all=bool(mute_all),
        muted_instance_ids=tuple(json.loads(muted_instance_ids)) if muted_instance_ids != "[]" else (),
    )


def read_alert(connection: sqlite3.Connection, account: str, alert_id: str) -> Alert:
    """Read one alert."""
    row = connection.execute(
        f"SELECT {ALERT_COLUMNS} FROM {ALERTS} WHERE a.account = ? AND a.id = ?", (account, alert_id)
    ).fetchone()
    if row is None:
        raise not_found("alert", alert_id)
    return alert_of(row)


def spec_json(spec: AlertSpec) -> str:
    """Write what a user says of an alert."""
    return json.dumps(
        {
            "name": spec.name,
            "alert_type_id": spec.alert_type_id,
            "consumer": spec.consumer,
            "interval": spec.interval,
            "throttle": spec.throttle,
            "notify_when": spec.notify_when,
            "tags": spec.tags,
            "params": spec.params,
            "actions": [[a.group, a.configuration_id, a.params, a.escape] for a in spec.actions],
        }
    )


def spec_of(values: dict[str, Any]) -> AlertSpec:
    """Read what `spec_json` wrote."""
    notify_when = values.pop("notify_when")
    return AlertSpec(
        **values
        | {
            "notify_when": NotifyWhen(notify_when) if notify_when else None,
            "tags": tuple(values["tags"]),
            "actions": tuple(Action(*action) for action in values["actions"]),
        }
    )


def folded(spec: AlertSpec) -> tuple[str, str]:
    """Give name and tags as searches compare them; tags end in a line break each."""
    return spec.name.casefold(), "".join(f"{tag.casefold()}\n" for tag in spec.tags)


def instance_row(account: str, alert_id: str, instance: Instance) -> tuple[object, ...]:
    """Make the row of an instance: account, alert, and INSTANCE_COLUMNS."""
    return (
        account,
        alert_id,
        instance.id,
        instance.group,
        instance.subgroup,
        instance.started_at,
        json.dumps(instance.context),
        json.dumps(instance.state),
        *_stamp(instance.notified),
        *_stamp(instance.withheld),
        int(instance.untold_change),
        instance.waits_since,
    )


def _stamp(notified: Notified | None) -> tuple[str, str, int | None]:
    return (notified.group, notified.subgroup, notified.at) if notified else ("", "", None)


def read_claimed(
    connection: sqlite3.Connection, account: str, alert_id: str, number: int
) -> tuple[Alert, Memory, int | None] | None:
    """Read an alert, what its runs left behind, and when the newest successful one began.

    None when the run of this number does not hold any more: the alert was changed since, and is claimed anew.
    """
    row = connection.execute(
        f"SELECT {ALERT_COLUMNS}, t.state, t.previous_started_at FROM {ALERTS}"
        " WHERE a.account = ? AND a.id = ? AND t.run_number = ?",
        (account, alert_id, number),
    ).fetchone()
    if row is None:
        return None
    *columns, state, previous_started_at = row
    alert = alert_of(tuple(columns))
    return alert, Memory(alert.status, json.loads(state), _instances(connection, alert)), previous_started_at


def read_memory(connection: sqlite3.Connection, alert: Alert) -> tuple[Memory, int | None]:
    """Read what the runs of an alert left behind, and when the newest successful one began."""
    state, previous_started_at = connection.execute(
        "SELECT state, previous_started_at FROM alert_tasks WHERE account = ? AND alert_id = ?",
        (alert.account, alert.id),
    ).fetchone()
    return Memory(alert.status, json.loads(state), _instances(connection, alert)), previous_started_at


def _instances(connection: sqlite3.Connection, alert: Alert) -> dict[str, Instance]:
    rows = connection.execute(
        f"SELECT {INSTANCE_COLUMNS} FROM alert_instances WHERE account = ? AND alert_id = ? ORDER BY id",
        (alert.account, alert.id),
    )
    return {row[0]: _instance(row) for row in rows}


def _instance(row: tuple[Any, ...]) -> Instance:
    instance_id, group, subgroup, started_at, context, state, *stamps = row
    notified, withheld, (untold_change, waits_since) = stamps[:3], stamps[3:6], stamps[6:]
    return Instance(
        id=instance_id,
        group=group,
        subgroup=subgroup,
        started_at=started_at,
        context=json.loads(context),
        state=json.loads(state),
        notified=Notified(*notified) if notified[2] is not None else None,
        withheld=Notified(*withheld) if withheld[2] is not None else None,
        untold_change=bool(untold_change),
        waits_since=waits_since,
    )
