"""What can be checked and what is checked: alert types, alerts, actions, and what an executor sees.

An alert type is code with a description of itself; an alert is a type with parameters, a schedule
and actions, owned by an account. What an executor finds becomes a `Report`; what follows from it is
in `execution`. Nothing here runs anything or knows where it is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from tocsin_server.domain.aggregation import EventReads
from tocsin_server.domain.errors import Reason, TocsinError, Violation
from tocsin_server.domain.schedule import duration_us
from tocsin_server.domain.variables import Json

# Limits, shown by System.GetInfo and quoted in the proto comments.
INSTANCES_MAX = 1000  # of one alert: more is a wrong question, and a flood of messages
# Of one run; the next tells the rest. A message takes the one writer about 80 us, and everybody who appends waits.
RUN_MESSAGES_MAX = 1000
INSTANCE_BYTES_MAX = 64 * 1024  # state, and context, of one instance
ALERT_STATE_BYTES_MAX = 1024 * 1024
INSTANCE_ID_MAX = 1024
ALERTS_MAX = 10_000  # of one account
MUTED_MAX = 1000  # instances of one alert that are muted for themselves
RUNS_APART_MAX = 8  # at the same time, of types whose executor may wait for anything
TYPE_TIMEOUT_S = 30.0  # of one run, unless its type says otherwise

OWN_PRODUCER = "tocsin"
_TYPE_ID = re.compile(r"[a-zA-Z0-9_\-.]+", re.ASCII)

Params = Mapping[str, Json]


class NotifyWhen(StrEnum):
    """When an active instance notifies again; a change of its group always notifies at once."""

    ON_ACTIVE_ALERT = "ON_ACTIVE_ALERT"
    ON_THROTTLE_INTERVAL = "ON_THROTTLE_INTERVAL"
    ON_ACTION_GROUP_CHANGE = "ON_ACTION_GROUP_CHANGE"


class AlertStatus(StrEnum):
    """How the newest run of an alert went."""

    PENDING = "PENDING"
    OK = "OK"
    ACTIVE = "ACTIVE"
    ERROR = "ERROR"


class RunErrorReason(StrEnum):
    """Why a run failed."""

    DISABLED = "DISABLED"
    PARAMS = "PARAMS"
    EXECUTE = "EXECUTE"
    TIMEOUT = "TIMEOUT"
    LIMIT = "LIMIT"


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed, for people too."""

    reason: RunErrorReason
    message: str


@dataclass(frozen=True, slots=True)
class ActionGroup:
    """A named kind of activity of an instance."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ActionVariable:
    """A name that templates can use."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class ActionVariables:
    """The names that an alert type fills, by their root."""

    context: tuple[ActionVariable, ...] = ()
    state: tuple[ActionVariable, ...] = ()
    params: tuple[ActionVariable, ...] = ()


class ActiveInstance(Protocol):
    """What an executor may know of an instance that the previous run left active."""

    @property
    def group(self) -> str:
        """The action group that it is in."""
        ...

    @property
    def subgroup(self) -> str:
        """The sub-group that it was last reported with."""
        ...

    @property
    def started_at(self) -> int:
        """The scheduled time since which it is active, in microseconds."""
        ...

    @property
    def context(self) -> Mapping[str, Json]:
        """What was last said of it."""
        ...

    @property
    def state(self) -> Mapping[str, Json]:
        """What its executor left for itself."""
        ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """What one execution gets. `scheduled_at` is the time that it stands for: windows end there.

    `previous` are the active instances by their ids, and `instances` their states. `namespace` is the
    space, and None for the account `admin`.
    """

    alert_id: str
    name: str
    tags: tuple[str, ...]
    space: str
    namespace: str | None
    created_by: str
    updated_by: str
    params: Params
    state: Mapping[str, Json]
    instances: Mapping[str, Mapping[str, Json]]
    scheduled_at: int
    started_at: int
    previous_started_at: int | None
    events: EventReads
    previous: Mapping[str, ActiveInstance] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """What an execution says of one instance. Without a group it was looked at, and is not active."""

    id: str
    group: str | None
    context: Mapping[str, Json] = field(default_factory=dict)
    state: Mapping[str, Json] = field(default_factory=dict)
    subgroup: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What one execution found. `limit_reached`: there is more, so that what is not here may be active.

    `forgotten` are ids of instances that end without having recovered: nobody is told that they are well.
    """

    instances: tuple[InstanceReport, ...] = ()
    state: Mapping[str, Json] = field(default_factory=dict)
    limit_reached: bool = False
    forgotten: frozenset[str] = frozenset()


Executor = Callable[[RunContext], Report]
ParamsCheck = Callable[[Params], Iterable[Violation]]


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a type in one language; what is not there keeps the name that it has.

    `action_groups` are by id, the recovery group among them; `variables` are descriptions, by the name
    with its root: "context.server".
    """

    name: str = ""
    action_groups: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlertType:
    """Something that can be checked. `check` finds what is wrong with params that fit the schema.

    `translations` are by language: "de", "pt-BR". `apart` says that the executor may wait for anything: it
    runs where it keeps nobody else waiting.
    """

    id: str
    name: str
    executor: Executor
    params_schema: Mapping[str, Any]
    action_groups: tuple[ActionGroup, ...]
    default_action_group_id: str
    recovery_action_group: ActionGroup = ActionGroup("recovered", "Recovered")
    action_variables: ActionVariables = ActionVariables()
    producer: str = OWN_PRODUCER
    default_interval: str = "1m"
    timeout_s: float = TYPE_TIMEOUT_S
    enabled: bool = True
    check: ParamsCheck = lambda params: ()
    check_new: ParamsCheck = lambda params: ()  # asked when params are given, not of those that are stored
    translations: Mapping[str, Names] = field(default_factory=dict)
    apart: bool = False

    def __post_init__(self) -> None:
        """Refuse a type that contradicts itself: a fault of its author."""
        ids = [group.id for group in self.action_groups]
        if not _TYPE_ID.fullmatch(self.id):
            raise ValueError(f"alert type id {self.id!r} has characters outside a-z A-Z 0-9 _ - .")
        if len(set(ids)) != len(ids) or self.default_action_group_id not in ids:
            raise ValueError(f"alert type {self.id!r} needs distinct action groups, its default one among them")
        if self.recovery_action_group.id in ids:
            raise ValueError(f"alert type {self.id!r} lists its recovery group among its action groups")
        duration_us(self.default_interval)

    def group_name(self, group_id: str) -> str | None:
        """Give the name of a group or of the recovery group; None if there is no such group."""
        groups = (*self.action_groups, self.recovery_action_group)
        return next((group.name for group in groups if group.id == group_id), None)


