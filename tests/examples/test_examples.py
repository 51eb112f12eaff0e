"""Every example runs against the real server, and the demo keeps its promises and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import tocsin

from examples import alert_on_failures, append_and_follow, notify_on_failure, share_work
from examples.demo.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.stop()


def test_append_and_follow(server: Server) -> None:
    positions = append_and_follow.run(server.address)
    assert len(positions) == len(append_and_follow.FEEDS)
    assert positions == sorted(positions)


def test_notify_on_failure(server: Server) -> None:
    post = notify_on_failure.run(server.address)
    assert (post.body["type"], post.body["data"]["level"]) == ("tag.check.failed", "ERROR")


def test_alert_on_failures(server: Server) -> None:
    warning, recovery = alert_on_failures.run(server.address)
    assert warning == f"{alert_on_failures.RESOURCE} failed 3 times"
    assert recovery.endswith(" is well again")


EXAMPLES = ["append_and_follow", "notify_on_failure", "alert_on_failures", "share_work"]


def test_share_work(server: Server) -> None:
    handled, reason = share_work.run(server.address)
    assert handled == set(share_work.IMAGES) - {share_work.BROKEN}
    assert reason == "not an image"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_starts_as_a_command(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}", "--help"], capture_output=True, text=True, check=True
    )
    assert "--server HOST:PORT" in done.stdout


def test_an_example_without_a_server_says_so_in_one_line() -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"examples.{name}", "--server", "127.0.0.1:1"], stderr=subprocess.PIPE, text=True
        )
        for name in EXAMPLES
    ]
    for running in started:  # together: each waits out the client's deadline
        _, told = running.communicate(timeout=60)
        assert running.returncode == 1
        assert told.startswith("no server answers at 127.0.0.1:1 (`make run` starts one): ")
        assert told.count("\n") == 1


def demo(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"},
    )


def is_gone(address: str) -> bool:
    try:
        with tocsin.connect(address, timeout_s=1) as client:
            client.info()
    except tocsin.TocsinError as error:
        return error.code is grpc.StatusCode.UNAVAILABLE
    return False


def address_in(output: str) -> str:
    (address,) = re.findall(r"listens on (\S+)", output)
    return str(address)


def test_the_demo_keeps_every_promise(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        output, _ = running.communicate(timeout=90)
    assert running.returncode == 0, output
    assert "every promise was kept" in output
    assert is_gone(address_in(output))
    assert list(tmp_path.iterdir()) == []


def _interrupt(running: subprocess.Popen[str], number: signal.Signals) -> None:
    if number is signal.SIGINT:
        os.killpg(running.pid, number)  # as Ctrl-C on a terminal: the server gets it too
    else:
        running.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path) as running:
        assert running.stdout is not None
        output = ""
        for line in running.stdout:
            output += line
            if "append" in line:
                _interrupt(running, number)
                break
        rest, _ = running.communicate(timeout=30)
    assert running.returncode == 130, output + rest
    assert is_gone(address_in(output))
    assert list(tmp_path.iterdir()) == []
