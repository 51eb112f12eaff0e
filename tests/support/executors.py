"""Alert types without a store: a log in memory, and runs of an executor over it, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tocsin_server.domain.aggregation import (
    COLUMNS,
    EventQuestion,
    EventSample,
    Group,
    aggregate,
    details_path,
    group_text,
)
from tocsin_server.domain.alert_checks import checked
from tocsin_server.domain.alerting import AlertSpec, AlertType, Report, RunContext
from tocsin_server.domain.event_log import EventHead
from tocsin_server.domain.instances import Instance
from tocsin_server.domain.schedule import SECOND_US
from tocsin_server.domain.variables import Json

MINUTE = 60 * SECOND_US
HOUR = 60 * MINUTE
DAY = 24 * HOUR
T = 1_800_000_000 * SECOND_US


@dataclass
class Seen:
    """One event of the log in memory."""

    timestamp: int
    host: str = ""
    details: Json = None
    labels: Mapping[str, str] = field(default_factory=dict)
    type: str = "user.test.event"
    level: int = 1
    resource_id: str = ""
    created_at: int | None = None

    @property
    def head(self) -> EventHead:
        return EventHead(
            account="acme",
            type=self.type,
            subtype="",
            level=self.level,
            resource_type="",
            resource_id=self.resource_id,
            user_id="",
            service="",
            host=self.host,
            labels=self.labels,
            timestamp=self.timestamp,
        )

    def value(self, name: str) -> Json:
        if name in COLUMNS:
            return str(getattr(self.head, name))
        path = details_path(name)
        if path is None:
            return self.labels.get(name.removeprefix("labels."), "")
        value = self.details
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


@dataclass
class MemoryLog:
    """`EventReads` over a list of events: what a preview does over one pass of the log, without the sliding."""

    events: list[Seen] = field(default_factory=list)
    since: int | None = 0
    asked: list[EventQuestion] = field(default_factory=list)

    def _meant(self, question: EventQuestion) -> list[Seen]:
        matches = question.events.predicate()
        return [
            one
            for one in self.events
            if matches(one.head) and (one.created_at or one.timestamp) < question.created_before
        ]

    def _group(self, question: EventQuestion, one: Seen) -> tuple[str, ...]:
        return tuple(group_text(one.value(name)) for name in question.group_by)

    def aggregate(self, question: EventQuestion) -> list[Group]:
        self.asked.append(question)
        rows = (
            (self._group(question, one), one.value(question.field) if question.field else one.timestamp)
            for one in self._meant(question)
        )
        return aggregate(question, rows)

    def samples(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> dict[tuple[str, ...], list[EventSample]]:
        newest = sorted(self._meant(question), key=lambda one: -one.timestamp)
        found: dict[tuple[str, ...], list[EventSample]] = {values: [] for values in groups}
        for one in newest:
            mine = found.get(self._group(question, one))
            if mine is not None and len(mine) < each:
                mine.append(EventSample("id", one.type, "m" * 1000, one.timestamp))
        return found

    def recorded_since(self) -> int | None:
        return self.since


@dataclass
class DecidedLog:
    """Groups that were decided beforehand; remembers what it was asked."""

    groups: list[Group]
    asked: list[EventQuestion] = field(default_factory=list)
    shown: list[tuple[int, int]] = field(default_factory=list)

    def aggregate(self, question: EventQuestion) -> list[Group]:
        self.asked.append(question)
        return self.groups

    def samples(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> Mapping[tuple[str, ...], Sequence[EventSample]]:
        self.shown.append((len(groups), each))
        return {values: [EventSample("e", "t", "m" * 1000, T)] * each for values in groups}

    def recorded_since(self) -> int | None:
        return 0


def saved(alert_type: AlertType, params: dict[str, Any]) -> Any:
    """Give params as they are stored: checked, with their defaults."""
    spec = AlertSpec(name="a", alert_type_id=alert_type.id, consumer="c", params=params)
    return checked(spec, alert_type).params


@dataclass
class Runs:
    """Runs of one alert; what is active is remembered as the framework does."""

    alert_type: AlertType
    params: dict[str, Any]
    log: Any = field(default_factory=MemoryLog)
    active: dict[str, Instance] = field(default_factory=dict)
    state: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.params = saved(self.alert_type, self.params)

    def context(self, at: int) -> RunContext:
        return RunContext(
            alert_id="id",
            name="a",
            tags=(),
            space="acme",
            namespace="acme",
            created_by="u",
            updated_by="u",
            params=self.params,
            state=self.state,
            instances={id: instance.state for id, instance in self.active.items()},
            scheduled_at=at,
            started_at=at + 5,
            previous_started_at=None,
            events=self.log,
            previous=self.active,
        )

    def run(self, at: int = T) -> Report:
        report = self.alert_type.executor(self.context(at))
        found = {
            one.id: Instance(
                id=one.id,
                group=one.group or "",
                subgroup=one.subgroup,
                started_at=self.active[one.id].started_at if one.id in self.active else at,
                context=one.context,
                state=one.state,
            )
            for one in report.instances
        }
        self.active = self.active | found if report.limit_reached else found
        self.state = report.state
        return report

    def groups(self, at: int = T) -> dict[str, str]:
        """Run, and say in which group each instance is."""
        self.run(at)
        return {id: instance.group for id, instance in self.active.items()}
