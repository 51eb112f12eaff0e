"""`tocsin delivery`: found, shown, watched, and decided about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
import tocsin
from google.protobuf import json_format
from tocsin.cli.delivery_records import record
from tocsin.v1 import notifications_pb2 as pb

from examples.demo.server import Server
from tests.cli.answering import answering
from tests.cli.conftest import Cli
from tests.cli.terminal import CONTROL, Terminal, shown

SECRET = tocsin.new_webhook_secret()
OPTIONS = tocsin.delivery_options(retry_schedule_s=[86_400])


def told(cli: Cli, url: str, type: str = "*") -> str:
    """Create a receiver at a URL; answers its id."""
    wanted = tocsin.webhook("ops", url, SECRET, [tocsin.selector(type)], options=OPTIONS)
    return cli.client.create_configuration(wanted).id


@pytest.fixture
def waiting(cli: Cli, deaf: str) -> pb.Delivery:
    """Answer a delivery that failed once and waits for a day."""
    with cli.client.watch_deliveries(["retrying"], configuration_id=told(cli, deaf)) as watch:
        assert not next(watch).deliveries
        cli.client.append("a.b", id="e1")
        return next(watch).deliveries[0]


def test_deliveries_are_found_by_every_criterion(cli: Cli, waiting: pb.Delivery) -> None:
    def ids(*words: str) -> list[str]:
        found = cli("delivery", "list", "-o", "id", *words)
        assert found.code == 0, found.err
        return found.lines

    hits = (
        ["--state", "retrying"], ["--state", "Delivered", "--state", "RETRYING"], ["--event", "e1"],
        ["--configuration", waiting.configuration_id], ["--error", "connection_refused"],
        ["--error", "Connection-Refused"], ["--since", "1h"], ["--all"],
    )  # fmt: skip
    for words in hits:
        assert ids(*words) == [waiting.id], words
    misses = (
        ["--state", "delivered"], ["--event", "e2"], ["--configuration", "x"], ["--alert", "x"], ["--error", "timeout"],
        ["--status", "5xx"], ["--until", "1h"],
    )  # fmt: skip
    for words in misses:
        assert ids(*words) == [], words
    assert cli("delivery", "list", "--event", "e2").err.endswith("No deliveries.\n")


def test_a_list_and_its_formats(cli: Cli, waiting: pb.Delivery) -> None:
    found = cli("delivery", "list")
    titles = ["ID", "STATE", "REASON", "TRIES", "ANSWER", "TELLS", "CONFIGURATION", "CREATED"]
    assert found.lines[0].split() == titles
    row = found.lines[1].split()
    assert row[:6] == [waiting.id, "RETRYING", "1", "connection_refused", "event", "e1"]
    (plain,) = json.loads(cli("delivery", "list", "-o", "json").out)
    assert (plain["state"], plain["error_class"], plain["event"]["id"]) == ("retrying", "connection_refused", "e1")
    raw = json_format.Parse(cli("delivery", "list", "-o", "json-raw").out, pb.ListDeliveriesResponse())
    assert list(raw.deliveries) == [waiting]


def test_a_list_says_that_there_are_more(cli: Cli, deaf: str) -> None:
    told(cli, deaf, "a.b")
    told(cli, deaf, "c.d")
    events = [tocsin.draft("a.b"), tocsin.draft("a.b"), tocsin.draft("c.d", id="last")]
    with cli.client.watch_deliveries(event_id="last") as watch:
        next(watch)
        cli.client.append_many(events)
        assert next(watch).deliveries  # events are routed in their order
    some = cli("delivery", "list", "-n", "2")
    assert len(some.lines) == 3
    assert some.err.endswith("These are the newest 2: there may be more, which -n or --all shows.\n")
    assert len(cli("delivery", "list", "-n", "2", "--all", "-o", "id").lines) == 3
    assert "newest" not in cli("delivery", "list", "-n", "3").err


def test_every_attempt_is_shown(cli: Cli) -> None:
    """When, how long, what was answered and when it goes on."""
    with answering(503, b"we\x1b[2J are busy") as busy:
        id = told(cli, busy.url)
        with cli.client.watch_deliveries(["retrying"], configuration_id=id) as watch:
            next(watch)
            cli.client.append("a.b", id="e1")
            waiting = next(watch).deliveries[0]
        busy.status, busy.body = 400, b"no such thing"
        assert cli("delivery", "retry", waiting.id).out == f"{waiting.id} is RETRYING\n"
        assert cli.client.wait_for_delivery(configuration_id=id).id == waiting.id
    lines = cli("delivery", "get", waiting.id).lines
    for line in (f"ID: {waiting.id}", "State: EXHAUSTED", "Reason: PERMANENT: the receiver refused it for good"):
        assert line in lines
    assert "Event: e1" in lines
    first, *rest = lines[lines.index("Attempts: 2") + 1 :]
    assert re.fullmatch(r"  1  \d{4}-\S+Z  RETRY  503 server_error  \d+ ms", first)
    assert "     answer: we\\x1b[2J are busy" in rest
    assert any(line.startswith("     next attempt: 2") for line in rest)
    assert any(re.fullmatch(r"  2  \S+  PERMANENT  400 refused  \d+ ms", line) for line in rest)
    plain = json.loads(cli("delivery", "get", waiting.id, "-o", "json").out)
    assert [attempt["status_code"] for attempt in plain["attempts"]] == [503, 400]
    assert cli("delivery", "get", waiting.id, "-o", "id").out == f"{waiting.id}\n"
    assert cli("delivery", "get", "nobody").code == 3


def test_a_record_tells_each_kind_of_subject_and_recipient() -> None:
    alert = pb.Delivery.AlertSubject(alert_id="a1", instance_id="i1", action_group="default", run_number=7)
    lines = record(pb.Delivery(id="d", alert=alert), None)
    assert {"Alert: a1", "Instance: i1", "Action Group: default", "Run: 7"} <= set(lines)
    digest = pb.Delivery.DigestSubject(number=2, group={"type": "a.b"})
    assert "Tells: digest 2 of type=a.b" in record(pb.Delivery(id="d", digest=digest), None)
    one = pb.RecipientVerdict(recipient="ann@example.com", verdict=pb.VERDICT_PERMANENT, status_code=550)
    one.response_excerpt = "no such user"
    assert "  ann@example.com  PERMANENT  550 no such user" in record(pb.Delivery(id="d", recipients=[one]), None)
    many = pb.Delivery(id="d", attempt_count=200, attempts=[pb.Attempt(number=200)])
    assert "Attempts: 200 (the newest 1 of them)" in record(many, None)


def test_one_is_cancelled_and_begins_anew(cli: Cli, waiting: pb.Delivery) -> None:
    assert cli("delivery", "cancel", waiting.id).out == f"{waiting.id} is CANCELLED\n"
    refused = cli("delivery", "cancel", waiting.id)
    assert (refused.code, "DELIVERY_STATE" in refused.err) == (1, True)
    assert json.loads(cli("delivery", "retry", waiting.id, "-o", "json").out)["id"] == waiting.id
    assert cli("delivery", "retry", "nobody").code == 3


@pytest.fixture
def ended(cli: Cli, waiting: pb.Delivery) -> str:
    """Have one delivery given up, one cancelled and two silenced; answers their configuration."""
    id = waiting.configuration_id
    cli.client.cancel_delivery(waiting.id)
    cli.client.create_silence(types=["quiet"], comment="x", duration=timedelta(hours=1))
    with answering(400) as refusing:
        hook = cli.client.get_configuration(id)
        hook.webhook.url = refusing.url
        cli.client.update_configuration(hook, ["webhook"])
        events = [tocsin.draft("loud", id="e2"), tocsin.draft("quiet", id="e3"), tocsin.draft("quiet", id="e4")]
        cli.client.append_many(events)
        states = [cli.client.wait_for_delivery(event_id=event.id).state for event in events]
    assert states == [pb.DELIVERY_STATE_EXHAUSTED, pb.DELIVERY_STATE_SILENCED, pb.DELIVERY_STATE_SILENCED]
    return id


def test_a_recovery_asks_with_what_it_means(cli: Cli, ended: str) -> None:
    """The default is No; without a terminal it needs --yes."""
    refused = cli("delivery", "recover", ended)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("tocsin: --yes: nothing was recovered: give it")
    question = "Are you sure you want to send again what was given up (1), cancelled (1) or silenced (2)? (y/N) "
    terminal = Terminal(cli.environment, "delivery", "recover", ended, columns=160)
    terminal.until(question)
    terminal.type("\n")
    assert terminal.end() == 1
    assert "Nothing was recovered." in terminal.shown
    assert cli.client.delivery_statistics().open == 0
    assert cli("delivery", "recover", ended, "--until", "1h", "--yes").out == "Recovered 0 deliveries\n"
    terminal = Terminal(cli.environment, "delivery", "recover", ended, columns=160)
    terminal.until(question)
    terminal.type("y\n")
    assert terminal.end() == 0
    assert "Recovered 4 deliveries" in terminal.shown


def test_a_recovery_by_a_program(cli: Cli, ended: str) -> None:
    found = cli("delivery", "recover", ended, "--yes", "--since", "1h", "-o", "json")
    assert json.loads(found.out) == {"recovered_count": 4}
    assert cli("delivery", "recover", "nobody", "--yes").code == 3


def test_what_became_of_all_is_counted(cli: Cli, ended: str) -> None:
    counts = {"routed": 4, "delivered": 0, "exhausted": 1, "cancelled": 1, "silenced": 2, "open": 0}
    assert json.loads(cli("delivery", "stats", "-o", "json").out) == counts
    assert [line.split() for line in cli("delivery", "stats").lines] == [[k, str(v)] for k, v in counts.items()]
    raw = json_format.Parse(cli("delivery", "stats", "-o", "json-raw").out, pb.GetDeliveryStatisticsResponse())
    assert raw == cli.client.delivery_statistics()
    assert cli("delivery", "stats", "--all-accounts").code == 1


@pytest.mark.parametrize("columns", [240, 100, 80, 60])
@pytest.mark.usefixtures("waiting")
def test_a_table_fits_the_terminal(cli: Cli, columns: int) -> None:
    """IDs stay whole."""
    (one,) = cli.client.list_deliveries()
    for id in (one.id, one.configuration_id, "event e1"):
        assert sum(id in line for line in shown(cli, columns, "delivery", "list")) == 1
    lines = shown(cli, columns, "delivery", "get", one.id)
    assert f"Configuration: {one.configuration_id}" in lines
    assert any("connection_refused" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--state", "lost"], "--state: 'lost' is none of pending, sending"),
        (["list", "--error", "rain"], "--error: 'rain' is none of dns_error"),
        (["list", "--status", "50"], "--status: '50' is no status code: give 503, or 5xx"),
        (["list", "--since", "noon"], "--since: 'noon' is no time"),
        (["list", "-n", "0"], "--count: give 1 or more"),
        (["watch", "--state", "lost"], "--state: 'lost' is none of"),
    ],
)
def test_a_misuse_names_the_flag(cli: Cli, words: list[str], said: str) -> None:
    found = cli("delivery", *words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err


def test_a_watch_prints_changes_in_each_format(cli: Cli) -> None:
    with answering() as hook:
        id = told(cli, hook.url)
        watches = {}
        for format in ("text", "json", "json-raw", "id"):
            words = ("delivery", "watch", "--state", "delivered", "--configuration", id, "-n", "1", "-o", format)
            watches[format] = cli.start(*words)
        for process in watches.values():
            assert process.stderr is not None
            assert process.stderr.readline() == "Watching\n"
        cli.client.append("a.b", id="e1")
        out = {format: process.communicate(timeout=30)[0] for format, process in watches.items()}
    assert [process.returncode for process in watches.values()] == [0] * 4
    one = cli.client.wait_for_delivery(configuration_id=id)
    assert out["id"] == f"{one.id}\n"
    assert out["text"] == f"{one.id}  DELIVERED  try 1  200  event e1\n"
    assert json.loads(out["json"])["state"] == "delivered"
    assert list(json_format.Parse(out["json-raw"], pb.WatchDeliveriesResponse()).deliveries) == [one]


def _fates(lines: Iterator[str], wanted: set[str]) -> dict[str, str]:
    """Read lines until each wanted event was told to be delivered; answers the ids of their deliveries."""
    found: dict[str, str] = {}
    for line in lines:
        delivery = json.loads(line)
        if delivery["state"] == "delivered":
            assert delivery["event"]["id"] not in found, "told twice"
            found[delivery["event"]["id"]] = delivery["id"]
        if set(found) == wanted:
            return found
    raise AssertionError(f"it ended after {found}")


def test_a_watch_goes_on_over_kills_of_the_server(own: tuple[Server, Cli]) -> None:
    """What ended while nobody watched is told after the break, once, and nothing twice."""
    server, cli = own
    with answering() as hook:
        told(cli, hook.url, "a.b")
        process = cli.start("delivery", "watch", "-o", "json")
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "Watching\n"
        cli.client.append("a.b", id="before")
        _fates(iter(process.stdout.readline, ""), {"before"})
        for life in range(2):
            server.kill()
            assert process.stderr.readline().startswith("✘ Lost the server (")
            server.start()
            cli.client.append("a.b", id=f"at-once-{life}")
            cli.client.wait_for_delivery(event_id=f"at-once-{life}")
            assert process.stderr.readline() == "✔ Found the server again, going on where it was\n"
            cli.client.append("a.b", id=f"later-{life}")
            _fates(iter(process.stdout.readline, ""), {f"at-once-{life}", f"later-{life}"})
        process.terminate()
        process.communicate(timeout=30)


def test_what_stood_before_a_watch_is_no_change(cli: Cli, waiting: pb.Delivery) -> None:
    process = cli.start("delivery", "watch", "-n", "1")
    assert process.stderr is not None
    assert process.stderr.readline() == "Watching\n"
    cli.client.cancel_delivery(waiting.id)
    out, _ = process.communicate(timeout=30)
    assert out.startswith(f"{waiting.id}  CANCELLED  BY_HAND")


def test_a_line_of_a_watch_fits_the_terminal(cli: Cli, waiting: pb.Delivery) -> None:
    """The ID stays whole."""
    terminal = Terminal(cli.environment, "delivery", "watch", "-n", "1", columns=60)
    terminal.until("Watching")
    cli.client.cancel_delivery(waiting.id)
    assert terminal.end() == 0
    line = CONTROL.sub("", terminal.shown).splitlines()[-1]
    assert (line[:43], len(line)) == (f"{waiting.id}  CANCELLED", 60)
