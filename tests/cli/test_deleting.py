"""`tocsin event delete`: one, some, or all of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import tocsin

from tests.cli.conftest import Cli

NOON = datetime(2026, 8, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def three(cli: Cli) -> list[str]:
    """Append three events, an hour apart."""
    hours = [NOON + n * timedelta(hours=1) for n in range(3)]
    cli.client.append_many([tocsin.draft("a.b", id=f"e{at.hour}", timestamp=at) for at in hours])
    return ["e12", "e13", "e14"]


def left(cli: Cli) -> list[str]:
    return [event.id for event in cli.client.list_events(oldest_first=True)]


def test_one_event_is_deleted_by_its_id(cli: Cli, three: list[str]) -> None:
    """B32, B33, C15, B11."""
    found = cli("event", "delete", "e13")
    assert (found.code, found.out, found.err) == (0, "e13\n", "✔ Deleted event\n")
    assert left(cli) == ["e12", "e14"]
    again = cli("event", "delete", "e13")
    assert again.code == 3
    assert again.err.splitlines()[0] == "✘ Deleted event"
    assert again.err.splitlines()[1].startswith("tocsin: NOT_FOUND: ")


def test_a_window_is_deleted_at_once(cli: Cli, three: list[str]) -> None:
    """B31, B33, C14: nothing is asked, the ids and the count are printed."""
    found = cli("event", "delete", "--before", "2026-08-24T13:00:00Z")
    assert (found.code, found.out, found.err) == (0, "e12\nDeleted 1 event\n", "✔ Deleted event\n")
    found = cli("event", "delete", "--since", "2026-08-24T13:00:00Z")
    assert sorted(found.lines) == ["Deleted 2 events", "e13", "e14"]
    assert left(cli) == []


def test_the_other_filters_delete_too(cli: Cli, three: list[str]) -> None:
    """B04, B31."""
    stored = cli.client.append("c.d", level="error").id
    assert cli("event", "delete", "--level", "error", "-o", "id").out == f"{stored}\n"
    found = cli("event", "delete", "--event-type", "a.", "--output", "json")
    answer = json.loads(found.out)
    assert (sorted(answer["ids"]), answer["deleted_count"]) == (three, 3)
    assert cli("event", "delete", "--level", "error").out == "Deleted 0 events\n"


@pytest.mark.parametrize("flags", [[], ["--all"]])
def test_everything_is_not_deleted_without_a_yes(cli: Cli, three: list[str], flags: list[str]) -> None:
    """B30, C13: without a terminal only --yes does it."""
    found = cli("event", "delete", *flags, stdin="y\n")
    assert (found.code, found.out) == (2, "")
    assert "nothing was deleted" in found.err
    assert left(cli) == three
    found = cli("event", "delete", *flags, "--yes")
    assert sorted(found.lines) == ["Deleted 3 events", *three]
    assert left(cli) == []


def test_what_contradicts_itself_deletes_nothing(cli: Cli, three: list[str]) -> None:
    for words in (["e12", "--all"], ["e12", "--level", "info"], ["--all", "--yes", "--level", "info"], ["e12", "e13"]):
        assert cli("event", "delete", *words).code == 2
    assert left(cli) == three
