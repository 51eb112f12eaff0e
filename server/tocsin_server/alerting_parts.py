"""The parts of alerting, put together: a part of the composition root that has a file of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tocsin_server.api.alert_drafts import AlertDrafts
from tocsin_server.api.alert_navigations import NavigationService
from tocsin_server.api.alert_previews import AlertPreviewService
from tocsin_server.api.alert_runs import AlertRunService
from tocsin_server.api.alerting import AlertingService
from tocsin_server.api.paging import PageTokens
from tocsin_server.api.server import Service
from tocsin_server.dispatch.execution import Execution
from tocsin_server.domain.alerting import AlertTypes
from tocsin_server.domain.ports import EndpointKind, Runtime
from tocsin_server.previewing import ChildPreviews
from tocsin_server.store.alerting import Alerts
from tocsin_server.store.database import Readers
from tocsin_server.store.execution import Runs
from tocsin_server.store.executions import Executions
from tocsin_server.store.navigations import Navigations
from tocsin_server.store.writer import Writer


@dataclass(frozen=True, slots=True)
class AlertingParts:
    """The parts of alerting; without `execution` alerts are kept and do not run."""

    types: AlertTypes
    alerts: Alerts
    runs: Runs
    executions: Executions
    navigations: Navigations
    execution: Execution | None

    def services(
        self,
        kinds: Mapping[str, EndpointKind],
        tokens: PageTokens,
        digest_key: bytes,
        runtime: Runtime,
        ui_url: str,
        store: Path,
        draining: asyncio.Event,
    ) -> list[Service]:
        """Make the services of the network's way in."""
        drafts = AlertDrafts(self.alerts, self.types, kinds)
        return [
            AlertingService(self.alerts, drafts, tokens, digest_key),
            AlertPreviewService(self.alerts, drafts, self.navigations, ui_url, ChildPreviews(store), runtime, draining),
            AlertRunService(self.alerts, self.executions, tokens, runtime, self.execution is not None),
            NavigationService(self.navigations, ui_url),
        ]


def build(writer: Writer, readers: Readers, runs: Runs, types: AlertTypes, runtime: Runtime | None) -> AlertingParts:
    """Put the parts together; without a `runtime` no alert runs."""
    alerts, executions = Alerts(writer, readers), Executions(writer, readers)
    alerts.written = runs.written = executions.tell
    execution = Execution(runs, types, runtime) if runtime else None
    return AlertingParts(types, alerts, runs, executions, Navigations(writer, readers), execution)
