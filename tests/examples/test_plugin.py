"""The alert type of `examples/cpu_usage`: installed as anybody would, loaded by the server, told of by a webhook."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tocsin
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import alerting_pb2 as pb

from examples import cpu_usage
from examples.cpu_usage import __main__ as cpu_alert
from examples.demo.server import Server

PROJECT = Path(cpu_usage.__file__).parent


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose Python has the plug-in, in a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    install += ["--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(PROJECT)]
    subprocess.run(install, check=True, capture_output=True)
    running = Server(folder)
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        running.start()
    yield running
    running.stop()


def test_the_type_is_listed(server: Server) -> None:
    """KR11: in German too."""
    with tocsin.connect(server.address) as client:
        for language, name in (("en", "CPU usage"), ("de-AT, en;q=0.5", "CPU-Auslastung")):
            listed = client.alerting.ListAlertTypes(
                pb.ListAlertTypesRequest(), metadata=(("accept-language", language),)
            )
            assert list(listed.failed) == []
            (one,) = [one for one in listed.alert_types if one.id == "example.cpu-usage"]
            assert (one.name, one.producer) == (name, "tocsin-cpu-usage")


def test_the_pager_tells_of_the_server_that_is_busy(server: Server) -> None:
    """KE19, KI3: one read for all servers, an instance for the one above the threshold."""
    begun = Timestamp()
    begun.GetCurrentTime()
    assert cpu_alert.run(server.address) == "The server server_1 has a CPU usage of 0.92."
    # And a preview of what has been says the same: the plug-in reads the log there too. The first that has
    # a run after the events does: within a second, its interval.
    changes: list[str] = []
    with tocsin.connect(server.address) as client:
        made_up = tocsin.alert("again", "example.cpu-usage", {"threshold": 0.8}, interval="1s")
        for _ in range(20):
            parts = list(client.alerting.PreviewAlert(pb.PreviewAlertRequest(alert=made_up, start_time=begun)))
            assert parts[-1].done.errors == 0
            changes = [change.type for part in parts for change in part.run.transitions]
            if "system.alerting.new_instance" in changes:
                break
    assert "system.alerting.new_instance" in changes


def test_without_the_plug_in_the_example_says_what_is_missing(tmp_path: Path) -> None:
    # Where the plug-in is installed, this one of the same name comes before it and has no types.
    hiding = tmp_path / "hiding" / "tocsin_cpu_usage-0.dist-info"
    hiding.mkdir(parents=True)
    (hiding / "METADATA").write_text("Metadata-Version: 2.1\nName: tocsin-cpu-usage\nVersion: 0\n", encoding="utf-8")
    bare = Server(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(hiding.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        bare.start()
    try:
        run = [sys.executable, "-m", "examples.cpu_usage", "--server", bare.address]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
    finally:
        bare.stop()
    assert done.returncode == 1
    assert 'Alert type "example.cpu-usage" is not registered.' in done.stderr
