"""What only a terminal shows: the question, the width, colours and the spinner."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime

import pytest
import tocsin

from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal, shown

QUESTION = "Are you sure you want to delete all events (2)? (y/N) "
SPINNER = re.compile("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏](\x1b\\[0m)? (Listing|Deleting|Fetching) event")
TYPE = "system.image_analysis.registry_lookup_failed"
UUID = re.compile("[0-9a-f]{32}")
COLOUR = re.compile("\x1b\\[[0-9;]*3[0-9]m")


@pytest.fixture
def two(cli: Cli) -> None:
    cli.client.append_many([tocsin.draft("a.b", id=f"e{n}", level="error") for n in range(2)])


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("flags", [[], ["--all"]])
@pytest.mark.parametrize("answer", ["\n", "n\n", "x\n"])
def test_all_events_are_deleted_only_after_a_yes(cli: Cli, flags: list[str], answer: str) -> None:
    """B30, C13: the default is No."""
    terminal = Terminal(cli.environment, "event", "delete", *flags)
    terminal.until(QUESTION)
    terminal.type(answer)
    assert terminal.end() == 1
    assert "Nothing was deleted" in terminal.shown
    assert len(list(cli.client.list_events())) == 2


@pytest.mark.usefixtures("two")
def test_a_yes_deletes_all_events(cli: Cli) -> None:
    """B30, B33, C13, B11."""
    terminal = Terminal(cli.environment, "event", "delete", "--all")
    terminal.until(QUESTION)
    terminal.type("y\n")
    assert terminal.end() == 0
    assert SPINNER.search(terminal.shown)
    for text in ("e0", "e1", "Deleted 2 events", "✔"):
        assert text in terminal.shown
    assert list(cli.client.list_events()) == []


@pytest.fixture
def stored(cli: Cli) -> list[str]:
    """Append events with ids of the server, of a type, a service and a host as long as they are in life."""
    source = {"service": "catalog-service-eu", "host": "quickstart-worker-0123"}
    events = [tocsin.draft(TYPE, source=source, level="error", message="x" * 90) for _ in range(3)]
    return [found.id for found in cli.client.append_many(events)]


@pytest.mark.parametrize("columns", [300, 120, 92, 80, 70, 60, 36])
def test_a_list_fits_the_terminal(cli: Cli, stored: list[str], columns: int) -> None:
    """B08, C02: the wide columns where they fit, the short ones where they do not, with the ID whole and last."""
    lines = shown(cli, columns, "event", "list")
    assert ("EVENT TYPE" in lines[1]) is (columns == 300)
    rows = [line for line in lines if "rror" in line.lower()]
    assert len(rows) == 3
    for id in stored:
        (row,) = [line for line in lines if id in line]
        assert columns == 300 or row.endswith(id)
    if columns >= 60:
        assert all("system.image_an" in row for row in rows)
        assert all("2026-" in row for row in rows)


def test_later_pages_fit_the_terminal_too(cli: Cli) -> None:
    """B21: a longer ID behind the first thousand events changes the form, and is not cut."""
    cli.client.append("a.b", id="x" * 64, timestamp=datetime(2020, 1, 1, tzinfo=UTC))
    cli.client.append_many([tocsin.draft("a.b", id=f"e{n}") for n in range(1000)])
    for columns in (80, 140):
        lines = shown(cli, columns, "event", "list", "--all")
        assert any("x" * 64 in line for line in lines)
    assert all("…" not in line for line in cli("event", "list", "--all", "--compact").lines)


@pytest.mark.parametrize("columns", [200, 120, 80, 60])
def test_the_tables_of_consumers_fit_the_terminal(cli: Cli, stored: list[str], columns: int) -> None:
    """Names and IDs stay whole; filters, types and reasons are cut."""
    made = ("consumer", "create", "mails-of-the-billing", "--beginning", "--event-type", "system.", "--level", "error")
    assert cli(*made, "--host", "quickstart-worker-0123").code == 0
    reason = ("--settle", "park", "--reason", "the address of the receiver is not known to the directory")
    assert cli("consumer", "consume", "mails-of-the-billing", "-n", "3", *reason).code == 0
    consumers = shown(cli, columns, "consumer", "list")
    assert any(line.startswith("mails-of-the-billing") for line in consumers)
    assert any("{" in line for line in consumers)
    parked = shown(cli, columns, "consumer", "parked", "mails-of-the-billing")
    assert [line.split()[0] for line in parked if UUID.match(line)] == stored
    assert sum("the address of" in line for line in parked) == 3


@pytest.mark.parametrize("columns", [120, 60, 30])
def test_a_summary_fits_the_terminal(cli: Cli, stored: list[str], columns: int) -> None:
    lines = shown(cli, columns, "event", "summary", "--by", "type", "--bucket-width", "1h")
    assert lines[-1] == "3 events"


def test_nothing_is_cut_where_there_is_no_terminal(cli: Cli, stored: list[str]) -> None:
    for flags in ([], ["--compact"]):
        rows = [line for line in cli("event", "list", *flags).lines if "rror" in line.lower()]
        assert len(rows) == 3
        assert all(TYPE in row and "quickstart-worker-0123" in row for row in rows)


def test_a_question_names_what_only_variables_choose(cli: Cli) -> None:
    """C13: asked like everything else that nobody named."""
    cli.client.append_many([tocsin.draft("a.b"), tocsin.draft("a.b", level="error")])
    terminal = Terminal({**cli.environment, "TOCSIN_EVENT_LEVEL": "error"}, "event", "delete", columns=200)
    terminal.until('the events of {"levels": ["error"]} (variables TOCSIN_EVENT_... are set) (1)? (y/N) ')
    terminal.type("\n")
    assert terminal.end() == 1
    assert len(list(cli.client.list_events())) == 2


@pytest.mark.usefixtures("two")
def test_a_terminal_gets_a_spinner_and_colours(cli: Cli) -> None:
    """B11: neither where the output goes elsewhere, and no colours with NO_COLOR."""
    terminal = Terminal(cli.environment, "event", "list")
    assert terminal.end() == 0
    assert SPINNER.search(terminal.shown)
    assert COLOUR.search(terminal.shown)
    assert "List events" in terminal.shown
    plain = Terminal({**cli.environment, "NO_COLOR": "1"}, "event", "list")
    assert plain.end() == 0
    assert "✔ List events" in plain.shown
    assert not COLOUR.search(plain.shown)
    piped = cli.command("event", "list")
    assert (piped.code, piped.err) == (0, "✔ List events\n")
    assert "\x1b" not in piped.out


def test_ctrl_c_ends_with_130(cli: Cli) -> None:
    terminal = Terminal(cli.environment, "event", "delete", "--all")
    terminal.until("(y/N) ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
