"""`tocsin event list` and `get`: what is asked for, and how it looks."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import tocsin
from google.protobuf import json_format
from tocsin.v1 import event_log_pb2 as pb

from tests.cli.conftest import Cli

NOON = datetime(2026, 8, 24, 12, 0, 0, 540010, UTC)
MINUTE = timedelta(minutes=1)
UUID = re.compile(r"[0-9a-f]{32}")


def lookup_failed(cli: Cli, **fields: Any) -> tocsin.Appended:
    """Append the event that the source shows."""
    given: Any = {
        "level": "error",
        "message": "Referenced image not found in registry",
        "resource": {"type": "image_reference", "id": "docker.io/aerospike:latest", "user_id": "admin"},
        "source": {"service": "catalog", "host": "quickstart", "base_url": "http://catalog:8228"},
        "details": "cannot fetch image digest/manifest from registry",
        "timestamp": NOON,
    }
    return cli.client.append("system.image_analysis.registry_lookup_failed", **{**given, **fields})


def ids(cli: Cli, *flags: str) -> list[str]:
    found = cli("event", "list", "-o", "id", *flags)
    assert found.code == 0, found.err
    return found.lines


def test_the_wide_columns_begin_with_the_uuid(cli: Cli) -> None:
    """B08, B09, B10, B24, C03: 32 hex digits, microseconds and Z, the level in lower case; a brief summary."""
    stored = lookup_failed(cli)
    found = cli("event", "list")
    top, titles, _, row, bottom = found.lines
    assert [title.strip() for title in titles.strip("│").split("│")] == [
        "UUID", "EVENT TYPE", "LEVEL", "RESOURCE ID", "RESOURCE TYPE", "SOURCE SERVICE", "SOURCE HOST", "TIMESTAMP",
    ]  # fmt: skip
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert UUID.fullmatch(cells[0])
    assert cells == [
        stored.id, "system.image_analysis.registry_lookup_failed", "error", "docker.io/aerospike:latest",
        "image_reference", "catalog", "quickstart", "2026-08-24T12:00:00.540010Z",
    ]  # fmt: skip
    assert (top[0], bottom[0], len({len(line) for line in found.lines})) == ("┌", "└", 1)
    assert "cannot fetch" not in found.out
    assert found.err == "✔ List events\n"


def test_the_short_columns_end_with_the_id(cli: Cli) -> None:
    """C02, C03: the level in upper case."""
    stored = lookup_failed(cli)
    titles, row = cli("event", "list", "--compact").lines
    assert titles.split() == ["Timestamp", "Level", "Service", "Host", "Event", "ID"]
    assert row.split() == [
        "2026-08-24T12:00:00.540010Z", "ERROR", "catalog", "quickstart",
        "system.image_analysis.registry_lookup_failed", stored.id,
    ]  # fmt: skip


def test_the_newest_occurrence_comes_first_and_a_hundred_of_them(cli: Cli) -> None:
    """C04, B12, B20, B21, C05: 100 by default, the n-th page, all."""
    drafts = [tocsin.draft("a.b", id=f"e{n}", timestamp=NOON + n * MINUTE) for n in range(250)]
    cli.client.append_many(drafts)
    newest_first = [f"e{n}" for n in reversed(range(250))]
    assert ids(cli) == newest_first[:100]
    assert ids(cli, "--page", "1") == newest_first[:100]
    assert ids(cli, "--page", "3") == newest_first[200:]
    assert ids(cli, "--page", "4") == []
    assert ids(cli, "--all") == newest_first
    assert "--page 2 or --all" in cli("event", "list").err
    assert "--all" not in cli("event", "list", "--page", "3").err
    assert len(cli("event", "list", "--all").lines) == 250 + 4
    assert cli("event", "list", "--page", "0").code == 2
    assert cli("event", "list", "--page", "2", "--all").code == 2


def test_filters_choose(cli: Cli) -> None:
    """B13-B19, C01, C03, C04, A52: types by prefix or exactly, levels in any case, aliases of resource types."""
    failed = lookup_failed(cli).id
    image = cli.client.append(
        "user.image.added", timestamp=NOON + MINUTE, resource={"type": "image_tag", "id": "nginx:latest"}
    ).id
    digest = cli.client.append(
        "user.imagery", timestamp=NOON + 2 * MINUTE, resource={"type": "image_digest", "id": "sha256:1"}
    ).id
    assert ids(cli, "--event-type", "user.image.") == [image]
    assert ids(cli, "--event-type", "user.imagery") == [digest]
    assert ids(cli, "--event-type", "user.image") == [digest, image]
    assert ids(cli, "--event-type", "system.image_analysis.registry_lookup_failed") == [failed]
    assert ids(cli, "--event-type", "*.image.*") == [image]
    for level in ("ERROR", "error", "Error"):
        assert ids(cli, "--level", level) == [failed]
    assert ids(cli, "--level", "info") == [digest, image]
    assert ids(cli, "--before", "2026-08-24T12:01:00.540010Z") == [failed]
    assert ids(cli, "--since", "2026-08-24T12:01:00.54001Z") == [digest, image]
    assert ids(cli, "--since", "2026-08-24T12:01", "--before", "2026-08-24T14:02:00+02:00") == [image]
    assert ids(cli, "--host", "quickstart") == ids(cli, "--service", "catalog") == [failed]
    assert ids(cli, "--resource-type", "tag") == ids(cli, "--resource-type", "image_tag") == [image]
    assert ids(cli, "--resource-type", "imageDigest", "--resource-type", "tag") == [digest, image]
    assert ids(cli, "nginx:latest") == [image]
    assert ids(cli, "docker.io/aerospike:latest") == [failed]
    assert ids(cli, "--where", 'event.message.contains("registry")') == [failed]
    assert ids(cli, "--since", "1h") == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOCSIN_EVENT_TYPE", "system."),
        ("TOCSIN_EVENT_LEVEL", "error"),
        ("TOCSIN_EVENT_BEFORE", "2026-08-24T12:00:01Z"),
        ("TOCSIN_EVENT_SINCE", "2026-08-24T11:59Z"),
        ("TOCSIN_EVENT_SOURCE_HOST_ID", "quickstart"),
        ("TOCSIN_EVENT_SOURCE_SERVICE_NAME", "catalog"),
        ("TOCSIN_EVENT_RESOURCE_TYPE", "image_reference"),
    ],
)
def test_each_filter_has_a_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """B13-B19, B23."""
    wanted = lookup_failed(cli).id
    cli.client.append("user.other", timestamp=NOON - timedelta(days=1 if variable == "TOCSIN_EVENT_SINCE" else -1))
    assert len(ids(cli)) == 2
    monkeypatch.setenv(variable, value)
    assert ids(cli) == [wanted]


def test_page_all_and_format_have_variables(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """B20-B23."""
    cli.client.append_many([tocsin.draft("a.b", id=f"e{n}", timestamp=NOON + n * MINUTE) for n in range(101)])
    monkeypatch.setenv("TOCSIN_FORMAT", "id")
    monkeypatch.setenv("TOCSIN_PAGE", "2")
    assert cli("event", "list").lines == ["e0"]
    monkeypatch.delenv("TOCSIN_PAGE")
    monkeypatch.setenv("TOCSIN_EVENT_ALL", "1")
    assert len(cli("event", "list").lines) == 101


def test_a_flag_beats_the_variable_of_another(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """B23: --all and --page do not go together, but what is typed wins over what is set."""
    cli.client.append_many([tocsin.draft("a.b", id=f"e{n}", timestamp=NOON + n * MINUTE) for n in range(101)])
    monkeypatch.setenv("TOCSIN_PAGE", "2")
    assert len(ids(cli, "--all")) == 101
    monkeypatch.setenv("TOCSIN_EVENT_ALL", "1")
    assert ids(cli, "--page", "2") == ["e0"]
    both = cli("event", "list")
    assert both.code == 2
    assert "TOCSIN_EVENT_ALL and TOCSIN_PAGE" in both.err


def test_an_empty_list_says_so(cli: Cli) -> None:
    found = cli("event", "list")
    assert (found.code, found.out, found.err) == (0, "", "✔ List events\nNo events.\n")
    assert cli("event", "list", "--page", "2").err.endswith("No events on page 2.\n")
    assert cli("consumer", "list").err.endswith("No consumers.\n")
    assert json.loads(cli("event", "list", "-o", "json").out) == []


def test_the_formats_of_a_list(cli: Cli) -> None:
    """B22: text, the resources, the response, ids."""
    first, second = lookup_failed(cli), lookup_failed(cli, timestamp=NOON + MINUTE, details={"n": 80, "x": None})
    assert ids(cli) == [second.id, first.id]
    resources = json.loads(cli("event", "list", "-o", "json").out)
    assert [found["id"] for found in resources] == [second.id, first.id]
    assert (resources[0]["level"], resources[0]["position"]) == ("error", second.position)
    assert cli("event", "list", "-o", "json").out == json.dumps(resources, indent=2) + "\n"
    assert '"n": 80,' in cli("event", "list", "--output", "json").out
    raw = json_format.Parse(cli("event", "list", "-o", "json-raw").out, pb.ListEventsResponse())
    assert raw == pb.ListEventsResponse(events=[event for event in (second.event, first.event) if event])
    assert json.loads(cli("event", "list", "--host", "nobody", "-o", "json").out) == []
    assert "UUID" in cli("event", "list", "-o", "text").out
    refused = cli("event", "list", "-o", "xml")
    assert (refused.code, refused.out) == (2, "")
    assert "--output: 'xml' is none of text, json, json-raw, id" in refused.err


def test_get_shows_the_full_record(cli: Cli) -> None:
    """B24, B25-B29, B11: every label; request id and category may be empty, details a plain sentence."""
    stored = lookup_failed(cli)
    assert stored.event is not None
    created = tocsin.to_datetime(stored.event.created_at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    found = cli("event", "get", stored.id)
    assert found.err == "✔ Fetched event\n"
    assert (
        found.out
        == f"""UUID: {stored.id}
