"""What executors ask of the log, and what is made of the events that answer: counts and aggregates by group.

A question is data, and `aggregate` is a pure function of what was read, so that whoever has the events
can answer: the store for a run, one pass over the log for a preview. Their answers have to agree to the
last digit: sums are exact, and a percentile is a value that occurs.

    count        how many events there are
    sum avg      of the numbers in a field, exactly rounded
    min max      of them
    p50 .. p99   the smallest of them that so many percent do not exceed (nearest rank)
    distinct     how many different values a field has
    latest       the newest timestamp, in microseconds

An event without the field, or without a number where one is needed, is not counted: `Group.count` is how
many were measured.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol, TypeAlias, cast

from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.variables import Json, text_of

COLUMNS = ("resource_id", "resource_type", "type", "subtype", "service", "host", "user_id")
DETAILS, LABELS = "details.", "labels."
FIELD_LENGTH_MAX = 256  # characters of a field's path
FIELD_DEPTH_MAX = 16  # parts of a path into `details`
GROUP_BY_MAX = 4
GROUP_VALUE_MAX = 1024  # characters of a value that is grouped by; a longer one ends in its hash
# Events that one read may decode. Counting is SQL; what stands in `details` costs some 10 us of the
# interpreter for each event, and a tenth of a second is what one run may take from everybody else.
EVENTS_DECODED_MAX = 10_000

# Groups that one read may answer where not each of them becomes an instance: some 10 ms of the interpreter.
GROUPS_READ_MAX = 10_000

PERCENTILES = {f"p{n}": n for n in range(50, 100)}
NUMERIC = frozenset({"sum", "avg", "min", "max", *PERCENTILES})
AGGREGATIONS = ("count", "sum", "avg", "min", "max", "distinct", *PERCENTILES)
ASKABLE = frozenset({*AGGREGATIONS, "latest"})

Number: TypeAlias = "int | float"


@dataclass(frozen=True, slots=True)
class Group:
    """The events that have these values of the fields that were grouped by: how many, and their aggregate."""

    values: tuple[str, ...]
    count: int
    value: Number | None


class EventSample(NamedTuple):
    """One event of a group, for people to look at; the time is in microseconds."""

    id: str
    type: str
    message: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class EventQuestion:
    """What is asked: of which events, by which fields, and what is made of each group.

    The events are those of a filter that were stored before `created_before`; the filter's account is not
    looked at, an answer is about the alert's own. `field` is what the aggregation looks at; "count" and
    "latest" need none. Fields are columns, `labels.<key>` or `details.<path>`; a value that is missing is
    empty, and with `drop_missing` such events are left out. Groups whose count is outside `at_least` ..
    `at_most` are left out, and those beyond `limit`; without `group_by` there is always one group.
    """

    events: EventFilter
    created_before: int
    group_by: tuple[str, ...] = ()
    aggregation: str = "count"
    field: str = ""
    drop_missing: bool = False
    at_least: int = 1
    at_most: int | None = None
    limit: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be asked: ValueError."""
        wrong = [field for field in (*self.group_by, self.field) if field and field_fault(field)]
        if "" in self.group_by or wrong or len(self.group_by) > GROUP_BY_MAX:
            raise ValueError(f"events cannot be grouped by {', '.join(map(repr, wrong or self.group_by))}")
        if self.aggregation not in ASKABLE:
            raise ValueError(f"{self.aggregation!r} is no aggregation")
        if self.needs_field != bool(self.field):
            raise ValueError(f"{self.aggregation!r} and the field {self.field!r} do not go together")

    @property
    def needs_field(self) -> bool:
        """Whether the aggregation is of a field."""
        return self.aggregation in NUMERIC or self.aggregation == "distinct"

    @property
    def needs_bodies(self) -> bool:
        """Whether the columns of the events do not answer it."""
        fields = (*self.group_by, self.field)
        return bool(self.events.where) or self.aggregation in NUMERIC or any(f.startswith(DETAILS) for f in fields)


