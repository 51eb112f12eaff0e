"""The metrics, read over HTTP from a whole server and with the parser of Prometheus' own library."""

from __future__ import annotations

import asyncio
import math
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from tocsin.v1 import alerting_pb2 as alerting_pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.api import server
from tocsin_server.config import ConfigError
from tocsin_server.dispatch.dispatcher import Dispatcher
from tocsin_server.domain.lane import WINDOW_MAX
from tocsin_server.endpoints import discover
from tocsin_server.metrics import Metrics
from tocsin_server.runtime import system_runtime
from tocsin_server.store.writer import Transaction

from tests.service.test_deliveries import statistics
from tests.service.test_notifications import created, settled, webhook
from tests.service.test_silences import silenced
from tests.support import alerts
from tests.support.dispatch_house import DispatchHouse
from tests.support.processes import ServerProcess
from tests.support.receivers import Posted, WebhookReceiver
from tests.support.servers import Api, Subscriber, refused, serving

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ENDS = ("delivered", "exhausted", "cancelled", "silenced", "open")


@asynccontextmanager
async def measured(data: Path, **settings: Any) -> AsyncIterator[Api]:
    given = {"server__metrics__enabled": True, "server__metrics__port": 0}
    async with serving(data, **given | settings) as api:
        yield api


def url_of(api: Api) -> str:
    return f"http://127.0.0.1:{api.app.metrics_port}/metrics"


async def families(api: Api) -> list[Metric]:
    async with httpx.AsyncClient(verify=False) as client:
        answer = await client.get(url_of(api))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return list(text_string_to_metric_families(answer.text))


async def scraped(api: Api) -> dict[tuple[str, ...], float]:
    """Read the metrics by name and values of labels, in the order of the labels; the sums of promise P3 hold."""
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in await families(api)
        for sample in family.samples
    }
    routed = found["tocsin_deliveries_routed_total",]
    assert routed == sum(found["tocsin_deliveries", state] for state in ENDS)
    assert found["tocsin_deliveries_unaccounted",] == 0
    return found


async def test_every_routed_delivery_is_in_one_state(tmp_path: Path, hook: WebhookReceiver) -> None:
    """P3: delivered, refused for good and silenced ones, as GetDeliveryStatistics has them."""
    hook.answer = lambda posted: 410 if posted.verified()["data"]["type"] == "user.bad" else 200
    async with measured(tmp_path) as api:
        before = await scraped(api)
        assert [before["tocsin_deliveries", state] for state in ENDS] == [0, 0, 0, 0, 0]
        await created(api, webhook(hook.url, pb.Selector(scope="account", level="*", type="user.*", resource_type="*")))
        await silenced(api, filter=log_pb.EventFilter(types=["user.quiet"]))
        for event_type in ("user.fine", "user.fine", "user.quiet"):
            await api.append(event_type)
        await hook.until(2)
        await api.append("user.bad")
        await settled(api)
        found = await scraped(api)
        sums = await statistics(api)
        assert [found["tocsin_deliveries", state] for state in ENDS] == [
            sums.delivered, sums.exhausted, sums.cancelled, sums.silenced, sums.open,
        ]  # fmt: skip
        assert (sums.silenced, sums.delivered) == (1, 2)
        assert sums.exhausted + sums.cancelled == 1
        assert found["tocsin_delivery_attempts_total", "webhook", "DELIVERED"] == 2
        assert found["tocsin_delivery_attempts_total", "webhook", "GONE"] == 1
        assert found["tocsin_log_head_position",] >= 4
        assert found["tocsin_router_lag_events",] == 0
        assert found["tocsin_store_wal_bytes",] > 0
    async with measured(tmp_path) as api:
        after = await scraped(api)
        assert after["tocsin_deliveries_routed_total",] == found["tocsin_deliveries_routed_total",]
        assert ("tocsin_delivery_attempts_total", "webhook", "DELIVERED") not in after


