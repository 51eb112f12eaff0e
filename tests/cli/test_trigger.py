"""`tocsin trigger`: sample events as the catalogue describes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tocsin
from google.protobuf import json_format
from jsonschema import Draft202012Validator
from tocsin.cli.sampling import instance
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1.notifications_pb2 import DELIVERY_STATE_DELIVERED

from tests.cli.answering import answering
from tests.cli.conftest import Cli
from tests.cli.terminal import shown


def test_without_a_type_the_types_are_listed(cli: Cli) -> None:
    """Those of the system itself are left out."""
    ids = cli("trigger", "-o", "id").lines
    assert {"user.image.analysis_failed", "user.checks.policy_eval", "feed_sync_start"} <= set(ids)
    assert not [id for id in ids if id.startswith("system.")]
    assert len(ids) == len(set(ids))
    rows = cli("trigger").lines
    assert rows[0].split() == ["TYPE", "SUBTYPE", "LEVEL", "RESOURCE", "TYPE", "DESCRIPTION"]
    (row,) = [line for line in rows if line.startswith("user.image.analysis_failed ")]
    assert row.split()[1:3] == ["ERROR", "image_tag"]
    plain = {entry["type"]: entry for entry in json.loads(cli("trigger", "-o", "json").out)}
    assert plain["user.image.analysis_failed"]["sample"]["details"]["exitcode"] == 1
    assert list(cli.client.list_events()) == []


def test_a_sample_is_as_the_catalogue_has_it(cli: Cli) -> None:
    made = cli("trigger", "user.image.analysis_failed")
    assert made.err == "✔ Appended 1 sample event\n"
    (event,) = cli.client.list_events()
    assert made.lines == [f"{event.id}  user.image.analysis_failed"]
    assert event.level == pb.LEVEL_ERROR
    assert (event.resource.type, event.resource.id) == ("image_tag", "docker.io/library/nginx:latest")
    assert tocsin.to_python(event.details)["msg"] == "no space left on device"
    assert (event.source.service, dict(event.labels)) == ("sample", {"sample": "true"})
    assert cli("event", "delete", "--label", "sample=true").lines[-1] == "Deleted 1 event"


def test_every_type_and_subtype_can_be_triggered(cli: Cli) -> None:
    found = json.loads(cli("trigger", "*", "-o", "json").out)
    assert {event["type"] for event in found} == set(cli("trigger", "-o", "id").lines)
    assert len(found) == len(cli("trigger").lines) - 1
    raw = json_format.Parse(cli("trigger", "feed*", "-n", "3", "-o", "json-raw").out, pb.AppendEventsResponse())
    assert len(raw.results) == 6
    one = json.loads(cli("trigger", "*", "--subtype", "posture-scan-completed", "-o", "json").out)
    assert [event["subtype"] for event in one] == ["posture-scan-completed"]


def test_flags_win_over_the_catalogue(cli: Cli) -> None:
    words = ("--level", "error", "--service", "scanner", "--resource", "docker.io/me:1")
    (id,) = cli("trigger", "user.checks.policy_eval", "-o", "id", *words).lines
    event = cli.client.get_event(id)
    assert (event.level, event.source.service, event.resource.id) == (pb.LEVEL_ERROR, "scanner", "docker.io/me:1")


def test_a_type_of_ones_own_is_made_of_its_schema(cli: Cli) -> None:
    schema = {
        "type": "object",
        "required": ["tag", "size", "state", "layers"],
        "properties": {
            "tag": {"type": "string", "minLength": 8},
            "size": {"type": "integer", "minimum": 7},
            "state": {"enum": ["new", "old"]},
            "layers": {"type": "array", "items": {"type": "number"}},
        },
    }
    cli.client.register_event_types([tocsin.event_type("shop.order", schema=schema, check="enforce")])
    (event,) = json.loads(cli("trigger", "shop.order", "-o", "json").out)
    assert event["details"] == {"tag": "samplexx", "size": 7, "state": "new", "layers": [1.5]}


@pytest.mark.parametrize(
    "schema",
    [
        {"const": 3},
        {"default": "x", "type": "string"},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
        {"type": ["boolean", "null"]},
        {"required": ["a"]},
        {"type": "array", "minItems": 2, "items": {"type": "integer"}},
        {"type": "string", "examples": ["2026-01-02"]},
        {},
    ],
)
def test_an_instance_meets_its_schema(schema: dict[str, Any]) -> None:
    Draft202012Validator(schema).validate(instance(schema))


def test_a_sample_reaches_who_is_told(cli: Cli) -> None:
    """B05: an event by the command line, at a webhook."""
    secret = tocsin.new_webhook_secret()
    with answering() as hook:
        wanted = tocsin.webhook("ops", hook.url, secret, [tocsin.selector("user.*", level="error")])
        cli.client.create_configuration(wanted)
        (id,) = cli("trigger", "user.image.analysis_failed", "-o", "id").lines
        _, headers, body = hook.posts.get(timeout=20)
        assert tocsin.verify_webhook(secret, headers, body)
        assert json.loads(body)["data"]["id"] == id
        assert cli.client.wait_for_delivery(event_id=id).state == DELIVERY_STATE_DELIVERED


@pytest.mark.parametrize("columns", [200, 80, 60])
def test_the_table_fits_the_terminal(cli: Cli, columns: int) -> None:
    lines = shown(cli, columns, "trigger")
    assert sum("user.checks.vulnerability_update" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "TYPE: the catalogue has no type 'nope'"),
        (["feed_sync_start", "--subtype", "x"], "TYPE: the catalogue has no subtype 'x' of 'feed_sync_start'"),
        (
            ["system.image_analysis"],
            "TYPE: 'system.image_analysis' is the system's own",
        ),
        (["feed_sync_start", "--level", "warn"], "--level: 'warn' is no level"),
        (["feed_sync_start", "-n", "0"], "--count: give 1 or more"),
    ],
)
def test_a_misuse_names_the_flag(cli: Cli, words: list[str], said: str) -> None:
    found = cli("trigger", *words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
