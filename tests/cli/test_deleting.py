"""`tocsin event delete`: one, some, or all of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import tocsin
from google.protobuf import json_format
from tocsin.v1 import event_log_pb2 as pb

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
    """B04, B11, B32, B33, C14, C15: the ID and the count are printed."""
    found = cli("event", "delete", "e13")
    assert (found.code, found.out, found.err) == (0, "e13\nDeleted 1 event\n", "✔ Deleted event\n")
    assert left(cli) == ["e12", "e14"]
    again = cli("event", "delete", "e13")
    assert (again.code, again.out) == (3, "")
    assert again.err.splitlines()[0] == "✘ Deleting event"
    assert again.err.splitlines()[1].startswith("tocsin: NOT_FOUND: ")


def test_a_window_is_deleted_at_once(cli: Cli, three: list[str]) -> None:
    """B04, B31, B33, C14: nothing is asked, the ids and the count are printed."""
    found = cli("event", "delete", "--before", "2026-08-24T13:00:00Z")
    assert (found.code, found.out, found.err) == (0, "e12\nDeleted 1 event\n", "✔ Deleted events\n")
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


def test_a_deletion_has_every_format(cli: Cli, three: list[str]) -> None:
    """B22: the responses, one a line."""
    one = json_format.Parse(cli("event", "delete", "e12", "-o", "json-raw").out, pb.DeleteEventResponse())
    assert one.id == "e12"
    assert json.loads(cli("event", "delete", "e13", "-o", "json").out) == {"ids": ["e13"], "deleted_count": 1}
    lines = cli("event", "delete", "--event-type", "a.b", "-o", "json-raw").lines
    steps = [json_format.Parse(line, pb.DeleteEventsResponse()) for line in lines]
    assert [id for step in steps for id in step.progress.ids] == ["e14"]


@pytest.mark.parametrize("format", ["text", "json", "json-raw", "id"])
def test_a_deletion_that_fails_counts_nothing(cli: Cli, three: list[str], format: str) -> None:
    found = cli("event", "delete", "--where", "event.frob", "-o", format)
    assert (found.code, found.out) == (2, "")
    assert found.err.splitlines()[0] == "✘ Deleting events"
    assert left(cli) == three


def test_what_only_variables_choose_is_asked_about(cli: Cli, three: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """C13: a variable that was set for lists deletes nothing by itself; a filter given here acts at once."""
    monkeypatch.setenv("TOCSIN_EVENT_LEVEL", "info")
    found = cli("event", "delete", stdin="y\n")
    assert (found.code, found.out) == (2, "")
    assert '{"levels": ["info"]}' in found.err
    assert left(cli) == three
    assert cli("event", "delete", "--before", "2026-08-24T13:00:00Z").out == "e12\nDeleted 1 event\n"
    assert cli("event", "delete", "--all", "--yes").code == 2
    assert cli("event", "delete", "e13").code == 0
    assert cli("event", "delete", "--yes").out == "e14\nDeleted 1 event\n"


def test_a_filter_beats_the_variable_of_all(cli: Cli, three: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_EVENT_ALL", "1")
    assert cli("event", "delete", "--before", "2026-08-24T13:00:00Z").out == "e12\nDeleted 1 event\n"
    assert cli("event", "delete").code == 2
    assert left(cli) == three[1:]


def test_every_account_is_asked_about_too(cli: Cli, three: list[str]) -> None:
    """C13: to name a scope chooses nothing."""
    found = cli("event", "delete", "--all-accounts")
    assert (found.code, found.out) == (2, "")
    assert "nothing was deleted" in found.err
    assert left(cli) == three


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
