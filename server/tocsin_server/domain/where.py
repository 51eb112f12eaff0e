"""Conditions over whole events: the CEL expression of a filter's `where`.

An expression is compiled once, against the fields that an event has, and then asked about frames: the
stored wire form of an event. What it may cost is settled when it is compiled (`where_cost.py`); what
cannot be evaluated for an event, a missing key or a value of another type, does not match. `docs/where.md`
has the language, its bounds and the measurement behind the choice of the library.

The library and what is described to it (`conditions.py`) come with the first expression: a server that
starts does not wait for them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tocsin_server.domain.conditions import Where

WHERE_LENGTH_MAX = 1024  # characters; what is longer is a program, not a condition
WHERE_SCAN_S = 0.25  # how long one page, or one step of another read, may evaluate


class WhereError(ValueError):
    """An expression that cannot be used; the text says where and why."""


@lru_cache(maxsize=1024)
def compiled(text: str) -> Where:
    """Compile an expression; WhereError says what is wrong with it."""
    from tocsin_server.domain import conditions  # noqa: PLC0415 - as said above

    return conditions.Where(conditions.condition(conditions.ENVIRONMENT, text, "an event"))
