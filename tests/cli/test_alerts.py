"""`tocsin alert`: alerts from their creation to their end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from tocsin.v1 import alerting_pb2 as pb

from examples.demo.server import Server
from tests.cli.alerting import FILE, created, receiver, text
from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal, shown
from tests.support.plugin_packages import install


def test_types_are_listed_and_shown(cli: Cli) -> None:
    """KA7."""
    found = cli("alert", "types")
    assert found.err == "✔ List alert types\n"
    (row,) = [line for line in found.lines if line.startswith(".event-threshold")]
    assert {"tocsin", "default", "recovered", "yes"} <= set(row.split())
    assert ".event-threshold" in cli("alert", "types", "-o", "id").lines
    one = yaml.safe_load(cli("alert", "types", ".event-threshold").out)
    assert (one["producer"], one["params_schema"]["type"]) == ("tocsin", "object")
    raw = json_format.Parse(cli("alert", "types", "-o", "json-raw").out, pb.ListAlertTypesResponse())
    assert {".event-threshold"} <= {type.id for type in raw.alert_types}
    assert "TYPE: 'x' is none of .event-" in cli("alert", "types", "x").err


def test_a_plug_in_that_cannot_be_used_is_named_to_the_admin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    install(installed, "broken-checks", "raise ImportError('no such library')")
    monkeypatch.setenv("PYTHONPATH", str(installed))
    server = Server(tmp_path)
    server.start()
    admin = Cli(server.address, "admin", capsys)
    try:
        said = admin("alert", "types").err
        assert "Plug-in one of broken-checks cannot be used: " in said
        assert "no such library" in said
    finally:
        admin.client.close()
        server.stop()


def test_an_alert_from_its_creation_to_its_end(cli: Cli) -> None:
    """KA1, KA2, KA4: what is created waits for its first run, and is not muted."""
    made = cli("alert", "create", "-f", "-", stdin=text())
    assert made.err == "✔ Created alert\n"
    alert = yaml.safe_load(made.out)
    assert (alert["name"], alert["enabled"], alert["params"]["threshold"]) == ("image analyses fail", True, 1)
    assert alert["execution_status"] == {"status": "pending"}
    assert not {"mute_all", "muted_instance_ids"} & alert.keys()
    id = alert["id"]
    assert cli.client.run_alert(id).status == pb.ALERT_STATUS_OK
    (row,) = cli("alert", "list").lines[1:]
    assert row.split()[0] == id
    assert {"OK", ".event-threshold", "ops", "1h", "images"} <= set(row.split())
    assert json.loads(cli("alert", "get", id, "-o", "json").out)["execution_status"]["status"] == "ok"
    assert json_format.Parse(cli("alert", "get", id, "-o", "json-raw").out, pb.GetAlertResponse()).alert.id == id
    refused = cli("alert", "delete", id, stdin="y\n")
    assert (refused.code, "nothing was deleted" in refused.err) == (2, True)
    assert cli("alert", "delete", id, "--yes").out == f"{id}\n"
    assert cli("alert", "get", id).code == 3
    assert cli("alert", "list").err == "✔ List alerts\nNo alerts.\n"


@pytest.mark.parametrize("format", ["text", "json"])
def test_what_get_prints_is_changed_and_given_back(cli: Cli, tmp_path: Path, format: str) -> None:
    """KA8: all that is not changed stays, and what cannot change is not asked for."""
    told = receiver(cli)
    body = "{{alertInstanceId}} fails\nagain and again"
    actions = [{"id": told, "params": {"body": body}}, {"id": told, "group": "recovered", "params": {"body": "fine"}}]
    id = created(cli, notify_when="on_action_group_change", throttle="5m", actions=actions)
    before = cli.client.get_alert(id)
    printed = cli("alert", "get", id, "-o", format).out
    same = cli("alert", "update", id, "-f", "-", "-o", "json", stdin=printed)
    assert same.code == 0, same.err
    edited = tmp_path / "alert"
    edited.write_text(printed.replace("image analyses fail", "renamed").replace("5m", "7m"))
    assert cli("alert", "update", id, "-f", str(edited)).code == 0
    after = cli.client.get_alert(id)
    assert (after.name, after.throttle) == ("renamed", "7m")
    assert (after.actions, after.params, after.notify_when) == (before.actions, before.params, before.notify_when)
    copied = json.loads(cli("alert", "create", "-f", str(edited), "-o", "json").out)
    assert copied["id"] != id
    assert copied["actions"] == json.loads(cli("alert", "get", id, "-o", "json").out)["actions"]


def test_a_file_and_flags_change_what_they_have(cli: Cli) -> None:
    """KA8, KD1: an empty field is emptied, others stay; interval and throttle are durations."""
    id = created(cli, throttle="5m")
    changed = cli("alert", "update", id, "-f", "-", "-o", "json", stdin="throttle: ''\ntags: []")
    found = json.loads(changed.out)
    assert ("throttle" in found, "tags" in found, found["name"]) == (False, False, FILE["name"])
    flags = ("--name", "renamed", "--interval", "2h", "--throttle", "10m")
    found = json.loads(cli("alert", "update", id, *flags, "-o", "json").out)
    assert (found["name"], found["schedule"], found["throttle"]) == ("renamed", {"interval": "2h"}, "10m")
    for interval in ("0s", "1.5m", "1w", "90"):
        refused = cli("alert", "update", id, "--interval", interval)
        assert (refused.code, "alert.schedule.interval: " in refused.err) == (2, True)
        assert "a duration like 10s, 5m, 1h or 1d" in refused.err
    camel = cli("alert", "update", id, "-f", "-", "-o", "json", stdin="notifyWhen: on_active_alert")
    assert json.loads(camel.out)["notify_when"] == "on_active_alert"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("consumer: other", "consumer of the alert is 'ops': it cannot change"),
        ("alert_type_id: .event-absence", "alert_type_id of the alert is '.event-threshold': it cannot change"),
        ("enabled: false", 'enabled of the alert is True: use "tocsin alert enable" or "disable"'),
        ("id: other\nname: x", "it is about 'other', not about "),
        ("nme: x", 'no field named "nme"'),
    ],
)
def test_what_cannot_change_is_not_passed_over(cli: Cli, given: str, said: str) -> None:
    """KA8."""
    id = created(cli)
    found = cli("alert", "update", id, "-f", "-", stdin=given if given.count("\n") else f"name: x\n{given}")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("tocsin: --file: ")
    assert said in found.err
    assert cli.client.get_alert(id).name == FILE["name"]


def test_alerts_are_found_by_all_criteria(cli: Cli) -> None:
    """KA3: each by one of its values; a condition of one's own joins them."""
    told = receiver(cli)
    goes = created(cli, name="goes", tags=["red"], actions=[{"id": told, "params": {"body": "x"}}])
    stays = created(cli, name="stays", tags=["blue"], consumer="other")
    off = created(cli, "--disabled", name="off", tags=["blue", 'quoted "tag"'])

    def ids(*words: str) -> list[str]:
        found = cli("alert", "list", "-o", "id", *words)
        assert found.code == 0, found.err
        return found.lines

    assert ids() == [goes, off, stays]
    assert ids("--search", "go stay") == [goes, stays]
    assert ids("--tag", "red") == [goes]
    assert ids("--tag", "red", "--tag", "blue") == [goes, off, stays]
    assert ids("--tag", 'quoted "tag"') == [off]
    assert ids("--consumer", "other") == [stays]
    assert ids("--type", ".event-absence") == []
    assert ids("--endpoint", told) == ids("--where-goes", told) == [goes]
    assert ids("--status", "OFF") == [off]
    assert ids("--status", "ok", "--status", "off") == [goes, off, stays]
    assert ids("--status", "error") == []
    assert ids("--filter", 'alert.name == "goes" || alert.name == "off"', "--tag", "blue") == [off]
    refused = cli("alert", "list", "--filter", "alert.frob == 1")
    assert (refused.code, "undefined field 'frob'" in refused.err) == (2, True)
    raw = json_format.Parse(cli("alert", "list", "-o", "json-raw").out, pb.FindAlertsResponse())
    assert (raw.total_size, len(raw.alerts)) == (3, 3)


