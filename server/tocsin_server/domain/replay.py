"""Replaying an alert over a range of the log: the runs that it would have had, one after another.

Each run stands for a time at which the alert is due, and sees what a run at that time saw; what it leaves
behind is what the next begins with. The first begins with nothing, as an alert that has just been enabled.
Mutes and silences are left out of account: the question is what the alert finds, and what it would say.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from tocsin_server.domain.aggregation import EventReads
from tocsin_server.domain.alert_checks import fitting
from tocsin_server.domain.alerting import Alert, AlertType
from tocsin_server.domain.execution import Claim, Run, RunOutcome, attempt, perform
from tocsin_server.domain.instances import Memory
from tocsin_server.domain.navigation import NOWHERE, Place
from tocsin_server.domain.schedule import Ticks

RUNS_MAX = 10_000  # of one preview: a week of one-minute runs
EVENTS_MAX = 1_000_000  # that one preview reads
DURATION_MAX_S = 600.0  # of one preview, until its last answer is taken
RANGE_DEFAULT_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be replayed: the runs of an alert that are due in [start, end), microseconds."""

    alert: Alert
    start: int
    end: int
    every_run: bool
    place: Place = NOWHERE

    @property
    def times(self) -> range:
        """The times at which runs are due."""
        ticks = Ticks.of(self.alert.id, self.alert.spec.interval_us)
        return range(ticks.after(self.start - 1), self.end, ticks.interval)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One run of a replay."""

    number: int
    scheduled_at: int
    outcome: RunOutcome

    @property
    def is_quiet(self) -> bool:
        """Whether nothing changed, failed or was told."""
        return not (self.outcome.transitions or self.outcome.notifications or self.outcome.error)


def replay(order: Order, alert_type: AlertType, events: EventReads) -> Iterator[Replayed]:
    """Run an alert at each of its times; nothing is written."""
    alert = replace(order.alert, mute_all=False, muted_instance_ids=())
    memory, previous = Memory(), None
    for number, at in enumerate(order.times, 1):
        run = Run(
            Claim(alert.account, alert.id, alert.spec.alert_type_id, number, at, at, 0),
            alert,
            memory,
            previous,
            order.place,
        )
        outcome = attempt(partial(_performed, run, alert_type, events), run, lambda error: None)
        memory = Memory(outcome.status, outcome.state, {one.id: one for one in outcome.instances})
        previous = previous if outcome.error else at
        yield Replayed(number, at, outcome)


def _performed(run: Run, alert_type: AlertType, events: EventReads) -> RunOutcome:
    return perform(replace(run, alert=fitting(run.alert, alert_type)), alert_type, events)


class Previewer(Protocol):
    """Replays in a process of its own, so that nobody else waits for it."""

    def frames(self, order: Order) -> AsyncGenerator[bytes, None]:
        """Give the answers of a preview, encoded; closing it ends the process."""
        ...
