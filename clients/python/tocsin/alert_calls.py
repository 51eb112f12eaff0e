"""The calls of the blocking client about alerts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Unpack, cast

from tocsin import alerts, events
from tocsin.channel import Stream, Streaming, until
from tocsin.paging import pages
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1.alerting_pb2_grpc import AlertingStub

_POLL_S = 0.1
_Preview = Streaming[pb.PreviewAlertRequest, pb.PreviewAlertResponse]


class AlertCalls:
    """Checking the log on schedule, and who is told of what is found; a part of `tocsin.Client`."""

    alerting: AlertingStub

    def list_alert_types(self) -> list[pb.AlertType]:
        """Answer what can be checked, by id."""
        return list(self.alerting.ListAlertTypes(pb.ListAlertTypesRequest()).alert_types)

    def create_alert(self, alert: pb.Alert, *, request_id: str | None = None) -> pb.Alert:
        """Create an alert of `alert(...)`; its first run is at once."""
        request = pb.CreateAlertRequest(alert=alert, request_id=request_id or events.fresh_request_id())
        return self.alerting.CreateAlert(request).alert

    def get_alert(self, id: str) -> pb.Alert:
        """Answer one alert with the status of its newest run. Raises NotFound."""
        return self.alerting.GetAlert(pb.GetAlertRequest(id=id)).alert

    def find_alerts(
        self,
        *,
        sort_by: str = "",
        descending: bool = False,
        page_size: int = 0,
        **criteria: Unpack[alerts.AlertCriteria],
    ) -> Iterator[pb.Alert]:
        """Go through the alerts that meet all criteria, page after page: all where none is given, by name.

        `sort_by` is "name", "alert_type_id", "consumer", "create_time" or "update_time".
        """
        request = alerts.find_request(sort_by=sort_by, descending=descending, page_size=page_size, **criteria)
        return (alert for page in pages(self.alerting.FindAlerts, request) for alert in page.alerts)

    def update_alert(self, alert: pb.Alert, fields: Iterable[str] = ()) -> pb.Alert:
        """Change the named fields, or all that can change; its `id` says of which alert. Raises NotFound.

        Fields are "schedule", "throttle", "notify_when", "name", "tags", "params" and "actions".
        """
        return self.alerting.UpdateAlert(alerts.update_request(alert, fields)).alert

    def delete_alert(self, id: str) -> None:
        """Delete an alert with its instances. Raises NotFound."""
        self.alerting.DeleteAlert(pb.DeleteAlertRequest(id=id))

    def enable_alert(self, id: str) -> pb.Alert:
        """Have an alert run, at once and then on schedule, with empty state. Raises NotFound, AlertTypeDisabled."""
        return self.alerting.EnableAlert(pb.EnableAlertRequest(id=id)).alert

    def disable_alert(self, id: str) -> pb.Alert:
        """Stop an alert; its instances end and nobody is told. Raises NotFound."""
        return self.alerting.DisableAlert(pb.DisableAlertRequest(id=id)).alert

    def mute_alert(self, id: str) -> pb.Alert:
        """Have nobody told of any instance; it runs on. Raises NotFound."""
        return self.alerting.MuteAll(pb.MuteAllRequest(id=id)).alert

    def unmute_alert(self, id: str) -> pb.Alert:
        """End `mute_alert`; instances that are muted for themselves stay so. Raises NotFound."""
        return self.alerting.UnmuteAll(pb.UnmuteAllRequest(id=id)).alert

    def mute_instance(self, id: str, instance_id: str) -> pb.Alert:
        """Have nobody told of one instance, which need not be there yet. Raises NotFound, LimitReached."""
        request = pb.MuteInstanceRequest(id=id, instance_id=instance_id)
        return self.alerting.MuteInstance(request).alert

    def unmute_instance(self, id: str, instance_id: str) -> pb.Alert:
        """End `mute_instance`. Raises NotFound."""
        request = pb.UnmuteInstanceRequest(id=id, instance_id=instance_id)
        return self.alerting.UnmuteInstance(request).alert

    def run_alert(self, id: str, *, timeout_s: float | None = None) -> pb.Execution:
        """Run an alert now and answer what the run did. Raises NotFound, AlertDisabled, AlertingOff."""
        return self.alerting.RunAlert(pb.RunAlertRequest(id=id), timeout=timeout_s).execution

    def list_executions(
        self,
        id: str,
        statuses: Iterable[str] = (),
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        page_size: int = 0,
    ) -> Iterator[pb.Execution]:
        """Go through the runs of an alert that began in [since, before), newest first. They are kept for 7 days.

        Statuses are words: "ok", "active", "error".
        """
        request = alerts.executions_request(id, statuses, since=since, before=before, page_size=page_size)
        found = pages(self.alerting.ListExecutions, request)
        return (execution for page in found for execution in page.executions)

    def get_alert_state(self, id: str) -> pb.GetAlertStateResponse:
        """Answer the state of an alert and its active instances. Raises NotFound."""
        return self.alerting.GetAlertState(pb.GetAlertStateRequest(id=id))

    def summarize_alert(self, id: str, since: datetime | timedelta | None = None) -> pb.GetAlertInstanceSummaryResponse:
        """Answer how an alert and its instances did since a time, or for so long (60 intervals). Raises NotFound."""
        return self.alerting.GetAlertInstanceSummary(alerts.summary_request(id, since))

    def preview_alert(
        self,
        subject: str | pb.Alert,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        every_run: bool = False,
    ) -> Stream[pb.PreviewAlertResponse]:
        """Replay [start, end), the last day, and go through what an alert would have done; nothing is sent.

        The alert is a stored one, by its id, or one of `alert(...)`. Parts are `started`, then `run` and `progress`,
        last `done`; who leaves before does so through the `with` block. Raises NotFound, TooManyPreviews.
        """
        preview = cast(_Preview, self.alerting.PreviewAlert)
        return preview(alerts.preview_request(subject, start, end, every_run))

    def register_navigation(self, consumer: str, path_template: str, alert_type_id: str = "") -> None:
        """Say where alerts of a consumer are shown: those of a type, or those whose type has no navigation.

        The template is a path like "/checks/{{alert.id}}". Raises NavigationRegistered.
        """
        if alert_type_id:
            request = pb.RegisterNavigationRequest(
                consumer=consumer, alert_type_id=alert_type_id, path_template=path_template
            )
            self.alerting.RegisterNavigation(request)
        else:
            default = pb.RegisterDefaultNavigationRequest(consumer=consumer, path_template=path_template)
            self.alerting.RegisterDefaultNavigation(default)

    def delete_navigation(self, consumer: str, alert_type_id: str = "") -> None:
        """Forget the navigation of a consumer and a type, or its default. Raises NavigationNotRegistered."""
        request = pb.DeleteNavigationRequest(consumer=consumer, alert_type_id=alert_type_id)
        self.alerting.DeleteNavigation(request)

    def get_alert_navigation(self, id: str) -> pb.GetAlertNavigationResponse:
        """Answer where an alert is shown. Raises NotFound, NavigationNotRegistered."""
        return self.alerting.GetAlertNavigation(pb.GetAlertNavigationRequest(id=id))

    def wait_for_alert(self, id: str, status: str, *, timeout_s: float = 30.0) -> pb.Alert:
        """Wait until a run of the alert ends "ok", "active" or "error". Raises TimeoutError."""
        wanted = alerts.to_status(status)

        def look() -> pb.Alert | None:
            found = self.get_alert(id)
            return found if found.execution_status.status == wanted else None

        return until(look, f"alert {id} being {status}", timeout_s, _POLL_S)