def test_an_alert_is_switched_off_after_a_yes_and_on_again(cli: Cli) -> None:
    """KA9, KA10."""
    id = created(cli)
    refused = cli("alert", "disable", id, stdin="y\n")
    assert (refused.code, "nothing was switched off" in refused.err) == (2, True)
    for _ in range(2):
        assert cli("alert", "disable", id, "--yes").out == "image analyses fail is OFF\n"
    assert cli("alert", "list").lines[1].split().count("OFF") == 1
    for _ in range(2):
        on = cli("alert", "enable", id)
        assert (on.code, on.out.startswith("image analyses fail is ")) == (0, True)
    assert cli.client.get_alert(id).enabled


def test_an_alert_and_its_instances_are_muted(cli: Cli) -> None:
    """KA11, KA12, KA13, KA14: twice is once; an instance need not be there."""
    id = created(cli)
    for _ in range(2):
        assert cli("alert", "mute", id, "nginx").out == "image analyses fail is muted for nginx\n"
    assert cli.client.get_alert(id).muted_instance_ids == ["nginx"]
    assert cli("alert", "list").lines[1].split()[8] == "1"
    for _ in range(2):
        assert cli("alert", "mute", id).out == "image analyses fail is muted\n"
    assert cli("alert", "list").lines[1].split()[8] == "all"
    assert "muted as a whole" in cli("alert", "unmute", id, "redis").err
    for _ in range(2):
        found = cli("alert", "unmute", id)
        assert found.out == "image analyses fail is not muted\n"
        assert "Muted for themselves are still: nginx" in found.err
    for _ in range(2):
        assert cli("alert", "unmute", id, "nginx", "-o", "id").out == f"{id}\n"
    assert not cli.client.get_alert(id).muted_instance_ids


