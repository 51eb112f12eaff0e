"""What only a terminal shows: the question, the width, colours and the spinner."""

from __future__ import annotations

import re
import signal

import pytest
import tocsin

from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal

QUESTION = "Are you sure you want to delete all events (2)? (y/N) "
SPINNER = re.compile("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏](\x1b\\[0m)? (Listing|Deleting|Fetching) event")
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


@pytest.mark.usefixtures("two")
def test_the_form_fits_the_terminal(cli: Cli) -> None:
    """B08, C02: the wide columns where they fit, the short ones where they do not, with the id whole."""
    wide = Terminal(cli.environment, "event", "list", columns=200)
    assert wide.end() == 0
    assert "EVENT TYPE" in wide.shown
    short = Terminal(cli.environment, "event", "list", columns=80)
    assert short.end() == 0
    assert "EVENT TYPE" not in short.shown
    plain = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", short.shown)
    rows = [line for line in plain.splitlines() if "ERROR" in line]
    assert len(rows) == 2
    assert all(len(row) <= 80 and re.search(r"e[01]$", row) for row in rows)


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
