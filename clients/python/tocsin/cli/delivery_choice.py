"""Which deliveries, as flags."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from tocsin.cli import choices, criteria
from tocsin.cli.flags import flag
from tocsin.cli.misuse import Misuse
from tocsin.v1 import notifications_pb2 as pb

_STATUS = re.compile(r"[1-9]([0-9]{2}|xx)")


@dataclass(frozen=True)
class Choice:
    """Criteria; each has to be met, those that may be given again by one of their values."""

    state: Annotated[
        list[str] | None,
        flag(
            "--state",
            "TOCSIN_DELIVERY_STATE",
            f"in this state: {', '.join(choices.words(pb.DeliveryState))}",
            "STATE",
            autocompletion=choices.completing(pb.DeliveryState),
        ),
    ] = None
    configuration: Annotated[
        str, flag("--configuration", "TOCSIN_DELIVERY_CONFIGURATION", "to this receiver's configuration", "ID")
    ] = ""
    event: Annotated[str, flag("--event", "TOCSIN_DELIVERY_EVENT", "of this event", "ID")] = ""
    alert: Annotated[str, flag("--alert", "TOCSIN_DELIVERY_ALERT", "of this alert", "ID")] = ""
    error: Annotated[
        list[str] | None,
        flag(
            "--error",
            "TOCSIN_DELIVERY_ERROR",
            "what went wrong: connection_refused, timeout, server_error ...",
            "CLASS",
            autocompletion=choices.completing(pb.ErrorClass),
        ),
    ] = None
    status: Annotated[
        list[str] | None, flag("--status", "TOCSIN_DELIVERY_STATUS", "what was answered: 503, or 5xx", "CODE")
    ] = None

    def criteria(self) -> dict[str, Any]:
        """Answer them as the client takes them. Raises Misuse."""
        for code in self.status or ():
            if not _STATUS.fullmatch(code):
                raise Misuse("--status", f"{code!r} is no status code: give 503, or 5xx")
        return {
            "states": choices.chosen("--state", pb.DeliveryState, self.state),
            "configuration_id": self.configuration,
            "event_id": self.event,
            "alert_id": self.alert,
            "error_classes": choices.chosen("--error", pb.ErrorClass, self.error),
            "status_codes": self.status or [],
        }


@dataclass(frozen=True)
class Routed:
    """A window over the times of routing, half-open."""

    since: Annotated[
        str, flag("--since", "TOCSIN_DELIVERY_SINCE", "routed at or after an ISO8601 time, or so long ago (15m)")
    ] = ""
    until: Annotated[
        str, flag("--until", "TOCSIN_DELIVERY_UNTIL", "routed before an ISO8601 time, or longer ago (15m)")
    ] = ""

    def window(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Answer begin and end. Raises Misuse."""
        since = criteria.moment("--since", self.since, now) if self.since else None
        return since, criteria.moment("--until", self.until, now) if self.until else None
