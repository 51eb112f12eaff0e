"""Around the services: info, health, reflection, faults, configuration, one server per store and port."""

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
from grpc_reflection.v1alpha import reflection_pb2
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1 import system_pb2
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin_server.app import App
from tocsin_server.config import ConfigError, load
from tocsin_server.store.database import StoreError, open_store

from tests.support.processes import ServerProcess
from tests.support.servers import Api, refused, serving

SERVICES = ["tocsin.v1.EventLog", "tocsin.v1.Notifications", "tocsin.v1.Alerting", "tocsin.v1.System"]


async def test_info_tells_version_log_and_limits(api: Api) -> None:
    info = await api.system.GetInfo(system_pb2.GetInfoRequest())
    assert info.log_id == api.app.log_id
    assert info.store == "sqlite"
    assert info.limits["batch_events"] == 1000


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_is_told_per_service_and_while_draining(tmp_path: Path, service: str) -> None:
    """XF18: readiness."""
    async with serving(tmp_path) as api:
        stub: Any = health_pb2_grpc.HealthStub(api.channel)
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        watch: Any = stub.Watch(request)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(api.app.stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await stopping


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_and_describes_the_services(api: Api, version: str) -> None:
    method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    call: Any = api.channel.stream_stream(
        method,
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def ask(**question: Any) -> Any:
        stream = call(iter([reflection_pb2.ServerReflectionRequest(**question)]))
        return await stream.read()

    listed = await ask(list_services="")
    assert set(SERVICES) <= {service.name for service in listed.list_services_response.service}
    # Whatever is listed can be described, and methods by their names too.
    for symbol in [s.name for s in listed.list_services_response.service] + ["tocsin.v1.EventLog.Subscribe"]:
        described = await ask(file_containing_symbol=symbol)
        assert described.file_descriptor_response.file_descriptor_proto, symbol


async def test_a_fault_of_the_server_tells_an_incident_and_not_its_text(
    api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    """XF8: the text of an exception stays in the log."""
    with sqlite3.connect(api.app.data / "tocsin.db") as connection:
        connection.execute("ALTER TABLE endpoint_configurations RENAME TO gone")
    connection.close()
    refusal = await refused(api.notifications.GetEndpointConfiguration(pb.GetEndpointConfigurationRequest(id="x")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "endpoint_configurations" not in refusal.text
    logged = capfd.readouterr()
    assert refusal.metadata["incident_id"] in logged.out + logged.err


async def test_a_damaged_event_is_data_loss_with_its_position(api: Api) -> None:
    """XA11: a flipped bit in a stored event."""
    event = await api.append("a", message="before")
    with sqlite3.connect(api.app.data / "tocsin.db") as connection:
        (body,) = connection.execute("SELECT body FROM events").fetchone()
        connection.execute("UPDATE events SET body = ?", (body.replace(b"before", b"beware"),))
    connection.close()
    refusal = await refused(api.events.GetEvent(log_pb.GetEventRequest(id=event.id)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "EVENT_CORRUPT")
    assert refusal.metadata["position"] == "1"


async def test_a_second_server_on_the_same_store_is_refused(tmp_path: Path) -> None:
    """XA12."""
    async with serving(tmp_path):
        with pytest.raises(StoreError, match="in use by another server"):
            await App(load(environment={}, flags={"server.port": 0, "store.data": str(tmp_path)})).start()


async def test_a_second_process_on_the_same_store_ends_with_one_line(process: ServerProcess) -> None:
    """XA12: exit code 1 and one line with the file, who has it and what to do; the first one goes on."""
    command = [sys.executable, "-m", "tocsin_server", "serve", "--dev", "--port", "0", "--data", str(process.data)]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    file = process.data / "tocsin.db"
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == (
        f"tocsin-server: {file} is in use by another server (process {process.pid}): stop it or give another --data\n"
    )
    async with grpc.aio.insecure_channel(process.address) as channel:
        answer = await EventLogStub(channel).AppendEvent(log_pb.AppendEventRequest(event=log_pb.Event(type="t")))
    assert answer.event.position == 1


async def test_a_taken_port_is_refused_and_said_plainly(tmp_path: Path) -> None:
    async with serving(tmp_path / "one") as api:
        server = ServerProcess(tmp_path / "two")
        server.address = f"127.0.0.1:{api.app.port}"
        with pytest.raises(AssertionError, match="cannot listen on"):
            await server.start()


async def test_a_server_stops_on_sigterm_with_exit_code_0_and_tells_what_to_try(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    await server.start()
    banner = "".join(server.banner)
    assert server.address in banner
    assert str(tmp_path) in banner
    assert "grpcurl" in banner
    assert await server.stop() == (0, "")


def test_a_store_of_a_newer_server_is_refused(tmp_path: Path) -> None:
    """XA18: an older server on a newer schema."""
    url = f"sqlite:///{tmp_path / 'tocsin.db'}"
    open_store(url, lambda: "0" * 32).close()
    with sqlite3.connect(tmp_path / "tocsin.db") as connection:
        connection.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_future', '2030-01-01')")
    connection.close()
    with pytest.raises(StoreError, match="newer server"):
        open_store(url, lambda: "0" * 32)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tocsin.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreError, match="not a readable SQLite database"):
        open_store(f"sqlite:///{tmp_path / 'tocsin.db'}", lambda: "0" * 32)


def test_settings_come_from_the_first_that_gives_them(tmp_path: Path) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text("[server]\nport = 1\nlisten = '0.0.0.0'\n[egress]\nallow = ['10.0.0.0/8']\n")
    settings = load(file, {"TOCSIN_SERVER_PORT": "2", "TOCSIN_EGRESS_ALLOW": "a, b"}, {"server.port": 3})
    origins = {s.name: (s.value, s.origin) for s in settings.all()}
    assert origins["server.port"] == (3, "flag")
    assert origins["server.listen"] == ("0.0.0.0", str(file))
    assert origins["egress.allow"] == (["a", "b"], "TOCSIN_EGRESS_ALLOW")
    assert origins["log.level"] == ("info", "default")


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        ("[server]\nprot = 1\n", {}, "there is no setting 'server.prot'"),
        ("[server]\nport = 'x'\n", {}, "server.port = 'x' is not a whole number"),
        ("not toml", {}, "is not TOML"),
        ("", {"TOCSIN_NOTIFICATIONS_ENABLED": "perhaps"}, "is not true or false"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    tmp_path: Path, text: str, environment: dict[str, str], says: str
) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load(file, environment)


def test_config_show_prints_every_setting_and_its_origin() -> None:
    command = [sys.executable, "-m", "tocsin_server", "config", "show", "--port", "7"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "server.port" in shown
    assert "# flag" in shown
    assert len(shown.splitlines()) == len(load(environment={}).all())


def test_without_dev_the_server_does_not_start() -> None:
    done = subprocess.run([sys.executable, "-m", "tocsin_server", "serve"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--dev" in done.stderr
