"""Many subscribers that wait: what each costs, how soon an event reaches all, what cancelled ones leave behind."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.load import Client
from bench.readers import Readers
from bench.results import Figure, figure
from bench.server import ServerProcess

ROUNDS = 5
PROCESSES = 2  # that subscribe
STREAMS_PER_CHANNEL = 250
SETTLED_S = 1.0  # after which the server has ended what was cancelled
SETTLING_MAX_S = 30.0
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Size:
    """How many streams wait, and how many are opened and cancelled after that, so many at a time."""

    idle: int
    cancelled: int
    at_a_time: int = 1000


SHORT = Size(2000, 5000)
WHOLE = Size(10_000, 30_000)


def measure(size: Size) -> Callable[[Path], Sequence[Figure]]:
    """Make the measurement of one size."""
    return functools.partial(_measure, size)


def _measure(size: Size, folder: Path) -> list[Figure]:
    with ExitStack() as stack:
        client = stack.enter_context(Client())
        readers = [stack.enter_context(Readers()) for _ in range(PROCESSES)]
        with ServerProcess(folder / "idle") as server:
            figures = _idle(size, server, client, readers)
        with ServerProcess(folder / "cancelled") as server:
            return [*figures, _cancelled(size, server, readers)]


def _idle(size: Size, server: ServerProcess, client: Client, readers: list[Readers]) -> list[Figure]:
    _open(server, readers, 100)  # what the first streams load and make stays out of the figures
    _cancel(server, readers)
    before = server.private_bytes()
    _open(server, readers, size.idle)
    each = (server.private_bytes() - before) / size.idle
    took, spent = [], []
    for _ in range(ROUNDS):
        began = server.cpu_s()
        sent = client.batches(server.address, 1, 1)
        for reader in readers:
            reader.tell(do="reach", position=sent["position"])
        took.append(max(reader.reached() for reader in readers) - sent["began"])
        spent.append((server.cpu_s() - began) / size.idle * 1e6)
    _cancel(server, readers)
    return [
        figure(f"memory of each of {size.idle:,} idle subscribers", each / 1024, "KB", 25, "lower"),
        figure(
            f"one event to {size.idle:,} subscribers", statistics.median(took), "s", 1.5, "lower",
            cpu_us=statistics.median(spent),
        ),
    ]  # fmt: skip


def _cancelled(size: Size, server: ServerProcess, readers: list[Readers]) -> Figure:
    _open(server, readers, size.at_a_time)  # the memory of as many streams as are open at a time is kept for others
    _cancel(server, readers)
    before = server.private_bytes()
    for done in range(0, size.cancelled, size.at_a_time):
        _open(server, readers, size.at_a_time)
        _cancel(server, readers)
        if done % 10_000 == 0:
            print(f"  {done:,} of {size.cancelled:,} streams opened and cancelled", flush=True)
    grown = (server.private_bytes() - before) / MIB
    return figure(f"memory after {size.cancelled:,} cancelled streams", grown, "MiB more", 5, "lower")


def _open(server: ServerProcess, readers: list[Readers], streams: int) -> None:
    mine = streams // len(readers)
    for reader in readers:
        reader.tell(do="open", address=server.address, streams=mine, channels=max(1, mine // STREAMS_PER_CHANNEL))
    for reader in readers:
        reader.answer()


def _cancel(server: ServerProcess, readers: list[Readers]) -> None:
    """Cancel all streams, and wait until the server is at rest: it has ended what was cancelled."""
    for reader in readers:
        reader.tell(do="cancel")
    for reader in readers:
        reader.answer()
    until = time.monotonic() + SETTLING_MAX_S
    while time.monotonic() < until:
        before = server.cpu_s()
        time.sleep(SETTLED_S / 4)
        if server.cpu_s() - before < 0.01:
            return
    raise RuntimeError("the server does not come to rest after streams were cancelled")
