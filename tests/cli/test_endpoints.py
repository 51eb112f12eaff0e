"""`tocsin endpoint`: kinds, quick selections, and receivers from their creation to their end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tocsin
import yaml
from google.protobuf import json_format
from tocsin.v1 import notifications_pb2 as pb

from examples.demo.server import Server
from tests.cli.answering import Answering, answering
from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal, shown

URL = "http://127.0.0.1:1/hook"
MAIL = """
name: mail
email: {host: mail.example.com, from_address: tocsin@example.com, recipients: [ann@example.com], security: tls}
selectors: [{scope: account, level: error, type: user.*, resource_type: "*"}]
options: {retry_schedule: [5, 60], escape: html, grouping: {by: [type], wait: 60s}}
"""


@pytest.fixture
def hook() -> Iterator[Answering]:
    with answering() as found:
        yield found


def created(cli: Cli, *words: str) -> str:
    made = cli("endpoint", "configuration", "create", "ops", "-o", "id", *words)
    assert made.code == 0, made.err
    return made.out.strip()


def test_kinds_are_listed_with_what_they_need(cli: Cli) -> None:
    """A29, A30, A33."""
    found = cli("endpoint", "list")
    assert found.err == "✔ List endpoints\n"
    assert found.lines[0].split() == ["KIND", "ENABLED", "NEEDS", "DESCRIPTION"]
    (webhook,) = [line for line in found.lines if line.startswith("webhook")]
    assert webhook.split()[:4] == ["webhook", "yes", "url,", "secret"]
    assert {"email", "webhook"} <= set(cli("endpoint", "list", "-o", "id").lines)
    assert json.loads(cli("endpoint", "list", "-o", "json").out)[0]["kind"] == "email"
    raw = json_format.Parse(cli("endpoint", "list", "-o", "json-raw").out, pb.ListEndpointsResponse())
    assert list(raw.endpoints) == cli.client.list_endpoints()


def test_a_kind_is_switched_by_the_admin_after_a_yes(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    """A32, A33."""
    admin = Cli(cli.address, "admin", capsys)
    try:
        assert admin("endpoint", "disable", "email").err.startswith("tocsin: --yes: nothing was switched off")
        refused = cli("endpoint", "disable", "email", "--yes")
        assert (refused.code, "PERMISSION_DENIED" in refused.err) == (1, True)
        assert admin("endpoint", "disable", "email", "--yes").out == "email is off\n"
        (row,) = [line for line in cli("endpoint", "list").lines if line.startswith("email")]
        assert row.split()[1] == "no"
        terminal = Terminal(admin.environment, "endpoint", "disable", "webhook", columns=120)
        terminal.until("Are you sure that nothing is to be sent by webhook, for any account? (y/N) ")
        terminal.type("\n")
        assert terminal.end() == 1
        assert "Nothing was switched off." in terminal.shown
    finally:
        assert json.loads(admin("endpoint", "enable", "email", "-o", "json").out)["enabled"]
        assert admin("endpoint", "enable", "pigeon").code == 3
        admin.client.close()
    assert all(endpoint.enabled for endpoint in cli.client.list_endpoints())


def test_the_quick_selections_are_listed_and_used(cli: Cli) -> None:
    """A54, A55, A56, A57, A58, A59."""
    ids = cli("endpoint", "presets", "-o", "id").lines
    assert {"checks", "user-errors", "user", "system-infos", "system", "all", "all-accounts"} <= set(ids)
    rows = {line.split()[0]: line.split()[1] for line in cli("endpoint", "presets").lines[1:]}
    assert rows["user-errors"] == "level=error,type=user.*"
    assert rows["all"] == "type=*"
    id = created(cli, "--url", URL, "--preset", "user-errors", "--preset", "checks", "--selector", "type=feed*")
    told = [(selector.level, selector.type) for selector in cli.client.get_configuration(id).selectors]
    assert told == [("error", "user.*"), ("*", "user.checks.*"), ("*", "feed*")]


def test_a_webhook_from_its_creation_to_its_end(cli: Cli, hook: Answering) -> None:
    """A03: the secret that is made for it is shown once, and signs."""
    made = cli("endpoint", "configuration", "create", "ops", "--url", hook.url, "--preset", "all", "-o", "json")
    found = json.loads(made.out)
    id, secret = found["id"], found["webhook"]["secret"]
    assert made.err == "✔ Created configuration\n"
    tested = cli("endpoint", "configuration", "test", id)
    assert (tested.code, tested.lines[0]) == (0, "The receiver has taken the message.")
    _, headers, body = hook.posts.get(timeout=20)
    assert tested.lines[-1] == f"Delivery: {tocsin.verify_webhook(secret, headers, body)}"
    assert secret not in cli("endpoint", "configuration", "get", id).out
    changed = cli("endpoint", "configuration", "update", id, "--name", "pager", "--selector", "level=error")
    assert yaml.safe_load(changed.out)["name"] == "pager"
    assert yaml.safe_load(changed.out)["selectors"][0]["level"] == "error"
    moved = cli("endpoint", "configuration", "update", id, "--url", f"{hook.url}moved", "-o", "json")
    assert json.loads(moved.out)["webhook"]["url"] == f"{hook.url}moved"
    assert cli("endpoint", "configuration", "test", id).code == 0
    path, headers, body = hook.posts.get(timeout=20)
    assert (path, bool(tocsin.verify_webhook(secret, headers, body))) == ("/moved", True)
    assert cli("endpoint", "configuration", "list", "-o", "id").out == f"{id}\n"
    assert cli("endpoint", "configuration", "list", "--kind", "email", "-o", "id").out == ""
    assert cli("endpoint", "configuration", "delete", id, "--yes").out == f"{id}\n"
    assert cli("endpoint", "configuration", "get", id).code == 3


def test_a_secret_is_told_where_only_the_id_is_printed(cli: Cli) -> None:
    made = cli("-q", "endpoint", "configuration", "create", "ops", "--url", URL, "-o", "id")
    assert len(made.lines) == 1
    assert made.err.startswith("Its secret, which is not shown again: whsec_")
    own = tocsin.new_webhook_secret()
    given = cli("endpoint", "configuration", "create", "ops", "--url", URL, "--secret", own)
    assert own not in given.out + given.err


def test_a_file_makes_and_changes_what_flags_cannot_say(cli: Cli, tmp_path: Path) -> None:
    """What was printed can be changed and given back; flags win over the file."""
    made = cli("endpoint", "configuration", "create", "-f", "-", "-o", "json", stdin=MAIL)
    found = json.loads(made.out)
    assert found["email"]["security"] == "tls"
    assert found["options"]["grouping"]["wait"] == "60s"
    found["description"], found["options"]["escape"] = "by file", "none"
    file = tmp_path / "mail.json"
    file.write_text(json.dumps(found))
    update = ("endpoint", "configuration", "update", found["id"], "-o", "json")
    after = json.loads(cli(*update, "-f", str(file), "--name", "letters").out)
    assert (after["name"], after["description"], after["options"]["escape"]) == ("letters", "by file", "none")
    to = ("--to", "bob@example.com", "--to", "cy@example.com", "--smtp", "other.example.com:2525")
    mail = json.loads(cli(*update, *to).out)["email"]
    assert (mail["recipients"], mail["host"], mail["port"]) == (
        ["bob@example.com", "cy@example.com"], "other.example.com", 2525,
    )  # fmt: skip
    assert mail["from_address"] == "tocsin@example.com"
    again = json.loads(cli("endpoint", "configuration", "create", "-f", str(file), "-o", "json").out)
    assert (again["name"], again["id"] == found["id"]) == ("mail", False)


def test_the_state_of_a_receiver_is_a_column(cli: Cli, hook: Answering) -> None:
    """A34: of several of one kind: HEALTHY, THROTTLED with when it goes on, and OFF."""
    healthy = created(cli, "--url", hook.url)
    off = created(cli, "--url", hook.url, "--disabled")
    throttled = created(cli, "--url", hook.url, "--preset", "all")
    hook.status, hook.headers = 429, {"Retry-After": "600"}
    with cli.client.watch_deliveries(configuration_id=throttled) as watch:
        assert not next(watch).deliveries
        cli.client.append("a.b")
        while not any(one.status_code for one in next(watch).deliveries):
            pass
    rows = {line.split()[0]: line.split() for line in cli("endpoint", "configuration", "list").lines[1:]}
    assert {id: rows[id][3] for id in (healthy, off, throttled)} == {
        healthy: "HEALTHY", off: "OFF", throttled: "THROTTLED",
    }  # fmt: skip
    said = cli("endpoint", "configuration", "get", throttled).err
    assert "THROTTLED: it asked to wait" in said
    assert "next attempt" in said
    assert cli("endpoint", "configuration", "enable", off).out == "ops is HEALTHY\n"
    assert cli("endpoint", "configuration", "disable", off).out == "ops is OFF\n"


def test_a_test_that_fails_shows_the_attempt_and_ends_with_1(cli: Cli, deaf: str) -> None:
    id = created(cli, "--url", deaf)
    failed = cli("endpoint", "configuration", "test", id)
    assert (failed.code, failed.lines[0]) == (1, "It was not delivered.")
    assert "connection_refused" in failed.lines[1]
    unsaved = cli("endpoint", "test", "--url", deaf, "-o", "json")
    assert (unsaved.code, json.loads(unsaved.out)["delivered"]) == (1, False)


def test_an_unsaved_receiver_is_tested(cli: Cli, hook: Answering) -> None:
    raw = cli("endpoint", "test", "--url", hook.url, "-o", "json-raw")
    assert json_format.Parse(raw.out, pb.TestEndpointConfigurationResponse()).delivered
    assert hook.posts.get(timeout=20)[1]["webhook-signature"].startswith("v1,")
    assert list(cli.client.list_configurations()) == []


def test_a_receiver_is_deleted_only_after_a_yes(cli: Cli) -> None:
    id = created(cli, "--url", URL)
    assert cli("endpoint", "configuration", "delete", id).code == 2
    terminal = Terminal(cli.environment, "endpoint", "configuration", "delete", id, columns=160)
    terminal.until(f"Are you sure you want to delete ops ({id})? What waits for it is cancelled. (y/N) ")
    terminal.type("\n")
    assert terminal.end() == 1
    assert cli.client.get_configuration(id).name == "ops"
    terminal = Terminal(cli.environment, "endpoint", "configuration", "delete", id)
    terminal.until("(y/N) ")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert list(cli.client.list_configurations()) == []


def test_the_webhook_of_the_settings_is_listed_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hook: Answering
) -> None:
    """B35, B37, C16: it is read-only, and gets what the command line appends."""
    secret = tocsin.new_webhook_secret()
    monkeypatch.setenv("TOCSIN_EVENT_LOG_NOTIFICATION_ENABLED", "true")
    monkeypatch.setenv("TOCSIN_WEBHOOKS_GENERAL_URL", hook.url)
    monkeypatch.setenv("TOCSIN_WEBHOOKS_GENERAL_SECRET", secret)
    server = Server(tmp_path)
    server.start()
    admin = Cli(server.address, "admin", capsys)
    try:
        assert admin("endpoint", "configuration", "list", "-o", "id").out == "config:general\n"
        refused = admin("endpoint", "configuration", "update", "config:general", "--name", "x")
        assert "READ_ONLY" in refused.err
        assert admin("event", "append", "a.b", "--id", "e1").code == 0
        _, headers, body = hook.posts.get(timeout=20)
        assert (json.loads(body)["data"]["id"], bool(tocsin.verify_webhook(secret, headers, body))) == ("e1", True)
    finally:
        admin.client.close()
        server.stop()


@pytest.mark.parametrize("columns", [200, 80, 60])
def test_the_tables_fit_the_terminal(cli: Cli, columns: int) -> None:
    """IDs stay whole."""
    id = created(cli, "--url", URL, "--preset", "user-errors", "--preset", "checks", "--selector", "type=feed*")
    assert sum(id in line for line in shown(cli, columns, "endpoint", "configuration", "list")) == 1
    assert any("HEALTHY" in line for line in shown(cli, columns, "endpoint", "configuration", "list"))
    assert sum("all-accounts" in line for line in shown(cli, columns, "endpoint", "presets")) == 1
    assert any(line.startswith("webhook") for line in shown(cli, columns, "endpoint", "list"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create"], "--url: give --url for a webhook, --to, --from and --smtp for mail, or -f FILE"),
        (["create", "--url", URL], "NAME: is missing"),
        (["create", "x", "--url", URL, "--to", "a@b.c"], "--url: a webhook does not go with --to"),
        (["create", "x", "--to", "a@b.c", "--smtp", "h:x"], "--smtp: 'h:x' is no mail server"),
        (["create", "x", "--smtp-security", "ssl"], "--smtp-security: 'ssl' is none of starttls, tls, none"),
        (["create", "x", "--url", URL, "--preset", "p"], "--preset: 'p' is none of checks"),
        (["create", "x", "--url", URL, "--selector", "p=1"], "--selector: 'p' is none of scope"),
        (["create", "x", "--url", URL, "--selector", ""], "--selector: is empty"),
        (["create", "x", "-f", "/nowhere"], "--file: /nowhere: No such file"),
        (["create", "x", "-f", "/dev/null"], "--file: /dev/null has no fields"),
        (["update", "x"], "update: give what is to change"),
    ],
)
def test_a_misuse_names_the_flag(cli: Cli, words: list[str], said: str) -> None:
    found = cli("endpoint", "configuration", *words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name: [", "- is no YAML or JSON: while parsing"),
        ("[1]", "- has no fields: give a mapping"),
        ("name: x\nwebhok: {}", 'no field named "webhok"'),
        ("name: x\nwebhook: {url: 7}", "url"),
        pytest.param("name: " + "x" * 1_048_576, "- is longer than 1048576 characters", id="too long"),
    ],
)
def test_a_file_that_means_nothing_is_told_by_its_place(cli: Cli, text: str, said: str) -> None:
    found = cli("endpoint", "configuration", "create", "-f", "-", stdin=text)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("tocsin: --file: ")
    assert said in found.err


def test_a_file_is_for_the_receiver_that_it_names(cli: Cli) -> None:
    found = cli("endpoint", "configuration", "update", "one", "-f", "-", stdin="id: other\nname: x")
    assert (found.code, found.err) == (2, "tocsin: --file: it is about 'other', not about 'one'\n")
