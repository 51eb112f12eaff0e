"""Starting: what is refused, what is said, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin_server.app import App
from tocsin_server.config import ConfigError, load
from tocsin_server.store.database import StoreError, open_store

from tests.service.test_notifications import created, webhook
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Refusal, refused, serving


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command and wait for its end."""
    return subprocess.run(
        [sys.executable, "-m", "tocsin_server", *arguments],
        capture_output=True, text=True, check=False, timeout=60, env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip


async def test_health_is_not_serving_and_calls_are_unavailable_until_the_store_is_open(tmp_path: Path) -> None:
    """XF18: readiness before migrations."""
    open_store(f"sqlite:///{tmp_path / 'tocsin.db'}", lambda: "0" * 32).close()
    blocker = sqlite3.connect(tmp_path / "tocsin.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")  # as a long migration would
    app = App(load(environment={}, flags={"server.port": 0, "store.data": str(tmp_path)}))
    starting = asyncio.create_task(app.start())
    await app.bound.wait()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="tocsin.v1.EventLog"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        refusal: Refusal = await refused(EventLogStub(channel).GetEvent(log_pb.GetEventRequest(id="x")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STARTING")
        blocker.execute("ROLLBACK")
        blocker.close()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        await starting
    await app.stop()


def test_a_store_of_before_has_what_came_later_once_it_is_opened(tmp_path: Path) -> None:
    """A migration that stores have had is not changed: what it lacks comes with one of its own."""
    url, column = f"sqlite:///{tmp_path / 'tocsin.db'}", "untold_change"
    open_store(url, lambda: "0" * 32).close()
    before = sqlite3.connect(tmp_path / "tocsin.db")
    before.execute(f"ALTER TABLE alert_instances DROP COLUMN {column}")
    before.execute("DELETE FROM schema_migration WHERE name = '0011_untold_changes'")
    before.commit()
    before.close()
    open_store(url, lambda: "0" * 32).close()
    after = sqlite3.connect(tmp_path / "tocsin.db")
    assert column in [row[1] for row in after.execute("PRAGMA table_info(alert_instances)")]
    after.close()


async def test_a_taken_port_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path / "one") as api:
        done = await asyncio.to_thread(
            run, "serve", "--dev", "--port", str(api.app.port), "--data", str(tmp_path / "two")
        )
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--listen", "192.0.2.1"], 2, "listens on this machine only"),
        (["--listen", "0.0.0.0"], 2, "listens on this machine only"),
        (["--port", "99999"], 2, "server.port = 99999 is outside 0 to 65535"),
        (["--port", "-1"], 2, "outside 0 to 65535"),
        (["--data", "/proc/nope"], 1, "the store /proc/nope/tocsin.db cannot be opened"),
        (["--store", "mysql://x"], 1, "is not supported: give sqlite:///PATH"),
        (["--log-level", "loud"], 2, "log.level = 'loud' is not one of"),
    ],
)
def test_ordinary_mistakes_get_one_plain_line(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    done = run("serve", "--dev", "--port", "0", "--data", str(tmp_path), *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_misspelt_variable_is_named() -> None:
    done = run("config", "show", TOCSIN_SERVER_PROT="1")
    assert done.returncode == 2
    assert "TOCSIN_SERVER_PROT: there is no such setting" in done.stderr


async def test_networks_that_the_operator_allows_are_kept_beside_those_of_dev(tmp_path: Path) -> None:
    shown = await asyncio.to_thread(run, "config", "show", "--dev", TOCSIN_EGRESS_ALLOW="10.0.0.0/8")
    assert '["10.0.0.0/8", "127.0.0.0/8", "::1/128"]' in shown.stdout
    with pytest.raises(ConfigError, match=r"egress\.allow"):
        await App(load(environment={}, flags={"store.data": str(tmp_path), "egress.allow": ["nope"]})).start()


async def test_a_store_without_its_key_is_refused_and_none_is_made(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XD30: the key is lost or another one."""
    async with serving(tmp_path) as api:
        await created(api, webhook(hook.url))
    key = tmp_path / "tocsin.key"
    right = key.read_bytes()
    key.unlink()
    settings = load(environment={}, flags={"server.port": 0, "store.data": str(tmp_path)})
    with pytest.raises(StoreError, match="is missing: put it back"):
        await App(settings).start()
    assert not key.exists()
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    with pytest.raises(StoreError, match="is not that of the store"):
        await App(settings).start()
    key.write_bytes(right)
    async with serving(tmp_path) as api:
        await api.append()
        await hook.until(1)


async def test_a_configuration_that_cannot_be_decrypted_holds_up_nobody_else(
    tmp_path: Path, hook: WebhookReceiver
) -> None:
    async with serving(tmp_path) as api:
        broken = await created(api, webhook(hook.url, name="broken"))
        await created(api, webhook(hook.url, name="good"))
    with sqlite3.connect(tmp_path / "tocsin.db") as connection:
        connection.execute(
            "UPDATE endpoint_configurations SET connection = replace(connection, 'v1:', 'v1:AAAA') WHERE id = ?",
            (broken.id,),
        )
    connection.close()
    async with serving(tmp_path) as api:
        await api.append()
        (posted,) = await hook.until(1)
        posted.verified()
        # Its owner sees it, and can write the secret anew.
        read = await api.notifications.GetEndpointConfiguration(pb.GetEndpointConfigurationRequest(id=broken.id))
        assert read.configuration.webhook.secret == ""
        again = pb.UpdateEndpointConfigurationRequest(configuration=webhook(hook.url, name="repaired"))
        again.configuration.id = broken.id
        await api.notifications.UpdateEndpointConfiguration(again)
        await api.append()
        await hook.until(3)


async def test_a_damaged_event_is_passed_over_by_routing(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XA11, XD27: one bad row blocks nobody."""
    async with serving(tmp_path) as api:
        await api.append("damaged", message="before")
        # The newest thousand are read at start: a store with a damaged one among them is refused.
        await api.events.AppendEvents(log_pb.AppendEventsRequest(events=[log_pb.Event(type="later")] * 1000))
    with sqlite3.connect(tmp_path / "tocsin.db") as connection:
        (body,) = connection.execute("SELECT body FROM events WHERE position = 1").fetchone()
        connection.execute("UPDATE events SET body = ? WHERE position = 1", (body.replace(b"before", b"beware"),))
    connection.close()
    async with serving(tmp_path) as api:
        await created(api, webhook(hook.url))
        with sqlite3.connect(tmp_path / "tocsin.db") as connection:
            # As after a crash: the router looks at the damaged event again.
            connection.execute("UPDATE cursors SET position = 0 WHERE name = 'router'")
        connection.close()
    async with serving(tmp_path) as api:
        event = await api.append("whole")
        (posted,) = await hook.until(1)
        assert posted.verified()["data"]["id"] == event.id
        await api.events.DeleteEvent(log_pb.DeleteEventRequest(id=event.id))


def test_files_of_a_server_are_the_owners_only(tmp_path: Path) -> None:
    command = ["-m", "tocsin_server", "serve", "--dev", "--port", "0", "--data", str(tmp_path / "d")]
    server = subprocess.Popen(
        [sys.executable, *command],
        umask=0, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    assert "listens on" in server.stdout.readline()
    modes = {path.name: path.stat().st_mode & 0o077 for path in [tmp_path / "d", *(tmp_path / "d").iterdir()]}
    server.terminate()
    server.communicate()
    assert set(modes.values()) == {0}, modes
