"""The call of Alerting that replays: what an alert would have done over a range of the log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

from tocsin.v1 import alerting_pb2 as pb

from tocsin_server.api.alert_drafts import AlertDrafts
from tocsin_server.api.alert_runs import execution_message
from tocsin_server.api.auth import Caller
from tocsin_server.api.event_filters import micros
from tocsin_server.api.server import Send, Service
from tocsin_server.api.structs import struct_of
from tocsin_server.api.timestamps import timestamp
from tocsin_server.domain import replay
from tocsin_server.domain.alerting import Alert
from tocsin_server.domain.errors import Reason, TocsinError, invalid_field
from tocsin_server.domain.executions import Executed, Execution
from tocsin_server.domain.navigation import NavigationStore, Place, path_of
from tocsin_server.domain.ports import AlertStore, Runtime
from tocsin_server.domain.replay import RANGE_DEFAULT_US, RUNS_MAX, Order, Previewer, Replayed
from tocsin_server.domain.transitions import EVENT_TYPE_PREFIX

Part = pb.PreviewAlertResponse


class AlertPreviewService(Service):
    """Previews of alerts."""

    descriptor = pb.DESCRIPTOR.services_by_name["Alerting"]

    def __init__(
        self,
        alerts: AlertStore,
        drafts: AlertDrafts,
        navigations: NavigationStore,
        ui_url: str,
        previewer: Previewer,
        runtime: Runtime,
        draining: asyncio.Event,
    ) -> None:
        self._alerts = alerts
        self._navigations = navigations
        self._ui_url = ui_url
        self._drafts = drafts
        self._previewer = previewer
        self._now = runtime.now
        self._draining = draining
        self._under_way: set[str] = set()

    async def preview_alert(self, request: pb.PreviewAlertRequest, caller: Caller, send: Send) -> None:
        """Replay an alert and send what it would have done."""
        alert = await self._alert(request, caller)
        path = path_of(await self._navigations.holding(alert), alert)
        order = self._order(request, alert, Place.of(self._ui_url, path))
        if caller.account in self._under_way:
            text = "a preview of the account is under way: wait for its end, or cancel it"
            raise TocsinError(Reason.TOO_MANY_PREVIEWS, text)
        self._under_way.add(caller.account)
        replayed = asyncio.create_task(self._replay(order, send))
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({replayed, draining}, return_when=asyncio.FIRST_COMPLETED)
            if not replayed.done():
                raise TocsinError(Reason.SERVER_DRAINING, "the server stops: ask again elsewhere", retry_s=0.2)
            replayed.result()
        finally:
            for task in (replayed, draining):
                task.cancel()
            await asyncio.gather(replayed, draining, return_exceptions=True)
            self._under_way.discard(caller.account)

    async def _replay(self, order: Order, send: Send) -> None:
        try:
            async with asyncio.timeout(replay.DURATION_MAX_S), aclosing(self._previewer.frames(order)) as frames:
                async for frame in frames:
                    await send(frame)
        except TimeoutError:
            text = f"the preview was not done within {replay.DURATION_MAX_S:g} s: choose a shorter range"
            raise TocsinError(Reason.DEADLINE_EXCEEDED, text) from None

    async def _alert(self, request: pb.PreviewAlertRequest, caller: Caller) -> Alert:
        if request.HasField("alert"):
            return replace(await self._drafts.draft(request.alert, caller), id="preview")
        alert = await self._alerts.get(caller.account, request.id)
        self._drafts.types.usable(alert.spec.alert_type_id)
        return alert

    def _order(self, request: pb.PreviewAlertRequest, alert: Alert, place: Place) -> Order:
        now = self._now()
        end = min(micros(request.end_time), now) if request.HasField("end_time") else now
        fitting = min(RANGE_DEFAULT_US, RUNS_MAX * alert.spec.interval_us)
        start = micros(request.start_time) if request.HasField("start_time") else end - fitting
        if start >= end:
            raise invalid_field("start_time", "is not before end_time, or not in the past")
        order = Order(alert, start, end, request.every_run, place)
        if len(order.times) > RUNS_MAX:
            text = (
                f"the range has {len(order.times):,} runs of {alert.spec.interval}, at most {RUNS_MAX:,} are replayed"
            )
            raise invalid_field("start_time", text)
        return order


def started(order: Order) -> bytes:
    """Say what is about to be replayed."""
    message = Part(started=Part.Started(runs=len(order.times)))
    if order.times:
        message.started.first_run_time.CopyFrom(timestamp(order.times[0]))
    return message.SerializeToString()


def progress(runs: int, events: int) -> bytes:
    """Say how far it is."""
    return Part(progress=Part.Progress(runs=runs, events=events)).SerializeToString()


def done(runs: int, errors: int, notifications: int, events: int, incomplete: bool) -> bytes:
    """Say that all is replayed."""
    end = Part.Done(runs=runs, errors=errors, notifications=notifications, events=events, incomplete=incomplete)
    return Part(done=end).SerializeToString()


def run(order: Order, replayed: Replayed) -> bytes:
    """Write one run."""
    outcome, at = replayed.outcome, replayed.scheduled_at
    execution = Execution(
        account=order.alert.account,
        alert_id=order.alert.id,
        number=replayed.number,
        scheduled_at=at,
        started_at=at,
        duration_us=0,
        status=outcome.status,
        error=outcome.error,
        missed=0,
        log_position=0,
        instances=tuple(Executed(decision) for decision in outcome.decisions),
    )
    message = Part.Run(execution=execution_message(execution))
    for transition in outcome.transitions:
        message.transitions.add(
            type=EVENT_TYPE_PREFIX + transition.kind,
            message=transition.message,
            details=struct_of(transition.details),
        )
    for told in outcome.notifications:
        message.notifications.add(
            instance_id=told.instance_id,
            action_group=told.group,
            action_index=told.action_index,
            configuration_id=told.configuration_id,
            params=struct_of(told.params) if isinstance(told.params, dict) else None,
            error=told.error,
        )
    return Part(run=message).SerializeToString()
