"""Appending: durable calls as a share of no-op calls, batches as a share of raw SQLite."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain.event_log import Draft, EventHead, Stored
from tocsin_server.store.appending import INSERT_EVENT, INSERT_KEY, event_row
from tocsin_server.store.database import open_store
from tocsin_server.store.wire import created_at_field, frame

from bench.results import Figure, figure
from bench.server import ServerProcess

ROUNDS = 5
SECONDS = 1.5
TARGETS = {1: 0.40, 16: 0.60, 64: 0.75}
BATCH = 100
RAW_TRANSACTIONS = 150


def sample_event() -> pb.Event:
    """Make an event of about 700 bytes with a structure in its details."""
    event = pb.Event(
        type="user.image.analysis_failed",
        level=pb.LEVEL_ERROR,
        message="Failed to analyze the image: no space left on device",
        resource=pb.EventResource(type="image_tag", id="docker.io/library/nginx:latest", user_id="admin"),
        source=pb.EventSource(service="analyzer", host="analyzer-7d9f6c", base_url="http://analyzer:8082"),
        labels={"region": "eu-1", "tier": "gold"},
    )
    event.details.struct_value.update({
        "cmd": "skopeo copy docker://docker.io/library/nginx:latest", "exitcode": 1, "stderr": "no space left " * 10,
        "attempts": [1, 2, 3], "digest": "sha256:" + "ab" * 32,
    })  # fmt: skip
    return event


def load(address: str, method: str, in_flight: int, request: bytes, seconds: float = SECONDS) -> dict[str, Any]:
    """Run the client process."""
    command = [sys.executable, "-m", "bench.load", address, method, str(in_flight), str(seconds), request.hex()]
    result: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return result


def unary(server: ServerProcess) -> list[Figure]:
    """Measure durable unary appends against no-op calls of the same server, in interleaved rounds."""
    request = pb.AppendEventRequest(event=sample_event()).SerializeToString()
    figures: list[Figure] = []
    for in_flight, target in TARGETS.items():
        shares, rates, cpu, tails = [], [], [], []
        for _ in range(ROUNDS):
            noop = load(server.address, "System/GetInfo", in_flight, b"")
            before = server.cpu_s()
            durable = load(server.address, "EventLog/AppendEvent", in_flight, request)
            cpu.append((server.cpu_s() - before) / (durable["rate"] * SECONDS) * 1e6)
            shares.append(durable["rate"] / noop["rate"])
            rates.append(durable["rate"])
            tails.append(durable["p99_ms"] / durable["p50_ms"])
        spent = statistics.median(cpu)
        figures += [
            figure(f"append / no-op, {in_flight} in flight", statistics.median(shares), "share", target, cpu_us=spent),
            figure(f"append, {in_flight} in flight", statistics.median(rates), "events/s", cpu_us=spent),
        ]
        if in_flight == 64:
            figures.append(figure("append p99 / p50, 64 in flight", statistics.median(tails), "ratio", 2.0, "lower"))
    return figures


def batches(server: ServerProcess, folder: Path) -> list[Figure]:
    """Measure AppendEvents(100), 4 in flight, against raw executemany into the same tables."""
    request = pb.AppendEventsRequest(events=[sample_event()] * BATCH).SerializeToString()
    shares, rates, cpu = [], [], []
    for number in range(ROUNDS):
        raw = raw_rate(folder / f"raw-{number}")
        before = server.cpu_s()
        served = load(server.address, "EventLog/AppendEvents", 4, request)["rate"] * BATCH
        cpu.append((server.cpu_s() - before) / (served * SECONDS) * 1e6)
        shares.append(served / raw)
        rates.append(served)
    spent = statistics.median(cpu)
    return [
        figure("AppendEvents(100) / raw executemany", statistics.median(shares), "share", 0.70, cpu_us=spent),
        figure("AppendEvents(100), 4 in flight", statistics.median(rates), "events/s", cpu_us=spent),
    ]


def raw_rate(folder: Path) -> float:
    """Insert the same rows with sqlite3's executemany, 100 in a transaction; events per second."""
    store = open_store(f"sqlite:///{folder / 'raw.db'}", lambda: uuid.uuid4().hex)
    store.writer.connect(reuse_if_open=True)
    connection = store.writer.connection()
    transactions = [rows_of(first * BATCH) for first in range(RAW_TRANSACTIONS)]
    began = time.perf_counter()
    for rows, keys in transactions:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT_EVENT, rows)
        connection.executemany(INSERT_KEY, keys)
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    store.close()
    return RAW_TRANSACTIONS * BATCH / took


def rows_of(first: int) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
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
    for position in range(first + 1, first + BATCH + 1):
        draft = Draft(f"{now // 1000:012x}{uuid.uuid4().hex[:20]}", head, None, body)
        stored = Stored(position, now, draft.id, head, frame(body, position, created_at_field(now)))
        rows.append(event_row(stored))
        keys.append(("admin", draft.id, position, None))
    return rows, keys
