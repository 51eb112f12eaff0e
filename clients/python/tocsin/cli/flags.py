"""Flags that several commands share, as dataclasses: `taking.takes` gives a command a flag for each field."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from tocsin.cli import criteria
from tocsin.cli.misuse import Misuse
from tocsin.cli.session import Session
from tocsin.following import Start
from tocsin.v1.event_log_pb2 import EventFilter

FORMATS = ("text", "json", "json-raw", "id")


def flag(name: str, variable: str, help: str, metavar: str | None = "string", **more: Any) -> Any:
    """Describe a flag with its environment variable."""
    return typer.Option(name, *more.pop("also", ()), envvar=variable, help=help, metavar=metavar, **more)


def _formats() -> list[str]:
    return list(FORMATS)


def _count_formats() -> list[str]:
    return [name for name in FORMATS if name != "id"]


def _levels() -> list[str]:
    return ["INFO", "ERROR"]


Count = Annotated[
    int | None,
    flag("-n", "TOCSIN_COUNT", "end after so many events", "int32", also=("--count",), min=1),
]


@dataclass(frozen=True)
class Criteria:
    """Which events; each may be given several times, and one match of each is enough."""

    event_type: Annotated[
        list[str] | None,
        flag(
            "--event-type",
            "TOCSIN_EVENT_TYPE",
            'filter events by a prefix match on the event type (e.g. "user.image.")',
        ),
    ] = None
    subtype: Annotated[list[str] | None, flag("--subtype", "TOCSIN_EVENT_SUBTYPE", "filter events by the subtype")] = (
        None
    )
    level: Annotated[
        list[str] | None,
        flag(
            "--level",
            "TOCSIN_EVENT_LEVEL",
            "filter events by the level - INFO or ERROR",
            autocompletion=_levels,
        ),
    ] = None
    host: Annotated[
        list[str] | None, flag("--host", "TOCSIN_EVENT_SOURCE_HOST_ID", "filter events by the originating host ID")
    ] = None
    service: Annotated[
        list[str] | None,
        flag("--service", "TOCSIN_EVENT_SOURCE_SERVICE_NAME", "filter events by the originating service"),
    ] = None
    resource_type: Annotated[
        list[str] | None,
        flag(
            "--resource-type",
            "TOCSIN_EVENT_RESOURCE_TYPE",
            "filter events by the type of resource - tag, imageDigest, repository etc",
        ),
    ] = None
    user: Annotated[
        list[str] | None, flag("--user", "TOCSIN_EVENT_USER_ID", "filter events by the user of the resource")
    ] = None
    label: Annotated[
        list[str] | None, flag("--label", "TOCSIN_EVENT_LABEL", "filter events by a label", "KEY=VALUE")
    ] = None
    where: Annotated[
        str, flag("--where", "TOCSIN_EVENT_WHERE", 'condition in CEL (e.g. "event.details.exitcode > 1.0")')
    ] = ""
    all_accounts: Annotated[
        bool, flag("--all-accounts", "TOCSIN_EVENT_ALL_ACCOUNTS", "events of every account (admin only)", None)
    ] = False

    def filter(self, *resources: str) -> EventFilter:
        """Make the filter. Raises Misuse."""
        given = {
            "event-type": self.event_type or [],
            "subtype": self.subtype or [],
            "level": self.level or [],
            "host": self.host or [],
            "service": self.service or [],
            "resource-type": self.resource_type or [],
            "user": self.user or [],
            "label": self.label or [],
            "resource": resources,
        }
        return criteria.event_filter(given, self.where, self.all_accounts)


@dataclass(frozen=True)
class Window:
    """A window over the times of occurrence, half-open."""

    since: Annotated[
        str,
        flag(
            "--since",
            "TOCSIN_EVENT_SINCE",
            "return events that occurred at or after the ISO8601 formatted UTC timestamp, or so long ago (15m, 1h, 7d)",
        ),
    ] = ""
    before: Annotated[
        str,
        flag(
            "--before",
            "TOCSIN_EVENT_BEFORE",
            "return events that occurred before the ISO8601 formatted UTC timestamp, or longer ago (15m, 1h, 7d)",
        ),
    ] = ""

    def bound(self, wanted: EventFilter, now: datetime) -> EventFilter:
        """Bound a filter. Raises Misuse."""
        since = criteria.moment("--since", self.since, now) if self.since else None
        before = criteria.moment("--before", self.before, now) if self.before else None
        return criteria.bounded(wanted, since, before)


@dataclass(frozen=True)
class Place:
    """Where reading begins, by the time or the order of storing."""

    since: Annotated[
        str,
        flag("--since", "TOCSIN_START_SINCE", "events stored at or after an ISO8601 time, or so long ago (15m)"),
    ] = ""
    after: Annotated[
        str, flag("--after", "TOCSIN_START_AFTER", "events after this position of the log", "POSITION[@LOG_ID]")
    ] = ""
    beginning: Annotated[bool, flag("--beginning", "TOCSIN_START_BEGINNING", "from the oldest event on", None)] = False
    new: Annotated[bool, flag("--new", "TOCSIN_START_NEW", "only events from now on (the default)", None)] = False

    def start(self, now: datetime) -> Start:
        """Settle on one of them. Raises Misuse."""
        since = criteria.moment("--since", self.since, now) if self.since else None
        return criteria.start(self.after or None, since, self.beginning, self.new)


@dataclass(frozen=True)
class Output:
    """The format of the result."""

    output: Annotated[
        str,
        flag(
            "-o",
            "TOCSIN_FORMAT",
            "the format to show the results (allowable: [text json json-raw id])",
            also=("--output",),
            autocompletion=_formats,
            show_default=True,
        ),
    ] = "text"

    def one_of(self, session: Session, *allowed: str) -> str:
        """Answer the format. Raises Misuse for one that the command does not have.

        The variable is for all commands: a format that this one does not have is then not meant for it.
        """
        if self.output in allowed:
            return self.output
        if self.output in FORMATS and "output" not in session.typed:
            return "text"
        raise Misuse("--output", f"{self.output!r} is none of {', '.join(allowed)}")


@dataclass(frozen=True)
class CountOutput(Output):
    """The format of a result that has no ids."""

    output: Annotated[
        str,
        flag(
            "-o",
            "TOCSIN_FORMAT",
            "the format to show the results (allowable: [text json json-raw])",
            also=("--output",),
            autocompletion=_count_formats,
            show_default=True,
        ),
    ] = "text"
