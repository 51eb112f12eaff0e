"""`tocsin event tail`: the log as it grows, over restarts of the server."""

from __future__ import annotations

import json
import signal
import threading

import tocsin
from google.protobuf import json_format
from tocsin.v1 import event_log_pb2 as pb

from examples.demo.server import Server
from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal


def test_what_stands_is_printed_from_where_it_is_told(cli: Cli) -> None:
    stored = cli.client.append_many([tocsin.draft("a.b", id=f"e{n}", level="error") for n in range(4)])
    cli.client.append("c.d", id="other")

    def tail(*flags: str) -> list[str]:
        found = cli("event", "tail", "--no-follow", "-o", "id", *flags)
        assert found.code == 0, found.err
        return found.lines

    assert tail("--beginning") == ["e0", "e1", "e2", "e3", "other"]
    assert tail("--beginning", "--level", "error", "-n", "2") == ["e0", "e1"]
    assert tail("--after", str(stored[2].position), "--event-type", "a.") == ["e3"]
    assert tail("--after", f"{stored[3].position}@{stored[3].log_id}") == ["other"]
    assert tail("--since", "1h") == ["e0", "e1", "e2", "e3", "other"]
    assert tail("--new") == tail() == []
    lost = cli("event", "tail", "--after", f"1@{'0' * 32}")
    assert (lost.code, "LOG_CHANGED" in lost.err) == (1, True)
    assert cli("event", "tail", "--after", "1", "--beginning").code == 2


def test_it_says_where_to_go_on(cli: Cli) -> None:
    for _ in range(3):
        cli.client.append("a.b")
    first = cli("event", "tail", "--beginning", "-n", "1", "-o", "json")
    (event,) = [json.loads(line) for line in first.lines]
    (note,) = first.err.splitlines()
    assert note.startswith(f"Go on with --after {event['position']}@")
    ahead = cli("event", "tail", "--after", "99999")
    assert (ahead.code, "POSITION_AHEAD" in ahead.err) == (1, True)
    assert "Go on with" not in ahead.err
    rest = cli("event", "tail", "--no-follow", "-o", "json", *note.split()[-2:])
    assert [json.loads(line)["position"] > event["position"] for line in rest.lines] == [True, True]


def test_a_raw_line_is_a_response(cli: Cli) -> None:
    """B22."""
    stored = cli.client.append("a.b", message="x")
    (line,) = cli("event", "tail", "--beginning", "-n", "1", "-o", "json-raw").lines
    response = json_format.Parse(line, pb.SubscribeResponse())
    assert (list(response.batch.events), response.batch.position) == ([stored.event], stored.position)


def test_a_line_is_an_event_and_fits_the_terminal(cli: Cli) -> None:
    """XC11, XF15."""
    cli.client.append("a.b", id="e", level="error", message="x" * 300 + "\n\x1b[2J", source="analyzer")
    (line,) = cli("event", "tail", "--beginning", "-n", "1").lines
    assert line.split("  ")[1:4] == ["ERROR", "a.b", "analyzer"]
    assert line.endswith("\\n\\x1b[2J")
    terminal = Terminal(cli.environment, "-q", "event", "tail", "--beginning", "-n", "1", columns=60)
    assert terminal.end() == 0
    assert "…" in terminal.shown
    assert len(terminal.shown.replace("\x1b[31m", "").replace("\x1b[0m", "").rstrip()) == 60


def test_no_gap_and_no_duplicate_over_kills_of_the_server(own: tuple[Server, Cli]) -> None:
    """It says on standard error that the server was lost and found again."""
    server, cli = own
    cli.client.append("a.b", details={"n": 0})
    process = cli.start("event", "tail", "--beginning", "-o", "json")
    assert process.stdout is not None
    assert process.stderr is not None
    printed: list[int] = []

    def read(count: int) -> None:
        assert process.stdout is not None
        while len(printed) < count:
            printed.append(json.loads(process.stdout.readline())["details"]["n"])

    overdue = threading.Timer(60, process.kill)
    overdue.start()
    read(1)
    for life in range(2):
        server.kill()
        assert process.stderr.readline().startswith("✘ Lost the server (")
        server.start()
        for n in range(10):
            cli.client.append("a.b", details={"n": life * 10 + n + 1})
        read(life * 10 + 11)
        assert process.stderr.readline() == "✔ Found the server again, going on where it was\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    overdue.cancel()
    assert printed == list(range(21))
    assert process.returncode == 130
    assert said.startswith("Go on with --after ")
    assert "Traceback" not in said


def test_a_server_that_comes_late_is_waited_for(own: tuple[Server, Cli]) -> None:
    """It says at once that it waits; a wrong address ends it, with the address and what to do."""
    server, cli = own
    stored = cli.client.append("a.b")
    server.kill()
    words = ("event", "tail", "-n", "1", "--beginning", "-o", "id", "--timeout")
    lost = cli.command(*words, "1")
    assert (lost.code, lost.out) == (4, "")
    waits, said = lost.err.splitlines()
    assert waits == f"No server answers at {server.address} yet; waiting for it, at most 1 s"
    begin = f"tocsin: no server answers at {server.address} (connection refused); is the server running?"
    assert said.startswith(begin)
    patient = cli.start(*words, "60")
    assert patient.stderr is not None
    assert patient.stderr.readline().startswith(f"No server answers at {server.address} yet")
    server.start()
    out, _ = patient.communicate(timeout=60)
    assert (patient.returncode, out) == (0, f"{stored.id}\n")


def test_who_stops_reading_ends_it_quietly(cli: Cli) -> None:
    process = cli.start("-q", "event", "tail", "--new")
    assert process.stdout is not None
    process.stdout.close()
    while process.poll() is None:
        cli.client.append("a.b")
    assert process.stderr is not None
    assert (process.returncode, process.stderr.read()) == (0, "")
