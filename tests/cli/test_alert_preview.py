"""`tocsin alert preview`: what an alert would have done, drawn over time."""

from __future__ import annotations

import json
import re
import signal
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.cli import preview_drawing, timeline
from tocsin.cli.timeline import DRAWN, PLAIN, Scale, Timeline
from tocsin.v1 import alerting_pb2 as pb

from tests.cli.alerting import created, fail, receiver, text
from tests.cli.conftest import Cli
from tests.cli.terminal import CONTROL, Terminal, shown

NOON = datetime(2026, 8, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAME = "docker.io/library/postgres:16-alpine"


def stamp(at: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(at)
    return found


def run(minute: int, groups: dict[str, str], *told: str) -> pb.PreviewAlertResponse.Run:
    """A run so many minutes after noon: the group of each instance ("" where it recovers), and who is told."""
    made = pb.PreviewAlertResponse.Run(execution=pb.Execution(scheduled_time=stamp(NOON + timedelta(minutes=minute))))
    for id, group in groups.items():
        made.execution.instances.add(id=id, action_group=group or "recovered", recovered=not group)
    for id in told:
        made.notifications.add(instance_id=id, action_group=groups[id])
    return made


def hour(*runs: pb.PreviewAlertResponse.Run) -> Timeline:
    found = Timeline(NOON, NOON + HOUR)
    for one in runs:
        found.take(one)
    return found


def drawn(found: Timeline, width: int, marks: timeline.Marks = DRAWN) -> list[str]:
    return [line.text for line in preview_drawing.drawing(found, width, marks)]


LIFE = (
    run(10, {"nginx": "default"}, "nginx"),
    run(20, {"nginx": "critical", "redis": "default"}, "nginx", "redis"),
    run(30, {"nginx": "critical", "redis": ""}, "redis"),
    run(40, {"nginx": ""}),
)


def test_a_timeline_has_blocks_marks_and_an_axis() -> None:
    """A column is a minute: what is active, in which group, when somebody is told."""
    lines = drawn(hour(*LIFE), 67)
    assert lines == [
        "2026-08-24T12:00:00Z to 2026-08-24T13:00:00Z",
        "nginx  " + "·" * 10 + "█" * 10 + "▓" * 20 + "·" * 20,
        "       " + " " * 10 + "▴" + " " * 9 + "▴",
        "redis  " + "·" * 20 + "█" * 10 + "·" * 30,
        "       " + " " * 20 + "▴" + " " * 9 + "▴",
        "       " + ("┬" + "─" * 9) * 6,
        "       " + "     ".join(f"12:{minute}" for minute in ("00", 10, 20, 30, 40, 50)),
        "█ default",
        "▓ critical",
        "▴ a message; a digit: so many, + more than nine",
    ]


def test_groups_have_colours_of_their_own() -> None:
    _, nginx, *_ = preview_drawing.drawing(hour(*LIFE), 67, DRAWN)
    assert nginx.spans == ((17, 27, "red"), (27, 47, "cyan"))


def test_without_utf_8_it_is_drawn_in_ascii() -> None:
    lines = drawn(hour(*LIFE), 67, PLAIN)
    assert lines[1] == "nginx  " + "." * 10 + "#" * 10 + "=" * 20 + "." * 20
    assert all(line.isascii() for line in lines)


def test_what_does_not_end_goes_on_and_what_is_short_is_seen() -> None:
    """An instance that is active for less than a column has one; several messages of a column are counted."""
    flash = [run(10, {"a": "default"}, "a"), run(11, {"a": ""}, "a")]
    busy = [run(minute, {"b": "default"}, "b") for minute in range(30, 60)]
    _, a, marks_a, b, marks_b, *_ = drawn(hour(*flash, *busy), 3 + 12)
    assert a == "a  ··█·········"
    assert marks_a == "     2"
    assert b == "b  ······██████"
    assert marks_b == "         555555"
    _, _, marks, *_ = drawn(hour(run(30, {"c": "default"}, *["c"] * 10)), 3 + 12)
    assert marks == "         +"


def test_a_long_id_stands_above_its_line() -> None:
    """IDs stay whole, and are safe to print."""
    lines = drawn(hour(run(10, {NAME: "default", "a\x1b": "default"})), 60)
    assert lines[1] == "a\\x1b  " + "·" * 8 + "█" * 45
    assert lines[2:4] == [NAME, "       " + "·" * 8 + "█" * 45]


def test_runs_that_failed_have_a_line() -> None:
    failed = run(30, {})
    failed.execution.status = pb.ALERT_STATUS_ERROR
    failed.execution.error.reason, failed.execution.error.message = "PARAMS", "window is no duration"
    lines = drawn(hour(run(10, {"a": "default"}), failed), 13 + 60)
    assert lines[2] == "failed runs  " + " " * 30 + "✘"
    (entry,) = preview_drawing.entries(failed, None)
    assert entry.text == "2026-08-24T12:30:00Z  failed  PARAMS: window is no duration"


def test_many_instances_are_not_all_drawn() -> None:
    found = hour(*(run(0, {f"i{number:03}": "default"}) for number in range(100)))
    assert sum(line.startswith("i") for line in drawn(found, 80)) == preview_drawing.INSTANCES_MAX


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (timedelta(seconds=30), "12:00:00"),
        (timedelta(hours=24), "15:00"),
        (timedelta(hours=24), "08-25"),
        (timedelta(days=10), "2026-08-25"),
        (timedelta(days=4000), "2031-10-20"),
    ],
)
def test_the_axis_has_round_times(span: timedelta, labels: str) -> None:
    rule, below = timeline.axis(Scale(NOON, NOON + span, 60), DRAWN)
    assert len(rule) == 60
    assert len(below) <= 60
    assert labels in below
    for found in re.finditer(r"\S+", below):
        assert rule[found.start()] == "┬"


