"""What the executor of a plug-in is given, in the words of the source: options, services, alert instances.

An executor says what it found; nothing that it calls here sends anything. When its time is over its run
has ended, and whatever it calls afterwards raises `RunEnded`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import structlog

from tocsin_server.domain.aggregation import EventQuestion, EventSample, Group
from tocsin_server.domain.alerting import InstanceReport, RunContext, RunErrorReason
from tocsin_server.domain.instances import ID_SHOWN_MAX, RunFailure
from tocsin_server.domain.selection import LEVEL_BY_NAME, EventFilter

LOG_LINES_MAX = 100  # of one run
LOG_DATA_MAX = 4096  # characters of the data of one line

State: TypeAlias = "Mapping[str, Any] | None"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger("tocsin.alerting.plugin")


class AlreadyScheduled(RunFailure):
    """Actions of an instance were scheduled twice in one execution; the run is an error."""

    def __init__(self, id: str) -> None:
        shown = repr(id[:ID_SHOWN_MAX])
        super().__init__(
            RunErrorReason.EXECUTE,
            f"alert instance {shown}: actions have already been scheduled, cannot schedule twice",
        )


class RunEnded(RuntimeError):
    """The time of the run is over: what it says now comes too late."""


class Ending:
    """Whether a run has ended; shared by all that its executor was given."""

    def __init__(self) -> None:
        self._ended = False

    def end(self) -> None:
        """Let nothing more be said."""
        self._ended = True

    def check(self) -> None:
        """Refuse what comes too late: RunEnded."""
        if self._ended:
            raise RunEnded("the time of this run is over")


class AlertInstance:
    """One thing that the alert is about. Without scheduled actions it is not active, and its state is erased."""

    def __init__(self, id: str, state: Mapping[str, Any], ending: Ending) -> None:
        self.id = id
        self._state = state
        self._ending = ending
        self._scheduled: tuple[str, str, Mapping[str, Any]] | None = None

    def get_state(self) -> Mapping[str, Any]:
        """Give the state of the execution before, or what has replaced it; empty for a new instance."""
        return self._state

    def replace_state(self, state: Mapping[str, Any]) -> AlertInstance:
        """Replace the whole state. It is there again when an instance of this id is created in the next run."""
        self._ending.check()
        self._state = state
        return self

    def schedule_actions(self, action_group: str, context: Mapping[str, Any] | None = None) -> AlertInstance:
        """Be active in a group, and have its actions run; `context` is for their templates.

        Raises AlreadyScheduled the second time.
        """
        return self._schedule(action_group, "", context)

    def schedule_actions_with_sub_group(
        self, action_group: str, sub_group: str, context: Mapping[str, Any] | None = None
    ) -> AlertInstance:
        """Do the same in a sub-group: a change of it counts as a change of the group, if both runs named one.

        Raises AlreadyScheduled the second time.
        """
        return self._schedule(action_group, sub_group, context)

    def _schedule(self, group: str, subgroup: str, context: Mapping[str, Any] | None) -> AlertInstance:
        self._ending.check()
        if self._scheduled is not None:
            raise AlreadyScheduled(self.id)
        self._scheduled = (group, subgroup, context or {})
        return self

    def report(self) -> InstanceReport:
        """Say what became of it in this execution."""
        if self._scheduled is None:
            return InstanceReport(self.id, None)
        group, subgroup, context = self._scheduled
        return InstanceReport(self.id, group, serialised(context), serialised(self._state), subgroup)


class Events:
    """Reads of the log as the alert's owner, in its account only, as it stood at the run's scheduled time."""

    def __init__(self, context: RunContext, ending: Ending) -> None:
        self._context = context
        self._ending = ending

    def question(self, window: timedelta, **asked: Any) -> EventQuestion:
        """Ask about the events of the window that ends at the run's scheduled time.

        `types`, `subtypes`, `levels` ("info", "error"), `resource_types`, `resource_ids`, `user_ids`,
        `services`, `hosts`, `labels` and `where` say which events; `aggregation`, `field`, `group_by`,
        `drop_missing`, `at_least`, `at_most` and `limit` what is made of them. ValueError or TypeError for
        what cannot be asked.
        """
        question = {name: asked.pop(name) for name in _QUESTION if name in asked}
        question["group_by"] = tuple(question.get("group_by", ()))
        labels = tuple(dict(asked.pop("labels", {})).items())
        levels = tuple(LEVEL_BY_NAME[name] for name in asked.pop("levels", ()))
        before = self._context.scheduled_at
        since = before - window // timedelta(microseconds=1)
        where = asked.pop("where", "")
        chosen: dict[str, Any] = {name: tuple(values) for name, values in asked.items()}
        events = EventFilter(
            self._context.space, levels=levels, labels=labels, since=since, before=before, where=where, **chosen
        )
        return EventQuestion(events, self._context.scheduled_at, **question)

    def aggregate(self, window: timedelta, **asked: Any) -> list[Group]:
        """Answer the groups of a question, those with most events first; without `group_by` there is one."""
        self._ending.check()
        return self._context.events.aggregate(self.question(window, **asked))

    def samples(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> Mapping[tuple[str, ...], Sequence[EventSample]]:
        """Give the newest events of groups that a question has, at most `each` of one group."""
        self._ending.check()
        return self._context.events.samples(question, groups, each)


_QUESTION = ("aggregation", "field", "group_by", "drop_missing", "at_least", "at_most", "limit")


class Services:
    """What an executor can call."""

    def __init__(self, context: RunContext, type_id: str, ending: Ending) -> None:
        self.events = Events(context, ending)
        self._context = context
        self._ending = ending
        self._instances: dict[str, AlertInstance] = {}
        self._log = log.bind(account=context.space, alert_id=context.alert_id, alert_type_id=type_id)
        self._lines = 0

    def alert_instance_factory(self, id: str) -> AlertInstance:
        """Create an instance; ids are unique in one alert, and the same id is the same instance."""
        self._ending.check()
        found = self._instances.get(id)
        if found is None:
            found = self._instances[id] = AlertInstance(id, self._context.instances.get(id, {}), self._ending)
        return found

    def log(self, tags: Sequence[str], data: object = None, timestamp: datetime | None = None) -> None:
        """Write a line into the server's log; the tags "error", "warning" and "debug" are its level."""
        self._ending.check()
        self._lines += 1
        if self._lines > LOG_LINES_MAX:
            return
        level = next((tag for tag in ("error", "warning", "debug") if tag in tags), "info")
        text = data if isinstance(data, str) else json.dumps(serialised(data), default=repr)
        more = {"at": timestamp.isoformat()} if timestamp else {}
        getattr(self._log, level)("a plug-in says", tags=list(tags), data=text[:LOG_DATA_MAX], **more)

    def reports(self) -> tuple[InstanceReport, ...]:
        """Say what became of the instances that were created."""
        return tuple(instance.report() for instance in self._instances.values())


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """What one execution gets.

    `started_at` is when it began and `previous_started_at` when the last successful one did, None at first;
    `scheduled_at` is the time that it stands for. `state` is what the execution before returned, empty at
    first. `space_id` is the account, and `namespace` too, but None for the account `admin`.
    """

    alert_id: str
    name: str
    tags: tuple[str, ...]
    space_id: str
    namespace: str | None
    created_by: str
    updated_by: str
    params: Mapping[str, Any]
    state: Mapping[str, Any]
    scheduled_at: datetime
    started_at: datetime
    previous_started_at: datetime | None
    services: Services

    @classmethod
    def of(cls, context: RunContext, services: Services) -> ExecutorOptions:
        """Say a run in the words of the source."""
        previous = context.previous_started_at
        return cls(
            alert_id=context.alert_id,
            name=context.name,
            tags=context.tags,
            space_id=context.space,
            namespace=context.namespace,
            created_by=context.created_by,
            updated_by=context.updated_by,
            params=context.params,
            state=context.state,
            scheduled_at=_moment(context.scheduled_at),
            started_at=_moment(context.started_at),
            previous_started_at=None if previous is None else _moment(previous),
            services=services,
        )


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def serialised(value: Any) -> Any:
    """Write times as RFC 3339, as JSON would be written of the source's; all else is checked elsewhere."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {key: serialised(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [serialised(entry) for entry in value]
    return value
