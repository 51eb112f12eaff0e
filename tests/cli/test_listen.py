"""`tocsin listen`: a receiver on this machine, with messages of the real server and forged ones."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import tocsin
import yaml
from standardwebhooks import Webhook
from tocsin.v1 import notifications_pb2 as pb

from tests.cli.answering import answering
from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal

SECRET = tocsin.new_webhook_secret()


class Listening:
    """A running `tocsin listen`, on a free port."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.process = cli.start("listen", "--port", "0", *words)
        self.said: list[str] = []
        self.url = ""
        while not (found := re.match(r"Listening on (http://\S+/); Ctrl-C ends it", self.hear())):
            pass
        self.url = found[1]

    def hear(self) -> str:
        """Read a line of standard error."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert line, f"it ended after {self.said}"
        self.said.append(line)
        return line

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Have it end; answers the exit code and what else it printed."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def listen(cli: Cli) -> Iterator[Any]:
    running: list[Listening] = []

    def start(*words: str) -> Listening:
        running.append(Listening(cli, *words))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def signed(body: str, secret: str = SECRET, id: str = "d1") -> dict[str, str]:
    now = datetime.now(UTC)
    signature = Webhook(secret).sign(id, now, body)
    return {"webhook-id": id, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


def post(url: str, body: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], str]:
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json", **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def test_a_verified_webhook_of_the_server_is_printed(cli: Cli, listen: Any) -> None:
    """B05: from the command line to a webhook and back."""
    running = listen("--secret", SECRET, "-n", "1")
    cli.client.create_configuration(tocsin.webhook("ops", f"{running.url}hook", SECRET, [tocsin.selector("a.*")]))
    cli.client.append("a.b", id="e1", message="hi\x1b[2J")
    out, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0
    head, *body = out.splitlines()
    delivery = cli.client.wait_for_delivery(event_id="e1")
    assert head.split()[1:] == [delivery.id, "204", "a.b"]
    assert delivery.state == pb.DELIVERY_STATE_DELIVERED
    data = yaml.safe_load("\n".join(body))["data"]
    assert (data["id"], data["message"]) == ("e1", "hi\\x1b[2J")


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ("{}", {}, "it has no webhook-id, webhook-timestamp, webhook-signature"),
        ("{}", signed("{}", tocsin.new_webhook_secret()), "its signature is of another secret, or its content was"),
        ("{ }", signed("{}"), "its signature is of another secret, or its content was"),
        ("{}", {**signed("{}"), "webhook-timestamp": "1000000000"}, "it is old: sent"),
    ],
)
def test_what_cannot_be_trusted_is_said_loudly_and_not_handed_on(
    listen: Any, body: str, headers: dict[str, str], said: str
) -> None:
    """Also to who wants no status lines; it is answered 401 and does not count."""
    with answering() as target:
        running = listen("--secret", SECRET, "--forward", target.url, "-n", "1", "-o", "id")
        status, _, text = post(f"{running.url}x", body, headers)
        assert (status, text.startswith("not verified: ")) == (401, True)
        line = running.hear()
        assert line.startswith(f"tocsin: NOT VERIFIED, answered 401: POST /x ({len(body)} bytes): ")
        assert said in line
        assert post(running.url, "{}", signed("{}", id="right"))[0] == 200
        out, _ = running.process.communicate(timeout=30)
        assert out == "right\n"
        assert target.posts.qsize() == 1


def test_body_and_headers_are_handed_on_and_the_answer_given_back(listen: Any) -> None:
    body = '{"type": "a.b",\n "data": {"n": 1.0}}'
    headers = {**signed(body), "x-own": "kept", "authorization": "Bearer t"}
    with answering(429, b"slow down", Retry_After="7", X_Other="not given back") as target:
        running = listen("--secret", SECRET, "--forward", f"{target.url}in/here?x=1", "-o", "json")
        status, back, text = post(running.url, body, headers)
        assert (status, back["Retry-After"], text, "X-Other" in back) == (429, "7", "slow down", False)
        path, got, posted = target.posts.get(timeout=20)
    assert (path, posted) == ("/in/here?x=1", body.encode())
    assert {name: got[name] for name in headers} == headers
    assert got["host"] == target.url.split("/")[2]
    assert running.process.stdout is not None
    line = json.loads(running.process.stdout.readline())
    assert datetime.fromisoformat(line["time"]).tzinfo == UTC
    assert (line["id"], line["status"], line["path"], line["body"]["data"]) == ("d1", 429, "/", {"n": 1.0})


def test_a_target_that_is_away_is_said_and_answered_502(listen: Any, deaf: str) -> None:
    running = listen("--secret", SECRET, "--forward", deaf, "-n", "1", "-o", "json-raw")
    assert post(running.url, '{"type":\n"a.b"}', signed('{"type":\n"a.b"}'))[0] == 502
    assert running.hear().startswith(f"tocsin: d1 was not handed on to {deaf}, answered 502: ")
    out, _ = running.process.communicate(timeout=30)
    assert out == '{"type": "a.b"}\n'


def test_a_redirect_is_not_followed(listen: Any) -> None:
    with answering() as elsewhere, answering(307, Location=elsewhere.url) as target:
        running = listen("--secret", SECRET, "--forward", target.url, "-n", "1", "-o", "id")
        assert post(running.url, "{}", signed("{}"))[0] == 307
        running.process.communicate(timeout=30)
        assert elsewhere.posts.empty()


def test_either_of_two_secrets_is_right(listen: Any) -> None:
    other = tocsin.new_webhook_secret()
    running = listen("--secret", SECRET, "--secret", other, "-n", "2", "-o", "id")
    assert post(running.url, "{}", signed("{}"))[0] == 204
    assert post(running.url, "no json", signed("no json", other, id="d2"))[0] == 204
    assert running.process.communicate(timeout=30)[0] == "d1\nd2\n"


def test_a_request_without_a_length_is_refused(listen: Any) -> None:
    running = listen("--secret", SECRET)
    host, port = running.url.split("/")[2].split(":")
    for head, status in (("", "411"), ("content-length: 99999999\r\n", "413")):
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            raw.sendall(f"POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode())
            assert raw.recv(4096).split()[1] == status.encode()
        assert f"answered {status}" in running.hear()
    code, _, err = running.end()
    assert (code, "Traceback" in err) == (130, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_receiver_is_created_for_as_long_as_it_runs(cli: Cli, listen: Any, number: int) -> None:
    running = listen("--create", "--preset", "user-errors", "-o", "id")
    (hook,) = cli.client.list_configurations()
    assert (hook.name, hook.webhook.url) == ("tocsin listen", running.url)
    assert [(selector.level, selector.type) for selector in hook.selectors] == [("error", "user.*")]
    cli.client.append("user.x", id="e1", level="error")
    assert running.process.stdout is not None
    id = running.process.stdout.readline().strip()
    assert cli.client.wait_for_delivery(event_id="e1").id == id
    assert running.end(number) == (130, "", f"Deleted receiver {hook.id}\n")
    assert list(cli.client.list_configurations()) == []


def test_what_is_created_is_about_all_events_and_goes_with_the_count(cli: Cli, listen: Any) -> None:
    running = listen("--create", "-n", "1", "-o", "id")
    cli.client.append("any.thing")
    running.process.communicate(timeout=30)
    assert running.process.returncode == 0
    assert list(cli.client.list_configurations()) == []


def test_a_receiver_that_stays_behind_is_named(own: tuple[Any, Cli]) -> None:
    server, cli = own
    running = Listening(cli, "--create", "--timeout", "1")
    (hook,) = cli.client.list_configurations()
    server.kill()
    code, _, err = running.end()
    assert code == 130
    assert f"receiver {hook.id} is still there" in err
    assert f"tocsin endpoint configuration delete {hook.id}" in err


def test_a_terminal_shows_what_fits(cli: Cli) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    terminal = Terminal(cli.environment, "listen", "--port", str(port), "--secret", SECRET, "-n", "1", columns=60)
    terminal.until("Listening on")
    body = json.dumps({"type": "a.b", "data": {"message": "x" * 300}})
    assert post(f"http://127.0.0.1:{port}/", body, signed(body, id="0" * 32))[0] == 204
    assert terminal.end() == 0
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", terminal.shown).splitlines()[1:]
    assert max(map(len, shown)) == 60
    assert any("0" * 32 + "  204  a.b" in line for line in shown)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--secret: is missing"),
        (["--secret", "hush"], "--secret: a secret begins with whsec_"),
        (["--secret", SECRET, "--preset", "all"], "--create: is missing"),
        (["--secret", SECRET, "--forward", "ftp://x"], "--forward: 'ftp://x' is no URL"),
        (["--secret", SECRET, "--forward", "http://x:99999"], "--forward: "),
        (["--secret", SECRET, "--port", "99999"], "--port: give 65535 or less"),
        (["--secret", SECRET, "--host", "203.0.113.1"], "--port: cannot listen on 203.0.113.1:8800"),
        (["--create", "--port", "0", "--preset", "p"], "--preset: 'p' is none of checks"),
    ],
)
def test_a_misuse_names_the_flag(cli: Cli, words: list[str], said: str) -> None:
    found = cli("listen", *words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