Event:
  Event Type: system.image_analysis.registry_lookup_failed
  Level: error
  Message: Referenced image not found in registry
  Resource:
    Resource ID: docker.io/aerospike:latest
    Resource Type: image_reference
    User Id: admin
  Source:
    Source Service: catalog
    Base Url: http://catalog:8228
    Source Host: quickstart
    Request Id:
  Timestamp: 2026-08-24T12:00:00.540010Z
  Category:
  Details: cannot fetch image digest/manifest from registry
Created At: {created}
Position: {stored.position}
Account: {cli.account}
"""
    )


def test_get_shows_structured_details_as_yaml(cli: Cli) -> None:
    """C06, C07: nested, texts of several lines readable, nulls, 80 rather than 80.0."""
    error = {"cmd": "/bin/sh -c skopeo", "exitcode": 80, "stderr": "first line\nsecond line", "stdout": None}
    stored = lookup_failed(cli, details={"SkopeoError": error, "tags": ["a", 1.5]})
    assert (
        """
  Details:
    SkopeoError:
      cmd: /bin/sh -c skopeo
      exitcode: 80
      stderr: |-
        first line
        second line
      stdout: null
    tags:
    - a
    - 1.5
"""
        in cli("event", "get", stored.id).out
    )


def test_get_has_the_formats_too(cli: Cli) -> None:
    """B22, C09, C10."""
    stored = lookup_failed(cli)
    resource = json.loads(cli("event", "get", stored.id, "-o", "json").out)
    assert resource["resource"] == {"type": "image_reference", "id": "docker.io/aerospike:latest", "user_id": "admin"}
    assert resource["source"] == {"service": "catalog", "host": "quickstart", "base_url": "http://catalog:8228"}
    raw = json_format.Parse(cli("event", "get", stored.id, "-o", "json-raw").out, pb.GetEventResponse())
    assert raw.event == stored.event
    assert cli("event", "get", stored.id, "-o", "id").out == f"{stored.id}\n"


def test_what_an_event_holds_cannot_move_the_terminal(cli: Cli) -> None:
    """XC11, XF15: escapes, overrides of direction and newlines are shown, never sent."""
    evil = "\x1b[2J\u202egnp.exe\u2066 \x9b31m \x07 a\nb 👩‍🚀 é"
    stored = lookup_failed(
        cli, message=evil, details={"e\x1bvil": evil}, labels={"l": evil}, source={"service": evil, "host": evil}
    )
    for words in (
        ["list"],
        ["list", "--compact"],
        ["list", "-o", "json"],
        ["get", stored.id],
        ["list", "-o", "json-raw"],
    ):
        shown = cli("event", *words).out
        assert not set("\x1b\x07\x9b\u202e\u2066") & set(shown)
        assert "1b[2J" in shown
        assert "👩‍🚀 é" in shown
    assert json.loads(cli("event", "get", stored.id, "-o", "json").out)["message"] == evil


def test_the_ids_of_request_and_correlation_are_sent(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """D17: before or behind the command, or by variables."""
    cli("event", "append", "a.b", "--x-request-id", "r-1", "--x-correlation-id=c-1")
    monkeypatch.setenv("TOCSIN_X_REQUEST_ID", "r-2")
    monkeypatch.setenv("TOCSIN_X_CORRELATION_ID", "c-2")
    cli("event", "append", "a.b")
    found = [(event.source.request_id, event.correlation_id) for event in cli.client.list_events(oldest_first=True)]
    assert found == [("r-1", "c-1"), ("r-2", "c-2")]