@pytest.mark.parametrize("columns", [1, 7, 60, 500])
@pytest.mark.parametrize("span", [timedelta(0), timedelta(seconds=1), timedelta(days=20_000)])
def test_the_axis_fits_whatever_the_range_is(span: timedelta, columns: int) -> None:
    rule, below = timeline.axis(Scale(NOON, NOON + span, columns), DRAWN)
    assert len(rule) == columns
    assert len(below) <= columns


def test_an_entry_says_what_changed_and_what_would_be_said() -> None:
    one = run(10, {"nginx": "default"}, "nginx")
    one.transitions.add(type="system.alerting.new_instance", message="instance nginx is active")
    message = one.notifications[0]
    message.configuration_id = "ops"
    message.params.update({"body": "it fails\nagain", "subject": "nginx", "headers": {"x": "1"}})
    assert [line.text for line in preview_drawing.entries(one, None)] == [
        "2026-08-24T12:10:00Z  new_instance  instance nginx is active",
        "2026-08-24T12:10:00Z  message  about nginx (default) to ops",
        " " * 22 + "subject: nginx",
        " " * 22 + "body: it fails",
        " " * 22 + "  again",
        " " * 22 + 'headers: {"x": "1"}',
    ]
    message.error = "no such partial"
    assert [line.text for line in preview_drawing.entries(one, 60)][-1].strip() == "cannot be made: no such partial"


def alert(cli: Cli, **changes: object) -> str:
    """Write an alert that runs each second, and notices a failure for a second."""
    params = {"source": {"levels": ["error"]}, "window": "1s", "threshold": 1, "group_by": ["resource_id"]}
    told = receiver(cli)
    says = [
        {"id": told, "params": {"body": "{{alertInstanceId}} fails"}},
        {"id": told, "group": "recovered", "params": {"body": "{{alertInstanceId}} is fine"}},
    ]
    return text(schedule={"interval": "1s"}, params=params, actions=says, **changes)


