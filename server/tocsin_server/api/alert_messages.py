"""Alerts and alert types between their messages and the domain; nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import alerting_pb2 as pb

from tocsin_server.api.escapes import escape_message, escape_of
from tocsin_server.api.structs import plain_object, struct_of
from tocsin_server.domain.alerting import (
    Action,
    ActionGroup,
    ActionVariable,
    Alert,
    AlertSpec,
    AlertStatus,
    AlertType,
    FailedType,
    NotifyWhen,
)
from tocsin_server.domain.execution import AlertState
from tocsin_server.domain.instances import Instance

STATUSES: Mapping[AlertStatus, pb.AlertStatus.ValueType] = {
    AlertStatus.PENDING: pb.ALERT_STATUS_PENDING,
    AlertStatus.OK: pb.ALERT_STATUS_OK,
    AlertStatus.ACTIVE: pb.ALERT_STATUS_ACTIVE,
    AlertStatus.ERROR: pb.ALERT_STATUS_ERROR,
}
NOTIFY_WHENS: Mapping[NotifyWhen | None, pb.NotifyWhen.ValueType] = {
    None: pb.NOTIFY_WHEN_UNSPECIFIED,
    NotifyWhen.ON_ACTIVE_ALERT: pb.NOTIFY_WHEN_ON_ACTIVE_ALERT,
    NotifyWhen.ON_THROTTLE_INTERVAL: pb.NOTIFY_WHEN_ON_THROTTLE_INTERVAL,
    NotifyWhen.ON_ACTION_GROUP_CHANGE: pb.NOTIFY_WHEN_ON_ACTION_GROUP_CHANGE,
}
_NOTIFY_WHEN_BY_NUMBER = {number: notify_when for notify_when, number in NOTIFY_WHENS.items()}


def spec_of(sent: pb.Alert) -> AlertSpec:
    """Read what a user says of an alert."""
    return AlertSpec(
        name=sent.name,
        alert_type_id=sent.alert_type_id,
        consumer=sent.consumer,
        interval=sent.schedule.interval,
        throttle=sent.throttle,
        notify_when=_NOTIFY_WHEN_BY_NUMBER[sent.notify_when],
        tags=tuple(sent.tags),
        params=plain_object(sent.params),
        actions=tuple(Action(a.group, a.id, plain_object(a.params), escape_of(a.escape)) for a in sent.actions),
    )


def _action_message(action: Action) -> pb.Action:
    return pb.Action(
        group=action.group,
        id=action.configuration_id,
        params=struct_of(action.params),
        escape=escape_message(action.escape),
    )


def alert_message(alert: Alert) -> pb.Alert:
    """Write an alert."""
    spec = alert.spec
    message = pb.Alert(
        id=alert.id,
        account=alert.account,
        name=spec.name,
        tags=spec.tags,
        alert_type_id=spec.alert_type_id,
        consumer=spec.consumer,
        enabled=alert.enabled,
        schedule=pb.Schedule(interval=spec.interval),
        throttle=spec.throttle,
        notify_when=NOTIFY_WHENS[spec.notify_when],
        params=struct_of(spec.params),
        actions=[_action_message(action) for action in spec.actions],
        created_by=alert.created_by,
        updated_by=alert.updated_by,
        create_time=_timestamp(alert.created_at),
        update_time=_timestamp(alert.updated_at),
        mute_all=alert.mute_all,
        muted_instance_ids=alert.muted_instance_ids,
    )
    status = message.execution_status
    status.status = STATUSES[alert.status]
    if alert.last_execution_at is not None:
        status.last_execution_time.CopyFrom(_timestamp(alert.last_execution_at))
    if alert.error is not None:
        status.error.reason, status.error.message = alert.error.reason, alert.error.message
    return message


def type_message(alert_type: AlertType) -> pb.AlertType:
    """Write an alert type."""
    variables = alert_type.action_variables
    return pb.AlertType(
        id=alert_type.id,
        name=alert_type.name,
        producer=alert_type.producer,
        action_groups=map(_group, alert_type.action_groups),
        default_action_group_id=alert_type.default_action_group_id,
        recovery_action_group=_group(alert_type.recovery_action_group),
        action_variables=pb.ActionVariables(
            context=_variables(variables.context),
            state=_variables(variables.state),
            params=_variables(variables.params),
        ),
        params_schema=struct_of(alert_type.params_schema),
        default_interval=alert_type.default_interval,
        enabled=alert_type.enabled,
    )


def failed_message(failed: FailedType) -> pb.FailedAlertType:
    """Write a plug-in that cannot be used."""
    return pb.FailedAlertType(entry_point=failed.entry_point, distribution=failed.distribution, error=failed.error)


def state_message(state: AlertState) -> pb.GetAlertStateResponse:
    """Write what the runs of an alert left behind."""
    message = pb.GetAlertStateResponse(alert_type_state=struct_of(state.memory.state))
    for id, instance in state.memory.instances.items():
        message.alert_instances[id].CopyFrom(_instance(instance))
    if state.previous_started_at is not None:
        message.previous_started_at.CopyFrom(_timestamp(state.previous_started_at))
    return message


def _instance(instance: Instance) -> pb.AlertInstance:
    message = pb.AlertInstance(
        state=struct_of(instance.state),
        meta=pb.AlertInstance.Meta(),
        started_at=_timestamp(instance.started_at),
        action_group=instance.group,
    )
    if instance.notified is not None:
        last = message.meta.last_scheduled_actions
        last.group, last.subgroup = instance.notified.group, instance.notified.subgroup
        last.date.CopyFrom(_timestamp(instance.notified.at))
    return message


def _group(group: ActionGroup) -> pb.ActionGroup:
    return pb.ActionGroup(id=group.id, name=group.name)


def _variables(variables: Iterable[ActionVariable]) -> list[pb.ActionVariable]:
    return [pb.ActionVariable(name=v.name, description=v.description) for v in variables]


def _timestamp(micros: int) -> Timestamp:
    seconds, rest = divmod(micros, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)
