"""Deliveries: how fast, how late, and how little dead receivers cost the others."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub
from tocsin_server.domain.variables import event_data
from tocsin_server.store import wire

from bench.events import sample_event
from bench.posting import SECRET, Poster
from bench.results import Figure, figure, ratio
from bench.server import ServerProcess
from bench.sink import Sink

SLOW_MODULE = "bench.slow_commits"
ROUNDS = 5
BURST = 2000  # events of one round of throughput
EVENTS = 600
RATE = 200.0  # events per second, open loop
IN_FLIGHT = 64
WARM = 100  # events before the measurement: the first one brings the libraries in
BATCH = 1000
CONFIGURATIONS = 1000  # every second of them dead
BACKLOG_EACH = 10  # deliveries that wait for each of the dead when the measurement begins
DEAD_FOR_S = 40.0  # until the measurement begins: what is asked of those that have just died is over
BACKLOG = 100_000
BACKLOG_ROUNDS = 15  # a seventh more or less in one round is chance on a shared machine, and a twentieth is asked for
NOWHERE = "http://127.0.0.1:9/"
DELAYED_COMMIT_S = 0.002


def selector(event_type: str) -> pb.Selector:
    """Choose by type."""
    return pb.Selector(scope="account", level="*", type=event_type, resource_type="*")


class Server:
    """Calls of one server."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._log: Any = EventLogStub(self._channel)
        self._notifications: Any = NotificationsStub(self._channel)

    def configure(self, url: str, event_type: str) -> None:
        """Create a webhook configuration."""
        connection = pb.WebhookConnection(url=url, secret=SECRET)
        wanted = pb.EndpointConfiguration(name="bench", webhook=connection, selectors=[selector(event_type)])
        self._notifications.CreateEndpointConfiguration(pb.CreateEndpointConfigurationRequest(configuration=wanted))

    def append(self, types: Sequence[str]) -> None:
        """Append events of these types, in batches."""
        for first in range(0, len(types), BATCH):
            events = []
            for event_type in types[first : first + BATCH]:
                event = sample_event()
                event.type = event_type
                events.append(event)
            self._log.AppendEvents(log_pb.AppendEventsRequest(events=events))

    def routed(self, count: int) -> None:
        """Wait until so many deliveries have been made."""
        end = time.monotonic() + 300
        while self._notifications.GetDeliveryStatistics(pb.GetDeliveryStatisticsRequest()).routed < count:
            if time.monotonic() > end:
                raise RuntimeError("the deliveries were not routed")
            time.sleep(0.1)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def webhook_body() -> str:
    """Give the body that the server posts for the sample event."""
    event = sample_event()
    event.id, event.account = "e-1", "admin"
    framed = log_pb.GetEventResponse(event=event).SerializeToString()
    payload = {"type": event.type, "timestamp": "2026-01-02T03:04:05.000000Z", "data": event_data(wire.decode(framed))}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def throughput(folder: Path) -> list[Figure]:
    """Measure a burst to one receiver against the same signed POSTs in a bare loop."""
    body, piped, bare, cpu = webhook_body(), [], [], []
    with ServerProcess(folder) as server, Sink() as sink, Poster() as poster:
        calls = Server(server.address)
        calls.configure(sink.url, "user.*")
        calls.append(["user.warm"] * BURST)
        sink.count(BURST)
        for _ in range(ROUNDS):
            sink.clear()
            before = server.cpu_s()
            calls.append(["user.burst"] * BURST)
            found = sink.count(BURST)
            piped.append((BURST - 1) / (found["last"] - found["first"]))
            cpu.append((server.cpu_s() - before) / BURST * 1e6)
            bare.append(poster.rate(sink.url, body, BURST, IN_FLIGHT))
        calls.close()
    return [
        figure("webhooks delivered, one receiver", statistics.median(piped), "1/s"),
        ratio("webhooks / bare POSTs, 64 in flight", piped, bare, 0.50, cpu_us=statistics.median(cpu)),
    ]


def latency(folder: Path) -> list[Figure]:
    """Measure how late an event comes, with one receiver, and with slow commits."""
    rows: list[Figure] = []
    with Sink() as sink, Poster() as poster:
        post_s = poster.median_s(sink.url, webhook_body(), EVENTS, RATE)
        commit_s = commit_median_s(folder)
        with ServerProcess(folder / "quick") as server:
            Server(server.address).configure(sink.url, "user.*")
            rows += _late("append to webhook", server, sink, ["user.t"], post_s + commit_s, 1.25)
        with ServerProcess(folder / "slow", SLOW_MODULE) as server:
            Server(server.address).configure(sink.url, "user.*")
            floor_s = post_s + commit_s + DELAYED_COMMIT_S
            rows += _late("append to webhook, commits 2 ms slower", server, sink, ["user.t"], floor_s, 1.25)
    return rows