def test_a_preview_draws_then_tells(cli: Cli) -> None:
    """Of an alert in a file: nothing is stored or sent, and piped it is the same in plain text."""
    fail(cli, "nginx")
    given = alert(cli)
    found = cli("alert", "preview", "-f", "-", "--since", "1m", stdin=given)
    while "nginx is fine" not in found.out:  # until a run was due since it has recovered
        found = cli("alert", "preview", "-f", "-", "--since", "1m", stdin=given)
    assert (found.code, found.err.splitlines()[0]) == (0, "✔ Previewed alert")
    assert re.search(r"^nginx  ·+█+·+$", found.out, re.M)
    assert found.out.index("new_instance  instance nginx is active") < found.out.index("body: nginx fails")
    assert found.out.index("body: nginx fails") < found.out.index("recovered_instance  instance nginx recovered")
    assert not {"\x1b", "━"} & {*found.out, *found.err}
    assert re.search(r"^\d+ runs, 0 failed, [2-9] messages; 1 event read$", found.err, re.M)
    limited = cli("alert", "preview", "-f", "-", "--since", "1m", "-n", "1", stdin=given)
    assert "nginx is fine" not in limited.out
    assert "These are the first 1 of " in limited.err
    assert list(cli.client.find_alerts()) == []


def test_json_streams_the_parts(cli: Cli) -> None:
    """A stored alert, each run of a range; one part a line."""
    id = created(cli)
    words = (
        "alert",
        "preview",
        id,
        "--since",
        "2026-01-02T03:00:00Z",
        "--until",
        "2026-01-02T06:00:00Z",
        "--every-run",
    )
    parts = [json.loads(line) for line in cli(*words, "-o", "json").lines]
    assert next(iter(parts[0])) == "started"
    assert parts[0]["started"]["runs"] == 3
    assert [part["run"]["execution"]["number"] for part in parts if "run" in part] == [1, 2, 3]
    assert parts[-1] == {"done": {"runs": 3}}
    raw = [json_format.Parse(line, pb.PreviewAlertResponse()) for line in cli(*words, "-o", "json-raw").lines]
    assert raw[-1].done.runs == 3
    quiet = cli(*words[:-1])
    assert (quiet.code, "3 runs, 0 failed, 0 messages; 0 events read" in quiet.err) == (0, True)


def test_a_preview_that_cannot_be_says_why(cli: Cli) -> None:
    assert cli("alert", "preview", "nobody").code == 3
    found = cli("alert", "preview", "-f", "-", stdin=text(alert_type_id="none"))
    assert "ALERT_TYPE_NOT_REGISTERED" in found.err
    long = cli("alert", "preview", "-f", "-", "--since", "9d", stdin=text(schedule={"interval": "1s"}))
    assert (long.code, long.out) == (2, "")
    assert "start_time: the range has 777,600 runs of 1s, at most 10,000 are replayed" in long.err


def test_a_terminal_shows_a_bar_and_colours(cli: Cli) -> None:
    """The bar goes when it is done; without a terminal there is none."""
    fail(cli, "nginx")
    id = created(cli, schedule={"interval": "1s"})
    words = ("alert", "preview", id, "--since", "1m")
    while "nginx  " not in cli(*words).out:
        pass  # until a run was due since then
    terminal = Terminal(cli.environment, *words)
    assert terminal.end() == 0
    assert re.search(r"Previewing .*━.*\b\d+/\d+", CONTROL.sub("", terminal.shown))
    assert "\x1b[31m█" in terminal.shown
    streamed = Terminal(cli.environment, *words, "-o", "json")
    assert streamed.end() == 0
    assert "━" not in streamed.shown


def test_ctrl_c_ends_a_preview(cli: Cli) -> None:
    id = created(cli, schedule={"interval": "1s"})
    terminal = Terminal(cli.environment, "alert", "preview", id, "--since", "2h")
    terminal.until("Previewing")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "✘" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_a_preview_fits_the_terminal(cli: Cli) -> None:
    """IDs stay whole."""
    fail(cli, NAME, "nginx")
    id = created(cli, schedule={"interval": "1s"})
    words = ("alert", "preview", id, "--since", "1m")
    while NAME not in cli(*words).out:
        pass  # until a run was due since then
    for columns in (120, 80, 60):
        lines = shown(cli, columns, *words)
        assert NAME in lines
        assert sum(line.lstrip().startswith("·") and "█" in line for line in lines) == 1
        assert sum(line.startswith("nginx  ·") for line in lines) == 1
