"""`tocsin event summary`, and the text that is drawn."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import tocsin
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from tocsin.cli import histogram
from tocsin.cli.escaping import escaped, json_escaped
from tocsin.cli.tables import BOX, Table, cut
from tocsin.v1 import event_log_pb2 as pb

from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal

NOON = datetime(2026, 8, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def filled(cli: Cli) -> Cli:
    """Append 40, 10 and no events in three hours, and one at the end."""
    hours = [0] * 40 + [1] * 10 + [3]
    cli.client.append_many(
        [
            tocsin.draft("a.b" if n % 5 else "c.d", timestamp=NOON + hour * HOUR, level="info" if n else "error")
            for n, hour in enumerate(hours)
        ]
    )
    return cli


def test_a_histogram_has_a_bar_per_stretch_and_a_row_per_group(filled: Cli) -> None:
    found = filled("event", "summary", "--bucket-width", "1h", "--by", "type")
    assert found.code == 0
    first, second, third, fourth, empty, _, most, least, total = found.lines
    assert [line[:17] for line in (first, second, third, fourth)] == [f"2026-08-24T{h}:00Z" for h in (12, 13, 14, 15)]
    drawn = [sum(line.count(glyph) for glyph in histogram.GLYPHS) for line in (first, second, third, fourth)]
    assert abs(drawn[0] - 4 * drawn[1]) <= 2
    assert drawn[1] > 10
    assert drawn[2:] == [0, 2]
    assert [line.split()[-1] for line in (first, second, fourth)] == ["40", "10", "1"]
    assert (third, empty) == ("2026-08-24T14:00Z", "")
    assert most.split() == ["█", "a.b", "40", "78.4%"]
    assert least.split() == ["▓", "c.d", "11", "21.6%"]
    assert total == "51 events"
    assert found.err == "✔ Counted events\n"


def test_a_summary_is_filtered_and_has_formats(filled: Cli) -> None:
    counts = json.loads(filled("event", "summary", "--by", "level", "--buckets", "4", "-o", "json").out)
    assert counts["groups"] == [{"value": "info", "count": 50}, {"value": "error", "count": 1}]
    assert [bucket["count"] for bucket in counts["buckets"]] == [40, 10, 0, 1]
    assert counts["bucket_width"] == "3600s"
    raw = filled("event", "summary", "--level", "error", "-o", "json-raw").out
    assert json_format.Parse(raw, pb.SummarizeEventsResponse()).total_count == 1
    refused = filled("event", "summary", "-o", "id")
    assert (refused.code, refused.out) == (2, "")
    assert "'id' is none of text, json, json-raw" in refused.err
    assert filled("event", "summary", "nobody").lines == ["0 events"]
    assert filled("event", "summary", "--since", "2026-08-24T13:00Z", "--top", "1").lines[-1] == "11 events"
    assert filled("event", "summary", "--buckets", "3", "--bucket-width", "1h").code == 2
    assert filled("event", "summary", "--by", "message").code == 2


def test_a_histogram_fits_its_terminal(filled: Cli) -> None:
    terminal = Terminal(filled.environment, "-q", "event", "summary", "--bucket-width", "1h", columns=50)
    assert terminal.end() == 0
    plain = terminal.shown.replace("\x1b[31m", "").replace("\x1b[0m", "")
    assert max(len(line) for line in plain.splitlines()) == 50


def test_a_bar_is_as_long_as_its_share() -> None:
    assert histogram.shares([50, 50], 100, 10) == [5, 5]
    assert histogram.shares([1, 0], 1000, 10) == [1, 0]
    assert histogram.shares([0, 0], 1000, 10) == [0, 0]
    assert histogram.shares([2, 1], 6, 10) == [3, 2]
    assert sum(histogram.shares([3, 3, 3], 9, 10)) == 10


def test_a_time_is_as_fine_as_its_bucket() -> None:
    bucket = pb.SummarizeEventsResponse.Bucket()
    bucket.start.FromDatetime(NOON)
    labels = [histogram.time_label(bucket.start, width) for width in (timedelta(days=1), HOUR, timedelta(seconds=5))]
    assert labels == ["2026-08-24", "2026-08-24T12:00Z", "2026-08-24T12:00:00Z"]


def test_values_of_groups_are_shown_escaped() -> None:
    """XC11, XF15."""
    group = pb.SummarizeEventsResponse.Group(value="\x1b[2J", count=1)
    made = pb.SummarizeEventsResponse(groups=[group], total_count=3, others_count=2, bucket_width=Duration(seconds=60))
    texts = [line.text for line in histogram.groups(made, "host")]
    assert "\\x1b[2J" in texts[1]
    assert texts[2].split() == ["(others)", "2", "66.7%"]


def test_tables_keep_their_width() -> None:
    table = Table.fit(("A", "B"), [["x", "long cell"], ["日本", "y"]], BOX)
    lines = [*table.head(), table.line(["x", "long cell"]), *table.foot()]
    assert lines == [
        "┌──────┬───────────┐",
        "│ A    │ B         │",
        "├──────┼───────────┤",
        "│ x    │ long cell │",
        "└──────┴───────────┘",
    ]
    assert table.line(["日本", "y"]) == "│ 日本 │ y         │"
    assert table.width == 20
    wide = Table.fit(("A", "B"), [["a" * 30, "b" * 10]])
    assert wide.narrowed(30, {0: 8}).line(["a" * 30, "b" * 10]) == "a" * 17 + "…  " + "b" * 10
    assert wide.narrowed(5, {0: 8, 1: 8}).widths == [8, 8]
    assert cut("日本語", 5) == "日本…"


def test_escapes_name_what_they_hide() -> None:
    """XC11, XF15."""
    assert escaped("a\tb\r\n\x7f\u2028\U000e0041") == "a\\tb\\r\\n\\x7f\\u2028\\U000e0041"
    assert escaped("a\nb", lines=True) == "a\nb"
    assert escaped("naïve 日本 🚀") == "naïve 日本 🚀"
    text = '{"a":\n"\x7f\u202e\U000e0041"}'
    assert json.loads(json_escaped(text)) == json.loads(text)
    assert json_escaped(text).isascii()
