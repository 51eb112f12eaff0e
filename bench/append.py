"""Appending: durable calls as a share of no-op calls, batches as a share of raw SQLite, Ingest as a share of both."""

from __future__ import annotations

import statistics
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from tocsin_server.domain.event_log import Draft, EventHead, Stored
from tocsin_server.store.appending import INSERT_EVENT, INSERT_KEY, event_row
from tocsin_server.store.database import open_store
from tocsin_server.store.wire import created_at_field, frame

from bench.events import append_request, batch_request, sample_event
from bench.load import Client
from bench.results import Figure, figure, ratio
from bench.server import ServerProcess

ROUNDS = 5
SECONDS = 0.6
TARGETS = {1: 0.45, 16: 0.65, 64: 0.78}
BATCH_TARGETS = {100: 0.70, 1000: 0.60}
BATCHES_IN_FLIGHT = {100: 4, 1000: 2}
RAW_EVENTS = {100: 10_000, 1000: 20_000}
SLOW_MODULE = "bench.slow_commits"
WINDOW = 256  # batches that Ingest lets wait for their acknowledgement


class Spent(NamedTuple):
    """What a load brought: operations per second, and server CPU for each in microseconds."""

    rate: float
    cpu_us: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def load(server: ServerProcess, client: Client, method: str, in_flight: int, request: bytes, size: int = 1) -> Spent:
    """Keep unary calls with `size` events each in flight for a round."""
    before = server.cpu_s()
    found = client.unary(server.address, f"/tocsin.v1.{method}", in_flight, request, SECONDS)
    cpu_us = (server.cpu_s() - before) / found["calls"] / size * 1e6
    return Spent(found["rate"] * size, cpu_us, found["p50_ms"], found["p99_ms"])


def ingest(server: ServerProcess, client: Client, size: int, window: int) -> Spent:
    """Keep an Ingest stream full for a round."""
    before = server.cpu_s()
    found = client.ingest(server.address, window, size, SECONDS)
    return Spent(found["rate"] * size, (server.cpu_s() - before) / found["calls"] / size * 1e6)


def noop(server: ServerProcess, client: Client, in_flight: int = 64) -> Spent:
    """Call what does nothing."""
    return load(server, client, "System/GetInfo", in_flight, b"")


def unary(folder: Path) -> list[Figure]:
    """Measure durable unary appends against no-op calls of the same server, in interleaved rounds."""
    figures: list[Figure] = []
    request = append_request()
    with ServerProcess(folder) as server, Client() as client:
        noop(server, client)
        for in_flight, target in TARGETS.items():
            nothing, durable = [], []
            for _ in range(ROUNDS):
                nothing.append(noop(server, client, in_flight))
                durable.append(load(server, client, "EventLog/AppendEvent", in_flight, request))
            spent, rates = cpu(durable), [d.rate for d in durable]
            name = f"{in_flight} in flight"
            figures += [
                ratio(f"append / no-op, {name}", rates, [n.rate for n in nothing], target, cpu_us=spent),
                figure(f"append, {name}", statistics.median(rates), "events/s", cpu_us=spent),
            ]
        tails, middles = [d.p99_ms for d in durable], [d.p50_ms for d in durable]
        figures.append(ratio("append p99 / p50, 64 in flight", tails, middles, 2.0, "lower"))
    return figures


def cpu(loads: list[Spent]) -> float:
    """Give the median of server CPU per operation in microseconds."""
    return statistics.median(found.cpu_us for found in loads)


def rate(loads: list[Spent]) -> float:
    """Give the median of operations per second."""
    return statistics.median(found.rate for found in loads)


