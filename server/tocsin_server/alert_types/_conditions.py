"""Conditions on a number: a comparator and its threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tocsin_server.domain.aggregation import Number
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.variables import Json, text_of

COMPARATORS = (">", ">=", "<", "<=", "between", "not_between")
PAIRED = ("between", "not_between")

COUNT_MAX = 2**63 - 1  # the largest integer of the store

COMPARATOR: Mapping[str, Any] = {"enum": list(COMPARATORS)}
THRESHOLD: Mapping[str, Any] = {
    "description": "A number; for between and not_between, the smallest and the largest number between.",
}
_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
# What a threshold looks like, by the comparator beside it.
FORM: Mapping[str, Any] = {
    "if": {"properties": {"comparator": {"enum": list(PAIRED)}}, "required": ["comparator"]},
    "then": {"properties": {"threshold": _PAIR}},
    "else": {"properties": {"threshold": {"type": "number"}}},
}


@dataclass(frozen=True, slots=True)
class Condition:
    """What a number is held against; one threshold, or two in order."""

    comparator: str
    thresholds: tuple[Number, ...]

    @classmethod
    def of(cls, given: Mapping[str, Json]) -> Condition:
        """Read a condition from params."""
        threshold: Any = given["threshold"]
        return cls(
            str(given.get("comparator", ">=")), tuple(threshold) if isinstance(threshold, list) else (threshold,)
        )

    @property
    def threshold(self) -> Json:
        """The threshold as it was given."""
        return list(self.thresholds) if self.comparator in PAIRED else self.thresholds[0]

    def meets(self, value: Number) -> bool:
        """Tell whether a number meets it."""
        first = self.thresholds[0]
        match self.comparator:
            case ">":
                return value > first
            case ">=":
                return value >= first
            case "<":
                return value < first
            case "<=":
                return value <= first
        inside = first <= value <= self.thresholds[1]
        return inside if self.comparator == "between" else not inside

    def counts(self) -> tuple[int, int | None]:
        """Give the smallest and the largest count that may meet it; None is no largest.

        No count is as large as what a database can hold, so a threshold beyond is as good as that.
        """
        first, last = (min(threshold, COUNT_MAX) for threshold in (self.thresholds[0], self.thresholds[-1]))
        match self.comparator:
            case ">":
                return min(math.floor(first) + 1, COUNT_MAX), None
            case ">=":
                return math.ceil(first), None
            case "<":
                return 0, math.ceil(first) - 1
            case "<=":
                return 0, math.floor(first)
            case "between":
                return math.ceil(first), math.floor(last)
        return 0, None

    def __str__(self) -> str:
        return f"{self.comparator} {' and '.join(text_of(threshold) for threshold in self.thresholds)}"


def hidden(conditions: Sequence[Condition], counts: bool) -> Iterator[int]:
    """Give the places of conditions that are never reached, because whatever meets one meets another before it."""
    # Between two thresholds that follow each other every number is like every other.
    edges = sorted({threshold for one in conditions for threshold in one.thresholds})
    if counts:
        near = {whole + step for edge in edges for whole in (math.floor(edge), math.ceil(edge)) for step in (-1, 0, 1)}
        tried: list[Number] = [*(count for count in near if count >= 0), math.inf]
    else:
        tried = [-math.inf, *edges, *(low / 2 + high / 2 for low, high in pairwise(edges)), math.inf]
    for place, condition in enumerate(conditions):
        met = [number for number in tried if condition.meets(number)]
        if met and all(any(one.meets(number) for one in conditions[:place]) for number in met):
            yield place


def order_violations(given: Mapping[str, Json], path: str) -> Iterator[Violation]:
    """Find two thresholds in the wrong order."""
    threshold: Any = given.get("threshold")
    if isinstance(threshold, list) and threshold[0] > threshold[1]:
        yield Violation(path, "the first of the two numbers is the smaller one")


def lowest(given: Mapping[str, Json]) -> Number:
    """Give the smallest threshold of a condition of params."""
    threshold: Any = given["threshold"]
    found: Number = min(threshold) if isinstance(threshold, Sequence) else threshold
    return found
