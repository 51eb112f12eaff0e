"""Options of a configuration: how its deliveries are made and sent.

One frozen dataclass, stored as one JSON object that holds only what differs from the default: a new
option is a field here and one in `DeliveryOptions` of the protos.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from tocsin_server.domain.errors import Violation
from tocsin_server.domain.grouping import Grouping

RATE_MIN, RATE_MAX = 0.001, 1000.0  # attempts a second


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """How deliveries are made and sent; a default means what the protos say for an unset field."""

    retry_schedule: tuple[int, ...] = ()
    rate_per_second: float = 0.0
    grouping: Grouping | None = None
    add_notification_payload: bool = False
    subject_template: str = ""
    body_template: str = ""
    escape: str = ""
    recipients: tuple[str, ...] = ()

    def check(self) -> list[Violation]:
        """Judge what the bounds of single fields cannot say; paths are relative to the options."""
        found: list[Violation] = []
        if self.rate_per_second and not RATE_MIN <= self.rate_per_second <= RATE_MAX:
            found.append(Violation("rate.per_second", f"is outside {RATE_MIN:g} to {RATE_MAX:g}"))
        if self.grouping is not None:
            found += [Violation(f"grouping.{v.path}", v.description) for v in self.grouping.check()]
        return found

    def stored(self) -> str:
        """Give the options as JSON, without what is at its default."""
        default = asdict(DEFAULT)
        return json.dumps({name: value for name, value in asdict(self).items() if value != default[name]})


DEFAULT = DeliveryOptions()


def read(text: str) -> DeliveryOptions:
    """Read stored options."""
    given: dict[str, Any] = json.loads(text)
    if not given:
        return DEFAULT
    values: dict[str, Any] = {}
    for field in fields(DeliveryOptions):
        if field.name in given:
            value = given[field.name]
            if field.name == "grouping":
                value = Grouping(**{**value, "by": tuple(value["by"])})
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return DeliveryOptions(**values)