async def test_a_line_has_a_length_and_an_end(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XD32: nothing moves: no end; something moves: an end; all is told: none waits."""
    may_answer = asyncio.Semaphore(0)

    async def answer(posted: Posted) -> int:
        await may_answer.acquire()
        return 200

    hook.answer = answer
    count = 2 * WINDOW_MAX
    async with measured(tmp_path) as api:
        await created(api, webhook(hook.url))
        for _ in range(count):
            await api.append("t")
        await hook.until(1)
        held = await scraped(api)
        assert held["tocsin_deliveries_waiting",] >= held["tocsin_deliveries_due",] > 0
        assert held["tocsin_deliveries_eta_seconds",] == math.inf
        may_answer.release()
        async with asyncio.timeout(20):
            while (moving := await scraped(api))["tocsin_deliveries_due",] == held["tocsin_deliveries_due",]:
                pass
        assert 0 < moving["tocsin_deliveries_due",] < held["tocsin_deliveries_due",]
        assert 0 < moving["tocsin_deliveries_eta_seconds",] < math.inf
        for _ in range(count):
            may_answer.release()
        await settled(api)
        done = await scraped(api)
        assert done["tocsin_deliveries_due",] == done["tocsin_deliveries_waiting",] == 0
        assert done["tocsin_deliveries_eta_seconds",] == 0
        assert done["tocsin_deliveries", "delivered"] == count


async def test_calls_are_counted_by_how_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = "tocsin.v1.EventLog."
    async with measured(tmp_path) as api:
        await api.append("t")
        await api.events.AppendEvents(log_pb.AppendEventsRequest(events=[log_pb.Event(type="t")]))
        assert (await refused(api.events.GetEvent(log_pb.GetEventRequest(id="0" * 32)))).reason == "NOT_FOUND"
        subscriber = Subscriber(api)
        await subscriber.until(step="started")
        found = await scraped(api)
        assert found["tocsin_grpc_server_open_streams",] == 1
        monkeypatch.setattr(server, "STREAMS_MAX", 1)
        assert (await refused(api.events.Subscribe(log_pb.SubscribeRequest()))).reason == "TOO_MANY_STREAMS"
        await subscriber.close()
        async with asyncio.timeout(20):
            while (found := await scraped(api))["tocsin_grpc_server_open_streams",]:
                pass
        handled = "tocsin_grpc_server_handled_total"
        assert found[handled, "OK", method + "AppendEvent"] == 1
        assert found[handled, "OK", method + "AppendEvents"] == 1
        assert found[handled, "NOT_FOUND", method + "GetEvent"] == 1
        assert found[handled, "CANCELLED", method + "Subscribe"] == 1
        assert found[handled, "RESOURCE_EXHAUSTED", method + "Subscribe"] == 1
        durations = "tocsin_grpc_server_handling_seconds"
        assert found[durations + "_count", method + "GetEvent"] == 1
        assert found[durations + "_bucket", "60.0", method + "AppendEvent"] == 1
        assert 0 < found[durations + "_sum", method + "AppendEvent"] < 60
        assert (durations + "_count", method + "Subscribe") not in found


async def test_a_loop_that_is_held_up_is_seen(tmp_path: Path) -> None:
    """XF16: each beat of the loop is counted by how late it was."""
    async with measured(tmp_path) as api:
        api.app._pulse.saw(0.0, 0.7, 0.0)
        found = await scraped(api)
        lag = "tocsin_event_loop_lag_seconds"
        assert found[lag + "_count",] - found[lag + "_bucket", "0.5"] >= 1
        assert found[lag + "_sum",] >= 0.7


async def test_the_log_beside_the_file_has_a_length(tmp_path: Path) -> None:
    """XA10: as the file system has it."""
    async with measured(tmp_path) as api:
        await api.append("t", message="m" * 4000)
        size = (tmp_path / "tocsin.db-wal").stat().st_size
        assert (await scraped(api))["tocsin_store_wal_bytes",] >= size > 4000


async def test_runs_of_alerts_are_counted_by_status(tmp_path: Path) -> None:
    async with measured(tmp_path) as api:
        first = await scraped(api)
        assert first["tocsin_alert_run_delay_seconds_count",] == 0
        alert = await alerts.create(api, alerts.alert())
        for count in (1, 2):
            await api.alerting.RunAlert(alerting_pb.RunAlertRequest(id=alert.id))
            async with asyncio.timeout(20):
                while (found := await scraped(api)).get(("tocsin_alert_runs_total", "ok"), 0) < count:
                    pass
        assert found["tocsin_alert_run_delay_seconds_count",] == found["tocsin_alert_runs_total", "ok"]


async def test_what_waits_for_router_and_writer_is_counted(tmp_path: Path) -> None:
    house = DispatchHouse(tmp_path / "tocsin.db")
    dispatcher = Dispatcher(house.outbox, house.runtime, discover(house.door), house.door.close, 30.0)
    await house.configure("http://127.0.0.1:9/")
    await house.append("other.a", "other.b", "other.c")
    assert dispatcher.behind == house.tail.head >= 3
    await dispatcher.start()
    await house.reads.routed(house.tail.head)
    assert dispatcher.behind == 0
    await dispatcher.stop()

    begun, release = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> None:
        begun.set()
        assert release.wait(20)

    holding = asyncio.create_task(house.writer.run(hold))
    await asyncio.to_thread(begun.wait, 20)
    assert house.writer.waiting == (0, 0)
    appends = [asyncio.create_task(house.append("other.d")), asyncio.create_task(house.append("other.d"))]
    await asyncio.sleep(0)
    units, size = house.writer.waiting
    assert (units, size > 0) == (2, True)
    release.set()
    await asyncio.gather(holding, *appends)
    assert house.writer.waiting == (0, 0)
    await house.close()


async def test_no_label_has_a_value_of_a_user(tmp_path: Path, hook: WebhookReceiver) -> None:
    """XF8: no account, id, address or secret; and no more series than the contract has methods."""
    known = re.compile(r"tocsin\.v1\.\w+\.\w+|[A-Z_]+|[a-z]+|[0-9.]+|\+Inf")
    async with measured(tmp_path) as api:
        await created(api, webhook(hook.url))
        before = {key for key in await scraped(api) if key[0] == "tocsin_deliveries"}
        for account in ("acme-corp", "hooli-inc"):
            await api.append("t", metadata=(("x-tocsin-account", account), ("x-request-id", f"r-{account}")))
        await api.append("t")
        await settled(api)
        found = await families(api)
        values = {value for family in found for sample in family.samples for value in sample.labels.values()}
        assert [value for value in values if not known.fullmatch(value)] == []
        assert {key for key in await scraped(api) if key[0] == "tocsin_deliveries"} == before


async def test_every_metric_is_documented(tmp_path: Path) -> None:
    """docs/metrics.md names each with its type, its labels and its meaning."""
    rows = re.findall(r"^\| `(tocsin_\w+)` \| (\w+) \| (.*) \| (.*) \|$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    async with measured(tmp_path) as api:
        await created(api, webhook("http://127.0.0.1:9/"))
        await api.append("t")
        found = [
            (family.name + "_total" * (family.type == "counter"), family.type, family.documentation)
            for family in await families(api)
        ]
        labels = {
            sample.name.removesuffix("_count"): ", ".join(f"`{label}`" for label in sample.labels)
            for family in await families(api)
            for sample in family.samples
        }
    assert [(name, kind, text) for name, kind, _, text in rows] == found
    documented = {name: names for name, _, names, _ in rows}
    assert {name: labels[name] for name in documented if name in labels} == {
        name: names for name, names in documented.items() if name in labels
    }


async def test_many_that_ask_are_answered_and_other_paths_are_not(tmp_path: Path) -> None:
    async with measured(tmp_path) as api:
        async with httpx.AsyncClient(verify=False) as client:
            answers = await asyncio.gather(*(client.get(url_of(api)) for _ in range(50)))
            assert {answer.status_code for answer in answers} == {200}
            assert (await client.get(url_of(api) + "/more")).status_code == 404
            assert (await client.post(url_of(api))).status_code == 405
            assert answers[0].headers["server"] == "tocsin"
        url = url_of(api)
    async with httpx.AsyncClient(verify=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_taken_port_is_refused_and_said_plainly(tmp_path: Path) -> None:
    """One line that names the setting; nothing is left behind, and no store is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^server.metrics.port: cannot listen on 127.0.0.1:{port}: Address"):
            async with measured(tmp_path / "one", server__metrics__port=port):
                pass
        assert not (tmp_path / "one").exists()
        command = [sys.executable, "-m", "tocsin_server", "serve", "--dev", "--port", "0", "--data", str(tmp_path)]
        more = {"TOCSIN_SERVER_METRICS_ENABLED": "true", "TOCSIN_SERVER_METRICS_PORT": str(port)}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | more, timeout=30)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"tocsin-server: server.metrics.port: cannot listen on 127.0.0.1:{port}: Address")
    assert ended.stderr.count("\n") == 1


async def test_before_the_store_is_open_there_are_none() -> None:
    metrics = Metrics(system_runtime())
    port = await metrics.bind("127.0.0.1", 0)
    async with httpx.AsyncClient(verify=False) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    assert (answer.status_code, answer.text) == (503, "the server opens its store; try again\n")
    await metrics.stop()
    await metrics.stop()


async def test_a_server_shows_no_metrics_unless_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by default, and then the libraries are not even loaded; on, the server says where."""
    async with serving(tmp_path / "off") as api:
        assert api.app.metrics_port == 0
    code = "import sys, tocsin_server.__main__; print({'prometheus_client', 'aiohttp.web'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    monkeypatch.setenv("TOCSIN_SERVER_METRICS_ENABLED", "true")
    monkeypatch.setenv("TOCSIN_SERVER_METRICS_PORT", "0")
    process = ServerProcess(tmp_path / "on")
    await process.start()
    try:
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+/metrics", "".join(process.banner))
        async with httpx.AsyncClient(verify=False) as client:
            assert "tocsin_log_head_position 0.0" in (await client.get(url)).text
        assert await process.stop() == (0, "")
    finally:
        await process.clear()
