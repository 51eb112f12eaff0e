"""Counts of events per bucket of time and per value of a field. Times are microseconds since 1970 UTC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tocsin_server.domain.encoding import SECOND_US
from tocsin_server.domain.errors import invalid_field
from tocsin_server.domain.event_log import Key
from tocsin_server.domain.selection import LEVEL_BY_NAME, EventFilter

SUMMARY_EVENTS_MAX = 500_000  # events that one summary looks at: a second or two
SUMMARY_SLICE_EVENTS = 20_000  # looked at by one short query
SUMMARY_S = 5.0
BUCKETS_MAX = 1000
BUCKETS_DEFAULT = 60
GROUPS_DEFAULT = 10
MINUTE, HOUR, DAY = 60, 3600, 86_400
WIDTHS_S = (
    1, 5, 15, 30, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
    DAY, 7 * DAY, 30 * DAY, 366 * DAY,
)  # fmt: skip
LEVEL_WORDS = {str(int(level)): name for name, level in LEVEL_BY_NAME.items()}

Counts = Mapping[tuple[int, str], int]
"""Events by the number of their bucket and the value of the field to group by."""


@dataclass(frozen=True, slots=True)
class SummaryQuery:
    """What is asked for; `width_us` or `bucket_count` where buckets are wanted."""

    event_filter: EventFilter
    group_by: str
    top: int
    width_us: int | None = None
    bucket_count: int | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """The times that are counted: of the first and of the last event that can be in it."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What one slice has counted; `through` is its end, None at the end of the range."""

    counts: Counts
    looked: int
    through: Key | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """One stretch of time, and how its events fall into the groups."""

    start: int
    count: int
    group_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """The answer; `counted_since` where not everything was counted."""

    total: int
    groups: tuple[tuple[str, int], ...]
    others: int
    buckets: tuple[Bucket, ...]
    width_us: int | None
    counted_since: int | None


def width_of(query: SummaryQuery, seen: Range | None) -> int | None:
    """Settle the width of the buckets for a range; TocsinError when they would be too many."""
    if seen is None or (query.width_us is None and query.bucket_count is None):
        return query.width_us
    if query.width_us is not None:
        buckets = _buckets(seen, query.width_us)
        if buckets > BUCKETS_MAX:
            text = f"would make {buckets} buckets, at most {BUCKETS_MAX} are allowed: give a larger one or a since"
            raise invalid_field("bucket_width", text)
        return query.width_us
    wanted = query.bucket_count or BUCKETS_DEFAULT
    fitting = (width for width in WIDTHS_S if _buckets(seen, width * SECOND_US) <= wanted)
    return next(fitting, WIDTHS_S[-1]) * SECOND_US


def _buckets(seen: Range, width: int) -> int:
    return seen.last // width - seen.first // width + 1


def summary(query: SummaryQuery, seen: Range | None, width: int | None, counts: Counts, since: int | None) -> Summary:
    """Put counts in order: the largest groups, the others, the buckets without a gap."""
    values: Counter[str] = Counter()
    for (_, value), count in counts.items():
        values[value] += count
    total = values.total()
    if not query.group_by:
        values.clear()
    largest = sorted(values.items(), key=lambda group: (-group[1], group[0]))[: query.top or GROUPS_DEFAULT]
    others = total - sum(count for _, count in largest) if query.group_by else 0
    buckets: tuple[Bucket, ...] = ()
    if width is not None and seen is not None:
        first = max(seen.first, since or 0) // width
        buckets = _in_time(counts, [value for value, _ in largest], width, range(first, seen.last // width + 1))
    if query.group_by == "level":
        largest = [(LEVEL_WORDS[value], count) for value, count in largest]
    return Summary(total, tuple(largest), others, buckets, width, since)


def _in_time(counts: Counts, groups: Sequence[str], width: int, numbers: range) -> tuple[Bucket, ...]:
    totals: Counter[int] = Counter()
    for (number, _), count in counts.items():
        totals[number] += count
    return tuple(
        Bucket(number * width, totals[number], tuple(counts.get((number, group), 0) for group in groups))
        for number in numbers
    )
