"""Times that are written as text. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_LEAP_SECOND = re.compile(r"\d\d:?\d\d:?60(?!\d)")


class NoTime(ValueError):
    """A text is no time; the message says what it is instead, empty where there is nothing more to say."""


def time_of(text: str) -> datetime:
    """Read an ISO 8601 time, UTC unless it says otherwise. Raises NoTime."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        said = "a leap second, which no event has: give the second before or after it"
        raise NoTime(said if _LEAP_SECOND.search(text) else "") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