def batches(folder: Path) -> list[Figure]:
    """Measure AppendEvents and Ingest against raw executemany into the same tables, as many rows a transaction."""
    figures: list[Figure] = []
    with ServerProcess(folder / "server") as server, Client() as client:
        for size, target in BATCH_TARGETS.items():
            request = batch_request(size)
            raw, unaries, streams = [], [], []
            for number in range(ROUNDS):
                raw.append(raw_rate(folder / f"raw-{size}-{number}", size))
                unaries.append(load(server, client, "EventLog/AppendEvents", BATCHES_IN_FLIGHT[size], request, size))
                if size == 100:
                    streams.append(ingest(server, client, size, 16))
            rates = [one.rate for one in unaries]
            figures.append(ratio(f"AppendEvents({size}) / raw executemany", rates, raw, target, cpu_us=cpu(unaries)))
            figures.append(figure(f"AppendEvents({size})", rate(unaries), "events/s", cpu_us=cpu(unaries)))
            if streams:
                rates = [one.rate for one in streams]
                figures.append(ratio(f"Ingest, {size} a message / raw", rates, raw, 0.80, cpu_us=cpu(streams)))
    return figures


def streams(folder: Path) -> list[Figure]:
    """Measure Ingest of single events, each acknowledged, against unary appends."""
    request = append_request()
    with ServerProcess(folder) as server, Client() as client:
        single, stream = [], []
        for _ in range(ROUNDS):
            single.append(load(server, client, "EventLog/AppendEvent", 64, request))
            stream.append(ingest(server, client, 1, WINDOW))
    rates = [one.rate for one in stream]
    return [
        ratio("Ingest of single events / append, 64", rates, [s.rate for s in single], 3.0, cpu_us=cpu(stream)),
        figure("Ingest of single events", rate(stream), "events/s", cpu_us=cpu(stream)),
    ]


def delayed(folder: Path) -> list[Figure]:
    """Measure how much of the rate stays when each commit takes 2 ms longer."""
    request = append_request()
    quick, slow = [], []
    with (
        ServerProcess(folder / "quick") as server,
        ServerProcess(folder / "slow", SLOW_MODULE) as slow_server,
        Client() as client,
    ):
        for _ in range(ROUNDS):
            quick.append(load(server, client, "EventLog/AppendEvent", 64, request))
            slow.append(load(slow_server, client, "EventLog/AppendEvent", 64, request))
    rates = [one.rate for one in slow]
    return [
        ratio("append with commits 2 ms slower / as is, 64", rates, [q.rate for q in quick], 0.80, cpu_us=cpu(slow))
    ]


def raw_rate(folder: Path, size: int) -> float:
    """Insert the same rows with sqlite3's executemany, so many in a transaction; events per second."""
    folder.mkdir(parents=True)
    store = open_store(f"sqlite:///{folder / 'raw.db'}", lambda: uuid.uuid4().hex)
    store.writer.connect(reuse_if_open=True)
    connection = store.writer.connection()
    transactions = [rows_of(first, size) for first in range(0, RAW_EVENTS[size], size)]
    began = time.perf_counter()
    for rows, keys in transactions:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT_EVENT, rows)
        connection.executemany(INSERT_KEY, keys)
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    store.close()
    return RAW_EVENTS[size] / took


def rows_of(first: int, size: int) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Make the rows of one transaction."""
    event, now = sample_event(), time.time_ns() // 1000
    event.id, event.account = uuid.uuid4().hex, "admin"
    body = event.SerializeToString()
    head = EventHead(
        "admin", event.type, "", 2, event.resource.type, event.resource.id, "admin", event.source.service,
        event.source.host, dict(event.labels), now,
    )  # fmt: skip
    rows: list[tuple[object, ...]] = []
    keys: list[tuple[object, ...]] = []
    for position in range(first + 1, first + size + 1):
        draft = Draft(f"{now // 1000:012x}{uuid.uuid4().hex[:20]}", head, None, body)
        stored = Stored(position, now, draft.id, head, frame(body, position, created_at_field(now)))
        rows.append(event_row(stored))
        keys.append(("admin", draft.id, position, None))
    return rows, keys
