"""The metadata `accept-language`: which languages a client understands (RFC 9110, 12.5.4)."""

from __future__ import annotations

import re

HEADER_LENGTH_MAX = 1024  # characters; what is longer names no language
_RANGE = re.compile(r"([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)(?:\s*;\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?")


def accepted(header: str) -> list[str]:
    """Give the languages that a client understands, the best first; what is malformed is passed over."""
    if len(header) > HEADER_LENGTH_MAX:
        return []
    ranges = [found for part in header.split(",") if (found := _RANGE.fullmatch(part.strip()))]
    weighed = [(float(found[2] or 1), found[1]) for found in ranges]
    return [language for weight, language in sorted(weighed, key=lambda one: -one[0]) if weight > 0]
