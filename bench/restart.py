"""Serving again after a crash, on a log with many events."""

from __future__ import annotations

import functools
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from bench.filling import log_of
from bench.load import Client
from bench.results import Figure, figure
from bench.server import ServerProcess

ROUNDS = 5
BATCHES = 20  # of 100 events, appended before each crash: there is something to recover


def measure(events: int) -> Callable[[Path], Sequence[Figure]]:
    """Make the measurement on a log of so many events."""
    return functools.partial(_measure, events)


def _measure(events: int, folder: Path) -> list[Figure]:
    shutil.copytree(log_of(events), folder / "full")
    full, empty = [], []
    with Client() as client:
        for number in range(ROUNDS):
            empty.append(_again(folder / "empty", client))
            full.append(_again(folder / "full", client))
            if not number:  # the first start of each finds nothing to recover
                empty.clear()
                full.clear()
    return [
        figure(f"serving after kill -9, {events:,} events", statistics.median(full), "s", 1.0, "lower"),
        figure("serving after kill -9, hardly any", statistics.median(empty), "s"),
    ]


def _again(data: Path, client: Client) -> float:
    """Start a server and say how long it took until it served, in seconds; append something and kill it."""
    began = time.perf_counter()
    server = ServerProcess(data)
    with grpc.insecure_channel(server.address) as channel:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check", _encoded, health_pb2.HealthCheckResponse.FromString
        )
        status = check(health_pb2.HealthCheckRequest(), wait_for_ready=True).status
    took = time.perf_counter() - began
    if status != health_pb2.HealthCheckResponse.SERVING:
        raise RuntimeError("the server said that it listens and does not serve")
    client.batches(server.address, 100, BATCHES)
    server.kill()
    return took


def _encoded(request: health_pb2.HealthCheckRequest) -> bytes:
    return request.SerializeToString()