def beside_dead(folder: Path) -> list[Figure]:
    """Measure how late an event comes with a thousand configurations, of which every second is dead."""
    with Sink() as sink, Poster() as poster:
        post_s = poster.median_s(sink.url, webhook_body(), EVENTS, RATE)
        commit_s = commit_median_s(folder)
        with ServerProcess(folder / "dead") as server:
            dead = _half_dead(server.address, sink.url)
            types = [f"user.c{number}" for number in range(CONFIGURATIONS)]
            name = f"append to webhook, {dead} of {CONFIGURATIONS} dead"
            return list(_late(name, server, sink, types, post_s + commit_s, 1.5))


def _half_dead(address: str, url: str) -> int:
    """Configure many receivers, every second of them dead with deliveries that wait; give how many are."""
    calls = Server(address)
    for number in range(CONFIGURATIONS):
        calls.configure(NOWHERE if number % 2 else url, f"user.c{number}")
    dead = range(1, CONFIGURATIONS, 2)
    calls.append([f"user.c{number}" for number in dead] * BACKLOG_EACH)
    calls.routed(len(dead) * BACKLOG_EACH)
    calls.close()
    time.sleep(DEAD_FOR_S)
    return len(dead)


def _late(
    name: str, server: ServerProcess, sink: Sink, types: Sequence[str], floor_s: float, target: float
) -> list[Figure]:
    """Append at a steady rate; compare the arrivals with the acknowledgements, one commit and one POST."""
    sink.clear()
    Server(server.address).append([types[0]] * WARM)
    sink.count(WARM)
    sink.clear()
    before = server.cpu_s()
    sent, acknowledged = asyncio.run(_paced(server.address, types))
    expected = [f"e-{n}" for n in range(EVENTS) if len(types) == 1 or n % 2 == 0]
    arrivals = sink.count(len(expected))["arrivals"]
    cpu_us = (server.cpu_s() - before) / EVENTS * 1e6
    late = statistics.median(arrivals[n] - sent[n] for n in expected)
    ack = statistics.median(acknowledged)
    return [
        figure(f"{name}, median, 200/s", late * 1e3, "ms", cpu_us=cpu_us),
        figure(f"{name} / acknowledged + commit + POST", late / (ack + floor_s), "ratio", target, "lower"),
    ]


async def _paced(address: str, types: Sequence[str]) -> tuple[dict[str, float], list[float]]:
    """Append at a steady rate whatever the answers take."""
    sent: dict[str, float] = {}
    acknowledged: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = EventLogStub(channel)

        async def one(number: int) -> None:
            event = sample_event()
            event.id, event.type = f"e-{number}", types[number % len(types)]
            sent[event.id] = began = time.perf_counter()
            await stub.AppendEvent(log_pb.AppendEventRequest(event=event))
            acknowledged.append(time.perf_counter() - began)

        tasks = []
        start = time.perf_counter()
        for number in range(EVENTS):
            await asyncio.sleep(max(0.0, start + number / RATE - time.perf_counter()))
            tasks.append(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)
    return sent, acknowledged


def commit_median_s(folder: Path) -> float:
    """Measure a synchronous commit of one row on the same disk, at the same pace."""
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / "commit.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (body)")
    took = []
    for _ in range(200):
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES (?)", ("x" * 700,))
        connection.execute("COMMIT")
        took.append(time.perf_counter() - began)
        time.sleep(0.002)
    connection.close()
    return statistics.median(took)


def backlog(folder: Path) -> list[Figure]:
    """Measure what a dead receiver with a long line costs another one, beside a server without that line."""
    with_line: list[float] = []
    without: list[float] = []
    cpu: list[float] = []
    with ServerProcess(folder / "line") as one, ServerProcess(folder / "none") as other, Sink() as sink:
        sides = [(one, Server(one.address), with_line), (other, Server(other.address), without)]
        for _, calls, _ in sides:
            calls.configure(sink.url, "user.*")
        sides[0][1].configure(NOWHERE, "dead.*")
        for _, calls, _ in sides:
            calls.append(["dead.t"] * BACKLOG)
        sides[0][1].routed(BACKLOG)
        for number in range(BACKLOG_ROUNDS + 1):
            for server, calls, rates in sides:
                sink.clear()
                before = server.cpu_s()
                calls.append(["user.burst"] * BURST)
                found = sink.count(BURST)
                if number:  # the first round warms up
                    rates.append((BURST - 1) / (found["last"] - found["first"]))
                    cpu.append((server.cpu_s() - before) / BURST * 1e6)
        for _, calls, _ in sides:
            calls.close()
    lost = [1 - one / other for one, other in zip(with_line, without, strict=True)]
    name = f"lost by others when {BACKLOG:,} wait for a dead receiver"
    return [figure(name, statistics.median(lost), "share", 0.05, "lower", statistics.median(cpu))]
