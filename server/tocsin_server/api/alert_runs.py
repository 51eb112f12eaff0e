"""The part of the service Alerting that is about runs: who is told of them, and what they did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import alerting_pb2 as pb

from tocsin_server.api.alert_messages import STATUSES, alert_message
from tocsin_server.api.auth import Caller
from tocsin_server.api.event_filters import micros
from tocsin_server.api.paging import PageTokens, fitting, page_size
from tocsin_server.api.server import Service
from tocsin_server.api.timestamps import timestamp
from tocsin_server.domain.alerting import MUTED_MAX, Alert, AlertStatus
from tocsin_server.domain.errors import Reason, TocsinError, invalid_field
from tocsin_server.domain.executions import Execution, ExecutionQuery, ExecutionStore, Summary
from tocsin_server.domain.ports import AlertStore, Runtime
from tocsin_server.domain.schedule import DurationError, duration_us

SUMMARY_INTERVALS = 60  # that a summary covers when it is not said


class AlertRunService(Service):
    """Mutes, runs by hand, executions, summaries."""

    descriptor = pb.DESCRIPTOR.services_by_name["Alerting"]

    def __init__(
        self, alerts: AlertStore, executions: ExecutionStore, tokens: PageTokens, runtime: Runtime, runs: bool
    ) -> None:
        self._alerts = alerts
        self._executions = executions
        self._tokens = tokens
        self._now = runtime.now
        self._runs = runs

    async def mute_all(self, request: pb.MuteAllRequest, caller: Caller) -> pb.MuteAllResponse:
        """Have nobody told of any instance."""
        return pb.MuteAllResponse(alert=await self._mute(request.id, caller, lambda a: replace(a, mute_all=True)))

    async def unmute_all(self, request: pb.UnmuteAllRequest, caller: Caller) -> pb.UnmuteAllResponse:
        """End that; instances that are muted for themselves stay so."""
        return pb.UnmuteAllResponse(alert=await self._mute(request.id, caller, lambda a: replace(a, mute_all=False)))

    async def mute_instance(self, request: pb.MuteInstanceRequest, caller: Caller) -> pb.MuteInstanceResponse:
        """Have nobody told of one instance."""

        def change(alert: Alert) -> Alert:
            muted = dict.fromkeys((*alert.muted_instance_ids, request.instance_id))
            if len(muted) > MUTED_MAX:
                raise TocsinError(Reason.LIMIT_REACHED, f"at most {MUTED_MAX} instances of an alert are muted")
            return replace(alert, muted_instance_ids=tuple(muted))

        return pb.MuteInstanceResponse(alert=await self._mute(request.id, caller, change))

    async def unmute_instance(self, request: pb.UnmuteInstanceRequest, caller: Caller) -> pb.UnmuteInstanceResponse:
        """End that."""

        def change(alert: Alert) -> Alert:
            muted = tuple(one for one in alert.muted_instance_ids if one != request.instance_id)
            return replace(alert, muted_instance_ids=muted)

        return pb.UnmuteInstanceResponse(alert=await self._mute(request.id, caller, change))

    async def _mute(self, alert_id: str, caller: Caller, change: Callable[[Alert], Alert]) -> pb.Alert:
        return alert_message(await self._alerts.mute(caller.account, alert_id, caller.user, change))

    async def run_alert(self, request: pb.RunAlertRequest, caller: Caller) -> pb.RunAlertResponse:
        """Run an alert now and answer what the run did."""
        if not self._runs:
            raise TocsinError(Reason.ALERTING_OFF, "no alert runs: alerting.enabled is off in the settings")
        execution = await self._executions.run_now(caller.account, request.id)
        return pb.RunAlertResponse(execution=execution_message(execution))

    async def list_executions(self, request: pb.ListExecutionsRequest, caller: Caller) -> pb.ListExecutionsResponse:
        """Answer a page of executions, newest first."""
        under = None
        if request.page_token:
            (under,) = self._tokens.read(caller.account, request, request.page_token)
        query = ExecutionQuery(
            account=caller.account,
            alert_id=request.id,
            statuses=tuple(_status(status) for status in request.statuses),
            since=micros(request.since) if request.HasField("since") else None,
            before=micros(request.before) if request.HasField("before") else None,
        )
        size = page_size(request.page_size)
        found = await self._executions.executions(query, None if under is None else int(under), size)
        shown = fitting(execution_message(one) for one in found)
        # Fewer than were asked for may be because they are large: the next page says when there are no more.
        token = self._tokens.make(caller.account, request, [shown[-1].number]) if shown else ""
        return pb.ListExecutionsResponse(executions=shown, next_page_token=token)

    async def get_alert_instance_summary(
        self, request: pb.GetAlertInstanceSummaryRequest, caller: Caller
    ) -> pb.GetAlertInstanceSummaryResponse:
        """Answer how an alert and its instances did since a time."""
        now = self._now()
        since = 0

        def since_of(alert: Alert) -> int:
            nonlocal since
            since = _since(request.date_start, alert, now)
            return since

        summary = await self._executions.summary(caller.account, request.id, since_of)
        return summary_message(summary, since, now)


def _status(status: pb.AlertStatus.ValueType) -> AlertStatus:
    return AlertStatus(pb.AlertStatus.Name(status).removeprefix("ALERT_STATUS_"))


def _since(text: str, alert: Alert, now: int) -> int:
    if not text:
        return now - SUMMARY_INTERVALS * alert.spec.interval_us
    try:
        return now - duration_us(text)
    except DurationError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        wanted = 'a time like "2026-01-02T03:04:05Z", or a duration back from now like "90m"'
        raise invalid_field("date_start", f'Invalid date for parameter dateStart: "{text}": give {wanted}')
    since = int(when.timestamp() * 1_000_000)
    if since > now:
        raise invalid_field("date_start", f'Invalid date for parameter dateStart: "{text}": it is in the future')
    return since


def execution_message(execution: Execution) -> pb.Execution:
    """Write the record of a run."""
    message = pb.Execution(
        number=execution.number,
        scheduled_time=timestamp(execution.scheduled_at),
        start_time=timestamp(execution.started_at),
        duration=Duration(seconds=execution.duration_us // 1_000_000, nanos=execution.duration_us % 1_000_000 * 1000),
        status=STATUSES[execution.status],
        missed=execution.missed,
        log_position=execution.log_position,
        limit_reached=execution.limit_reached,
    )
    if execution.error is not None:
        message.error.reason, message.error.message = execution.error.reason, execution.error.message
    for executed in execution.instances:
        decision = executed.decision
        message.instances.add(
            id=decision.instance_id,
            action_group=decision.group,
            action_subgroup=decision.subgroup,
            recovered=decision.recovered,
            verdict=pb.NotifyVerdict.Value(f"NOTIFY_VERDICT_{decision.verdict}"),
            silence_id=decision.silence_id,
            delivery_ids=executed.delivery_ids,
        )
    return message


def summary_message(summary: Summary, since: int, now: int) -> pb.GetAlertInstanceSummaryResponse:
    """Write how an alert did."""
    alert, spec = summary.alert, summary.alert.spec
    message = pb.GetAlertInstanceSummaryResponse(
        id=alert.id,
        name=spec.name,
        tags=spec.tags,
        alert_type_id=spec.alert_type_id,
        consumer=spec.consumer,
        mute_all=alert.mute_all,
        throttle=spec.throttle,
        enabled=alert.enabled,
        status_start_date=timestamp(max(since, 0)),
        status_end_date=timestamp(now),
        status=STATUSES[alert.status],
        last_run=_optional(alert.last_execution_at),
    )
    for at, text in summary.errors:
        message.error_messages.add(date=timestamp(at), message=text)
    for instance_id in sorted({*summary.active, *summary.recovered, *alert.muted_instance_ids}):
        shown = message.instances[instance_id]
        shown.muted = alert.mutes(instance_id)
        shown.status = pb.GetAlertInstanceSummaryResponse.INSTANCE_STATUS_OK
        active = summary.active.get(instance_id)
        if active is not None:
            shown.status = pb.GetAlertInstanceSummaryResponse.INSTANCE_STATUS_ACTIVE
            shown.action_group_id, shown.action_subgroup = active.group, active.subgroup
            shown.active_start_date.CopyFrom(timestamp(active.started_at))
    return message


def _optional(micros_: int | None) -> Timestamp | None:
    return None if micros_ is None else timestamp(micros_)