@dataclass(frozen=True, slots=True)
class FailedType:
    """A plug-in that cannot be used: the name of its entry point, whose it is, and why not."""

    entry_point: str
    distribution: str
    error: str


class AlertTypes:
    """All alert types that are registered, by id; and the plug-ins that could not be."""

    def __init__(self, types: Iterable[AlertType], failed: Iterable[FailedType] = ()) -> None:
        self.failed = tuple(failed)
        self._types: dict[str, AlertType] = {}
        for alert_type in types:
            if alert_type.id in self._types:
                raise ValueError(f"alert type {alert_type.id!r} is already registered")
            self._types[alert_type.id] = alert_type

    def __iter__(self) -> Iterator[AlertType]:
        return iter(sorted(self._types.values(), key=lambda alert_type: alert_type.id))

    def find(self, type_id: str) -> AlertType | None:
        """Give a type, if it is registered."""
        return self._types.get(type_id)

    def switched_off(self, ids: Iterable[str]) -> AlertTypes:
        """Give the same types, of which some are off; ids that there are none of mean nothing."""
        off = frozenset(ids)
        return AlertTypes((replace(t, enabled=False) if t.id in off else t for t in self), self.failed)

    def registered(self, type_id: str) -> AlertType:
        """Give a type, which may be off, or refuse."""
        found = self.find(type_id)
        if found is None:
            raise TocsinError(
                Reason.ALERT_TYPE_NOT_REGISTERED,
                f'Alert type "{type_id}" is not registered.',
                metadata={"alert_type_id": type_id},
            )
        return found

    def usable(self, type_id: str) -> AlertType:
        """Give a type that alerts can be created of, or refuse."""
        found = self.registered(type_id)
        if not found.enabled:
            raise TocsinError(
                Reason.ALERT_TYPE_DISABLED,
                f'Alert type "{type_id}" is disabled.',
                metadata={"alert_type_id": type_id},
            )
        return found


@dataclass(frozen=True, slots=True)
class Action:
    """What to do when an instance is in a group: an endpoint configuration and what to send to it.

    `escape` is one of `templates.Escape`; empty is its default.
    """

    group: str
    configuration_id: str
    params: Params
    escape: str = ""


@dataclass(frozen=True, slots=True)
class AlertSpec:
    """What a user says of an alert. `interval` and `throttle` are durations; empty is none."""

    name: str
    alert_type_id: str
    consumer: str
    interval: str = ""
    throttle: str = ""
    notify_when: NotifyWhen | None = None
    tags: tuple[str, ...] = ()
    params: Params = field(default_factory=dict)
    actions: tuple[Action, ...] = ()

    @property
    def interval_us(self) -> int:
        """The interval in microseconds."""
        return duration_us(self.interval)

    @property
    def throttle_us(self) -> int:
        """The throttle in microseconds; 0 without one, so that every run notifies."""
        return duration_us(self.throttle) if self.throttle else 0

    @property
    def notifies_when(self) -> NotifyWhen:
        """What `notify_when` comes to when it is not set."""
        derived = NotifyWhen.ON_THROTTLE_INTERVAL if self.throttle else NotifyWhen.ON_ACTIVE_ALERT
        return self.notify_when or derived


@dataclass(frozen=True, slots=True)
class Alert:
    """A check that runs on schedule. `version` rises with each change but those of mutes: the fence of its runs."""

    account: str
    id: str
    version: int
    enabled: bool
    spec: AlertSpec
    created_by: str
    updated_by: str
    created_at: int
    updated_at: int
    status: AlertStatus = AlertStatus.PENDING
    last_execution_at: int | None = None
    error: RunError | None = None
    mute_all: bool = False
    muted_instance_ids: tuple[str, ...] = ()

    def mutes(self, instance_id: str) -> bool:
        """Tell whether nobody is to be told of an instance."""
        return self.mute_all or instance_id in self.muted_instance_ids


@dataclass(frozen=True, slots=True)
class AlertSearch:
    """Which alerts of an account are looked for. A word matches a part of a field, in any case.

    `configuration_id` is one that an action goes to, `meets` a condition on what all else has left.
    """

    account: str
    words: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("name", "tags")
    every_word: bool = False
    sort_field: str = "name"
    descending: bool = False
    configuration_id: str = ""
    meets: Callable[[Alert], bool] | None = None


@dataclass(frozen=True, slots=True)
class FoundAlert:
    """One alert of a page, and its place in the order of the search."""

    alert: Alert
    place: tuple[str | int, str]


@dataclass(frozen=True, slots=True)
class AlertPage:
    """Alerts of one page of a search, whether more follow, how many match in all."""

    found: tuple[FoundAlert, ...]
    more: bool
    total: int
