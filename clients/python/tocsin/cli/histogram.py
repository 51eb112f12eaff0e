"""Counts drawn as bars of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from tocsin.cli.escaping import escaped
from tocsin.cli.tables import Line, Span, Table
from tocsin.v1.event_log_pb2 import SummarizeEventsResponse
from tocsin.values import to_datetime

GLYPHS = "█▓▒░▚▞"
PLAIN = "#=+-:."
STYLES = ("red", "cyan", "green", "yellow", "magenta", "blue")
_VALUE_MIN = 4
WIDTH = 100
"""Columns where the output is no terminal."""


def shares(counts: Sequence[int], most: int, width: int) -> list[int]:
    """Split a bar among counts: it is as long as their sum is of `most`, at least 1 cell where there is anything."""
    total = sum(counts)
    if not total:
        return [0] * len(counts)
    length = max(1, round(width * total / most))
    exact = [count * length / total for count in counts]
    cells = [int(part) for part in exact]
    by_rest = sorted(range(len(counts)), key=lambda index: exact[index] - cells[index], reverse=True)
    for index in by_rest[: length - sum(cells)]:
        cells[index] += 1
    return cells


def time_label(stamp: Timestamp, width: timedelta) -> str:
    """Answer the begin of a bucket, as finely as its width needs."""
    if width >= timedelta(days=1):
        form = "%Y-%m-%d"
    else:
        form = "%Y-%m-%dT%H:%MZ" if width >= timedelta(minutes=1) else "%Y-%m-%dT%H:%M:%SZ"
    return to_datetime(stamp).strftime(form)


def bars(summary: SummarizeEventsResponse, width: int, glyphs: str = GLYPHS) -> list[Line]:
    """Draw a line per bucket, each group in a colour and a glyph of its own, the others in the last ones."""
    bucket_width = summary.bucket_width.ToTimedelta()
    labels = [time_label(bucket.start, bucket_width) for bucket in summary.buckets]
    most = max((bucket.count for bucket in summary.buckets), default=0)
    start = max(map(len, labels), default=0) + 2
    room = max(width - start - len(str(most)) - 2, 1)
    lines = []
    for label, bucket in zip(labels, summary.buckets, strict=True):
        drawn = _stacked(bucket, len(glyphs))
        cells = shares(drawn, most, room)
        bar = "".join(glyph * count for glyph, count in zip(glyphs, cells, strict=False))
        text = f"{label:<{start}}{bar}" + (f"  {bucket.count}" if bucket.count else "")
        lines.append(Line(text.rstrip(), _spans(cells, start)))
    return lines


def _stacked(bucket: SummarizeEventsResponse.Bucket, most: int) -> list[int]:
    """Answer the counts of the groups that have a glyph, and last of all others."""
    groups = list(bucket.group_counts)[: most - 1]
    return [*groups, bucket.count - sum(groups)] if groups else [bucket.count]


def _spans(cells: Sequence[int], start: int) -> tuple[Span, ...]:
    found = []
    for count, style in zip(cells, STYLES, strict=False):
        if count:
            found.append((start, start + count, style))
        start += count
    return tuple(found)


def groups(summary: SummarizeEventsResponse, field: str, glyphs: str = GLYPHS, width: int | None = None) -> list[Line]:
    """Draw the table of the groups: glyph, value, count, share. In a terminal of so many columns values are cut."""
    if not field:
        return []
    rows = [(group.value or "(none)", group.count) for group in summary.groups]
    if summary.others_count:
        rows.append(("(others)", summary.others_count))
    total = max(summary.total_count, 1)
    with_bars = bool(summary.buckets)
    shown = [
        [
            glyphs[min(index, len(glyphs) - 1)] if with_bars else "",
            escaped(value),
            str(count),
            f"{count * 100 / total:.1f}%",
        ]
        for index, (value, count) in enumerate(rows)
    ]
    table = Table.fit(("", escaped(field), "events", "share"), shown)
    table = table if width is None else table.narrowed(width, {1: _VALUE_MIN})
    styles = [STYLES[min(index, len(STYLES) - 1)] for index in range(len(shown))]
    lines = [Line(table.line(row), ((0, 1, style),)) for row, style in zip(shown, styles, strict=True)]
    return [*(Line(text) for text in table.head()), *lines]
