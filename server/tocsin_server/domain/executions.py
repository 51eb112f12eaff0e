"""The record of executions: what each run of an alert did, and what it told or did not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tocsin_server.domain.alerting import Alert, AlertStatus, RunError, RunErrorReason
from tocsin_server.domain.decisions import Decision, Verdict
from tocsin_server.domain.instances import Instance

EXECUTION_KEPT_US = 7 * 24 * 3600 * 1_000_000
EXECUTIONS_MAX = 10_000  # of one alert: a week of one-minute runs
CHANGES_MAX = 10_000  # events that a summary reads
ERRORS_MAX = 1000  # of a summary


@dataclass(frozen=True, slots=True)
class Executed:
    """What a run decided about an instance, and the deliveries that came of it."""

    decision: Decision
    delivery_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of an alert, as it was written."""

    account: str
    alert_id: str
    number: int
    scheduled_at: int
    started_at: int
    duration_us: int
    status: AlertStatus
    error: RunError | None
    missed: int
    log_position: int
    instances: tuple[Executed, ...] = ()

    @property
    def limit_reached(self) -> bool:
        """Whether a limit cut the run: more instances, state or context than there may be, or more to tell."""
        if self.error is not None and self.error.reason is RunErrorReason.LIMIT:
            return True
        return any(one.decision.verdict is Verdict.DEFERRED for one in self.instances)


@dataclass(frozen=True, slots=True)
class ExecutionQuery:
    """Which executions of an alert are asked for: those that began in [since, before), microseconds."""

    account: str
    alert_id: str
    statuses: tuple[AlertStatus, ...] = ()
    since: int | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """How an alert did since a time: what is active, what was since then, and the errors of runs.

    `recovered` has the ids of instances that were active since then and are not any more; `errors` are times
    and texts, the oldest first.
    """

    alert: Alert
    active: Mapping[str, Instance]
    recovered: frozenset[str]
    errors: tuple[tuple[int, str], ...]


class ExecutionStore(Protocol):
    """The record, as the network's way in needs it; every call is within one account."""

    async def run_now(self, account: str, alert_id: str) -> Execution:
        """Run an alert at once and give the record of the run; ALERT_DISABLED when it does not run."""
        ...

    async def executions(self, query: ExecutionQuery, under: int | None, size: int) -> list[Execution]:
        """Read executions with a number under the given one, newest first."""
        ...

    async def summary(self, account: str, alert_id: str, since: Callable[[Alert], int]) -> Summary:
        """Read how an alert did since the time that `since` says for it."""
        ...