@pytest.mark.parametrize(
    ("command", "kept"), [("delete", "Nothing was deleted."), ("disable", "Nothing was switched off.")]
)
def test_a_terminal_is_asked_before(cli: Cli, command: str, kept: str) -> None:
    """KA2, KA10: the default is No."""
    id = created(cli)
    question = f"Are you sure you want to {command} image analyses fail ({id})? Its instances end, and nobody is told."
    terminal = Terminal(cli.environment, "alert", command, id, columns=160)
    terminal.until(f"{question} (y/N) ")
    terminal.type("\n")
    assert terminal.end() == 1
    assert kept in terminal.shown
    assert cli.client.get_alert(id).enabled
    terminal = Terminal(cli.environment, "alert", command, id)
    terminal.until("(y/N) ")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert not [found for found in cli.client.find_alerts() if found.enabled]


@pytest.mark.parametrize("columns", [200, 80, 60])
def test_the_tables_fit_the_terminal(cli: Cli, columns: int) -> None:
    """IDs stay whole."""
    id = created(cli, name="the analyses of the images of the registry fail", tags=["images", "infrastructure", "eu"])
    lines = shown(cli, columns, "alert", "list")
    assert sum(id in line for line in lines) == 1
    assert any("OK" in line for line in lines)
    assert sum(".event-threshold" in line for line in shown(cli, columns, "alert", "types")) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create"], "--file: is missing: give the alert in YAML or JSON"),
        (["create", "-f", "/nowhere"], "--file: /nowhere: No such file"),
        (["update", "x"], "update: give what is to change: flags, or -f FILE with any of name, tags, schedule"),
        (["list", "--status", "over"], "--status: 'over' is none of pending, ok, active, error, off"),
        (["executions", "x", "--status", "over"], "--status: 'over' is none of pending, ok, active, error"),
        (["executions", "x", "--since", "noon"], "--since: 'noon' is no time"),
        (["summary", "x", "--since", "noon"], "--since: 'noon' is no time"),
        (["preview"], "ALERT: is missing: give the ID of a stored alert, or -f FILE"),
        (["preview", "x", "-f", "y"], "--file: does not go with the ID of a stored alert"),
        (["preview", "x", "--since", "1h", "--until", "2h"], "--since: is not before --until"),
        (["run", "x", "-o", "id"], "--output: 'id' is none of text, json, json-raw"),
    ],
)
def test_a_misuse_names_the_flag(cli: Cli, words: list[str], said: str) -> None:
    found = cli("alert", *words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