class EventReads(Protocol):
    """What an executor may ask of the log: as the alert's owner, in its account only."""

    def aggregate(self, question: EventQuestion) -> list[Group]:
        """Answer the groups, those with most events first, equal ones by their values.

        Raises `RunFailure` (LIMIT) when more than EVENTS_DECODED_MAX events would have to be decoded.
        """
        ...

    def samples(
        self, question: EventQuestion, groups: Sequence[tuple[str, ...]], each: int
    ) -> Mapping[tuple[str, ...], Sequence[EventSample]]:
        """Give the newest events of groups that a question has, at most `each` of one group.

        A store may look at its newest events only, and give fewer of a group whose own are older.
        """
        ...

    def recorded_since(self) -> int | None:
        """Say since when what was appended is in the log as it stands; None while it is empty."""
        ...


def field_fault(field: str) -> str | None:
    """Say why a field cannot be asked for; None if it can."""
    if len(field) > FIELD_LENGTH_MAX:
        return f"has more than {FIELD_LENGTH_MAX} characters"
    if field in COLUMNS or (field.startswith(LABELS) and len(field) > len(LABELS)):
        return None
    if field.startswith(DETAILS) and all(field.split(".")):
        return None if field.count(".") <= FIELD_DEPTH_MAX else f"has more than {FIELD_DEPTH_MAX} parts"
    return f"is none of {', '.join(COLUMNS)}, labels.<key>, details.<path>"


def details_path(field: str) -> tuple[str, ...] | None:
    """Give the keys that lead to a field of `details`; None for another field."""
    return tuple(field.split(".")[1:]) if field.startswith(DETAILS) else None


def group_text(value: Json) -> str:
    """Write a value that is grouped by: as templates do, and cut where it is very long."""
    text = text_of(value)
    if len(text) <= GROUP_VALUE_MAX:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[: GROUP_VALUE_MAX - len(digest) - 1]}~{digest}"


def aggregate(question: EventQuestion, events: Iterable[tuple[tuple[str, ...], Json]]) -> list[Group]:
    """Answer a question from the values of each event: those of its group, and that of its field."""
    measured: defaultdict[tuple[str, ...], list[Json]] = defaultdict(list)
    numeric, distinct = question.aggregation in NUMERIC, question.aggregation == "distinct"
    for values, value in events:
        one = group_text(value) if distinct else value
        if (question.drop_missing and "" in values) or (numeric and not is_number(one)) or (distinct and not one):
            continue
        measured[values].append(one)
    if not question.group_by:
        found = measured.get((), [])
        return [Group((), len(found), aggregated(question.aggregation, found))]
    low, high = question.at_least, question.at_most
    fitting = [(v, m) for v, m in measured.items() if len(m) >= low and (high is None or len(m) <= high)]
    fitting.sort(key=lambda group: (-len(group[1]), group[0]))
    return [Group(v, len(m), aggregated(question.aggregation, m)) for v, m in fitting[: question.limit]]


def is_number(value: Json) -> bool:
    """Tell whether a value can be calculated with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def aggregated(aggregation: str, measured: Sequence[Json]) -> Number | None:
    """Make one number of what was measured in a group; None where nothing was, but for counts."""
    if aggregation == "count":
        return len(measured)
    if aggregation == "distinct":
        return len(set(map(str, measured)))
    if not measured:
        return None
    numbers = cast(Sequence[Number], measured)
    if aggregation in PERCENTILES:
        rank = -(-PERCENTILES[aggregation] * len(numbers) // 100)
        return sorted(numbers)[rank - 1]
    match aggregation:
        case "sum":
            return _sum(numbers, 1)
        case "avg":
            return _sum(numbers, len(numbers))
        case "min":
            return min(numbers)
    return max(numbers)


def _sum(numbers: Sequence[Number], parts: int) -> Number:
    """Add numbers, whose order does not matter, and divide; what no float can hold is the largest one."""
    try:
        total = math.fsum(numbers) / parts
    except OverflowError:  # on the way perhaps, and not at the end
        exact = sum(map(Fraction, numbers)) / parts
        largest = Fraction(sys.float_info.max)
        total = float(max(-largest, min(exact, largest)))
    return int(total) if total.is_integer() and abs(total) < 2**53 else total
