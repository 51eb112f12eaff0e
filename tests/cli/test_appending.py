"""`tocsin event append`: by flags, and as lines through a pipe."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tocsin
from tocsin.cli.drafting import Unreadable, event_of_line

from examples.demo.server import Server
from tests.cli.conftest import Cli, Result
from tests.cli.terminal import Terminal


def stored(cli: Cli) -> list[Any]:
    return list(cli.client.list_events(oldest_first=True))


def lines(*events: dict[str, Any] | str) -> str:
    return "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in events)


def test_one_event_by_flags(cli: Cli, tmp_path: Path) -> None:
    details = tmp_path / "details.json"
    details.write_text('{"exitcode": 80, "password": "hunter2"}')
    found = cli(
        "event", "append", "a.b", "--id", "e", "--level", "Error", "-m", "it failed", "--details", f"@{details}",
        "--label", "team=red", "--label", "x=y=z", "--resource", "nginx", "--resource-type", "tag", "--user", "u",
        "--service", "s", "--host", "h", "--base-url", "http://s", "--timestamp", "2026-08-24T12:00:00Z",
        "--subtype", "sub", "--category", "c",
    )  # fmt: skip
    assert (found.code, found.out) == (0, "e\n")
    assert found.err.splitlines() == ["✔ Appended event", "redacted: details.password"]
    (event,) = stored(cli)
    assert (event.type, event.subtype, event.category) == ("a.b", "sub", "c")
    assert (event.level, event.message) == (2, "it failed")
    assert tocsin.to_python(event.details) == {"exitcode": 80, "password": "****"}
    assert dict(event.labels) == {"team": "red", "x": "y=z"}
    assert (event.resource.id, event.resource.type, event.resource.user_id) == ("nginx", "image_tag", "u")
    assert (event.source.service, event.source.host, event.source.base_url) == ("s", "h", "http://s")


def test_the_formats_of_an_appended_event(cli: Cli) -> None:
    assert json.loads(cli("event", "append", "a.b", "-o", "json").out)["type"] == "a.b"
    assert json.loads(cli("event", "append", "a.b", "-o", "json-raw").out)["event"]["type"] == "a.b"
    cli("event", "append", "a.b", "--details", "a plain sentence")
    assert tocsin.to_python(stored(cli)[-1].details) == "a plain sentence"


def test_an_append_is_safe_to_repeat(cli: Cli) -> None:
    for flags in (["--id", "e"], ["--request-id", "r"]):
        first, second = (cli("event", "append", "a.b", *flags).out for _ in range(2))
        assert first == second
    assert len(stored(cli)) == 2
    refused = cli("event", "append", "other", "--id", "e")
    assert (refused.code, "ID_REUSED" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--level", "warn"], 'event: level is one of "info", "error"'),
        (["--details", "{"], "--details: no JSON"),
        (["--details", "[" * 100_000], "--details: nested too deeply"),
        (["--details", "@/nowhere"], "--details: /nowhere cannot be read"),
        (["--label", "x"], "--label: 'x' is no pair"),
        (["--details", json.dumps("x" * 300_000)], "at most 262144 are allowed"),
    ],
)
def test_what_is_no_event_is_refused(cli: Cli, flags: list[str], said: str) -> None:
    found = cli("event", "append", "a.b", *flags)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert stored(cli) == []


def test_lines_are_stored_and_the_bad_ones_told(cli: Cli) -> None:
    """XC12: by line number and field; the others are stored."""
    given = lines(
        {"type": "a.b", "level": "LEVEL_ERROR"},
        "",
        {"type": "Not A Type"},
        "no json",
        {"type": "a.b", "frob": 1},
        {"level": "error"},
        {"type": "a.b", "details": {"token": "abc"}, "timestamp": "2026-08-24T12:00:00Z"},
    )
    found = cli.command("event", "append", "-", stdin=given)
    assert (found.code, found.out) == (1, "Appended 2 events, 4 refused\n")
    said = sorted(found.err.splitlines())
    assert [line.partition(":")[2].split(":")[0].strip() for line in said] == ["line 3", "line 4", "line 5", "line 6"]
    assert "INVALID_FIELD: type: 'Not A Type'" in said[0]
    assert "an event has no frob" in said[2]
    assert len(stored(cli)) == 2
    assert cli.command("event", "append", "-", "-o", "id", stdin="").out == ""


def test_what_was_listed_can_be_appended_elsewhere(cli: Cli) -> None:
    cli.client.append_many([tocsin.draft("a.b", details={"n": n}, labels={"n": str(n)}) for n in range(5)])
    listed = cli("event", "tail", "--beginning", "--no-follow", "-o", "json").out
    there = ["--account", f"{cli.account}-copy"]
    first = cli.command("event", "append", "-", "-o", "json", *there, stdin=listed)
    again = cli.command("event", "append", "-", "-o", "json", *there, stdin=listed)
    assert (first.code, len(first.lines)) == (0, 5)
    assert again.lines == first.lines
    with tocsin.connect(cli.address, account=there[1]) as other:
        assert [e.id for e in other.list_events()] == [e.id for e in cli.client.list_events()]


def test_lines_without_ids_are_safe_to_repeat_with_a_prefix(cli: Cli) -> None:
    given = lines(*({"type": "a.b", "details": n} for n in range(3)))
    for _ in range(2):
        assert cli.command("event", "append", "-", "--id-prefix", "run", "-o", "id", stdin=given).lines == [
            "run-1", "run-2", "run-3",
        ]  # fmt: skip
    assert len(stored(cli)) == 3
    assert cli("event", "append", "-", "--level", "error").code == 2


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[Server, Cli]]:
    server = Server(tmp_path)
    server.start()
    found = Cli(server.address, "admin", capsys)
    yield server, found
    found.client.close()
    server.stop()


def test_lines_survive_a_kill_of_the_server(own: tuple[Server, Cli]) -> None:
    """XA1, XA2: what was acknowledged is there, once."""
    server, cli = own
    process = cli.start("event", "append", "-", "-o", "json")
    assert process.stdin is not None
    assert process.stdout is not None
    overdue = threading.Timer(60, process.kill)
    overdue.start()
    process.stdin.write(lines(*({"type": "a.b", "details": n} for n in range(500))))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["line"] == 1
    server.kill()
    process.stdin.write(lines(*({"type": "a.b", "details": n} for n in range(500, 1000))))
    process.stdin.flush()
    server.start()
    process.stdin.close()
    assert [json.loads(line)["line"] for line in process.stdout] == list(range(2, 1001))
    assert process.wait(60) == 0
    overdue.cancel()
    assert sorted(tocsin.to_python(event.details) for event in stored(cli)) == list(range(1000))


def test_a_terminal_shows_how_far_it_is(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "events.jsonl"
    source.write_text(lines(*({"type": "a.b"} for _ in range(700)), {"type": "X"}))
    with source.open() as given:
        terminal = Terminal(cli.environment, "event", "append", "-", columns=110, stdin=given.fileno())
        assert terminal.end() == 1
    assert "700 events" in terminal.shown
    assert "1 refused" in terminal.shown
    assert "/s" in terminal.shown
    assert "line 701: INVALID_FIELD: type" in terminal.shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\xff", "it is not UTF-8"),
        (b"[]", "it is not a JSON object"),
        (b'{"type": 1}', "type: is a string"),
        (b'{"type": "a", "details": NaN}', "NaN is no number of JSON"),
        (b'{"type": "a", "details": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"type": "a", "timestamp": "noon"}', "timestamp: 'noon' is no ISO 8601 time"),
        (b'{"type": "a", "timestamp": "2016-12-31T23:59:60Z"}', "timestamp: '2016-12-31T23:59:60Z' is a leap second"),
        (b'{"type": "a", "labels": {"a": 1}}', "labels"),
        (b'{"type": "a", "resource": {"frob": "x"}}', "resource has no 'frob'"),
    ],
)
def test_a_line_that_is_no_event(line: bytes, said: str) -> None:
    """XB21: a leap second too, of which it is said that it is one."""
    with pytest.raises(Unreadable, match=said):
        event_of_line(line)


def test_results_are_exact(cli: Cli) -> None:
    """A refusal of the caller is no refusal of a line."""
    found: Result = cli.command("--address", "127.0.0.1:1", "--timeout", "0.3", "event", "append", "-", stdin="{}\n")
    assert (found.code, found.out) == (4, "")
