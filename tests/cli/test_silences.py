"""`tocsin silence`: from the creation to the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import tocsin
import yaml
from google.protobuf import json_format
from tocsin.v1 import notifications_pb2 as pb

from tests.cli.conftest import Cli
from tests.cli.terminal import shown


def created(cli: Cli, *words: str) -> str:
    made = cli("silence", "create", "--comment", "we know", "-o", "id", *words)
    assert made.code == 0, made.err
    return made.out.strip()


def test_a_silence_from_its_creation_to_its_end(cli: Cli) -> None:
    id = created(cli, "--event-type", "user.image.", "--level", "error", "--for", "2h", "--author", "ann")
    (row,) = cli("silence", "list").lines[1:]
    assert row.split()[:2] == [id, "ACTIVE"]
    assert "we know" in row
    found = yaml.safe_load(cli("silence", "get", id).out)
    assert (found["author"], found["filter"]["types"]) == ("ann", ["user.image.", "user.image.*"])
    silence = cli.client.get_silence(id)
    assert abs(silence.end_time.seconds - silence.start_time.seconds - 7200) <= 1
    changed = cli("silence", "update", id, "--for", "3h", "--comment", "still", "-o", "json")
    assert json.loads(changed.out)["comment"] == "still"
    later = cli.client.get_silence(id)
    assert (later.end_time.seconds - later.start_time.seconds, later.author) == (10_800, "ann")
    assert json.loads(cli("silence", "update", id, "--service", "x", "-o", "json").out)["filter"] == {"services": ["x"]}
    assert cli("silence", "list", "--state", "active", "-o", "id").out == f"{id}\n"
    assert cli("silence", "list", "--state", "pending", "-o", "id").out == ""
    assert cli("silence", "end", id).out == f"{id}\n"
    assert cli("silence", "get", id).code == 3


def test_what_it_silences_is_not_told(cli: Cli) -> None:
    hook = tocsin.webhook("ops", "http://127.0.0.1:1/", tocsin.new_webhook_secret(), [tocsin.selector("a.*")])
    cli.client.create_configuration(hook)
    created(cli, "--resource", "disk-7", "--for", "1h")
    cli.client.append("a.b", id="quiet", resource={"type": "disk", "id": "disk-7"})
    assert cli.client.wait_for_delivery(event_id="quiet").state == pb.DELIVERY_STATE_SILENCED


def test_a_silence_that_is_to_come(cli: Cli) -> None:
    """--start and --end take stretches from now on, or times."""
    id = created(cli, "--event-type", "a.b", "--start", "1h", "--end", "2h")
    found = cli.client.get_silence(id)
    assert found.state == pb.SILENCE_STATE_PENDING
    now = datetime.now(UTC).timestamp()
    assert abs(found.start_time.seconds - now - 3600) < 120
    assert abs(found.end_time.seconds - found.start_time.seconds - 3600) <= 1
    moment = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    assert cli("silence", "update", id, "--start", "2h", "--end", moment.isoformat()).code == 0
    assert cli.client.get_silence(id).end_time.seconds == int(moment.timestamp())


def test_a_file_makes_and_changes_a_silence(cli: Cli) -> None:
    text = "filter: {types: [a.b], levels: [error]}\ncomment: by file\n"
    made = json.loads(cli("silence", "create", "-f", "-", "--for", "1h", "-o", "json", stdin=text).out)
    assert (made["comment"], made["filter"]) == ("by file", {"types": ["a.b"], "levels": ["error"]})
    changed = cli("silence", "update", made["id"], "-f", "-", "-o", "json", stdin="comment: otherwise")
    assert json.loads(changed.out)["comment"] == "otherwise"
    assert json.loads(changed.out)["filter"] == made["filter"]
    raw = json_format.Parse(cli("silence", "list", "-o", "json-raw").out, pb.ListSilencesResponse())
    assert [silence.id for silence in raw.silences] == [made["id"]]
    assert cli("silence", "update", made["id"], "-f", "-", stdin="id: x").code == 2


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_leap_second_in_a_file_is_refused(cli: Cli, quote: str) -> None:
    """XB21: as a time of YAML, and as text, which is read as the contract's JSON is."""
    text = f"filter: {{types: [a.b]}}\ncomment: x\nend_time: {quote}2016-12-31T23:59:60Z{quote}\n"
    found = cli("silence", "create", "-f", "-", stdin=text)
    assert (found.code, found.out) == (2, "")
    assert "second must be in 0..59" in found.err
    assert "end_time" in found.err or not quote


@pytest.mark.parametrize("columns", [200, 100, 80, 60])
def test_a_table_fits_the_terminal(cli: Cli, columns: int) -> None:
    id = created(cli, "--event-type", "user.image.", "--for", "2h", "--author", "ann@example.com")
    lines = shown(cli, columns, "silence", "list")
    assert sum(id in line for line in lines) == 1
    assert any("ACTIVE" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "--for", "2h", "--comment", "x"], "filter: give at least one criterion"),
        (["create", "--event-type", "x", "--for", "2h"], "--comment: is missing"),
        (["create", "--event-type", "x", "--comment", "x"], "--for: is missing"),
        (["create", "--event-type", "x", "--for", "soon"], "--for: 'soon' is no stretch of time"),
        (["create", "--event-type", "x", "--for", "1h", "--end", "1h"], "--for: does not go with --end"),
        (["create", "--event-type", "x", "--end", "later"], "--end: 'later' is no time"),
        (["create", "--event-type", "x", "--end", "999999999w"], "--end: "),
        (["update", "x"], "update: give what is to change"),
        (["list", "--state", "over"], "--state: 'over' is none of pending, active, ended"),
    ],
)
def test_a_misuse_names_the_flag(cli: Cli, words: list[str], said: str) -> None:
    found = cli("silence", *words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
