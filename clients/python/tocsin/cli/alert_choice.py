"""Which alerts, as flags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from tocsin import alerts
from tocsin.cli import choices
from tocsin.cli.flags import flag
from tocsin.v1 import alerting_pb2 as pb

OFF = "off"


def _statuses() -> list[str]:
    return [*choices.words(pb.AlertStatus), OFF]


@dataclass(frozen=True)
class Choice:
    """Criteria; each has to be met, those that may be given again by one of their values."""

    search: Annotated[
        str, flag("--search", "TOCSIN_ALERT_SEARCH", "words of the name or the tags, in any case; one is enough")
    ] = ""
    tag: Annotated[list[str] | None, flag("--tag", "TOCSIN_ALERT_TAG", "with this tag")] = None
    type: Annotated[
        list[str] | None, flag("--type", "TOCSIN_ALERT_TYPE", 'of this type (see "tocsin alert types")', "TYPE")
    ] = None
    consumer: Annotated[list[str] | None, flag("--consumer", "TOCSIN_ALERT_CONSUMER", "of this application")] = None
    status: Annotated[
        list[str] | None,
        flag(
            "--status",
            "TOCSIN_ALERT_STATUS",
            f"in this status: {', '.join(_statuses())}",
            "STATUS",
            autocompletion=_statuses,
        ),
    ] = None
    filter: Annotated[
        str, flag("--filter", "TOCSIN_ALERT_FILTER", "condition in CEL (e.g. 'alert.interval == \"1m\"')", "CEL")
    ] = ""
    endpoint: Annotated[
        str,
        flag(
            "--endpoint",
            "TOCSIN_ALERT_ENDPOINT",
            "with an action that goes to this receiver's configuration",
            "ID",
            also=("--where-goes",),
        ),
    ] = ""

    def request(self) -> pb.FindAlertsRequest:
        """Make the request. Raises Misuse."""
        condition = " && ".join(self._conditions())
        return alerts.find_request(search=self.search, filter=condition, configuration_id=self.endpoint)

    def _conditions(self) -> Iterator[str]:
        if self.tag:
            yield _either(f"{_text(tag)} in alert.tags" for tag in self.tag)
        if self.type:
            yield _either(f"alert.alert_type_id == {_text(type)}" for type in self.type)
        if self.consumer:
            yield _either(f"alert.consumer == {_text(consumer)}" for consumer in self.consumer)
        if self.status:
            yield _either(map(_status, self.status))
        if self.filter:
            yield f"({self.filter})" if self.tag or self.type or self.consumer or self.status else self.filter


def _status(word: str) -> str:
    if word.lower() == OFF:
        return "!alert.enabled"
    (known,) = choices.chosen("--status", pb.AlertStatus, [word], OFF)
    return f'(alert.enabled && alert.status == "{known.upper()}")'


def _either(conditions: Iterator[str]) -> str:
    found = list(conditions)
    return found[0] if len(found) == 1 else f"({' || '.join(found)})"


def _text(text: str) -> str:
    """Answer a text as CEL writes it, which is as JSON does."""
    return json.dumps(text, ensure_ascii=False)
