"""Peers: the same event, durable, in the same rounds on the same machine.

Redis with `appendfsync always`, NATS JetStream with `sync_interval: always`, etcd: each acknowledges what is
on disk. Their clients are cheaper than ours, which speaks gRPC; none of them keeps the indexes that lists need.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tocsin_server.domain.encoding import wire_bytes

from bench.append import BATCHES_IN_FLIGHT, Spent, load
from bench.events import append_request, batch_request, sample_event
from bench.load import Client
from bench.packages import Missing, environment, executable
from bench.results import Figure, figure, ratio
from bench.server import ServerProcess

ROUNDS = 5
SECONDS = 1.0
IN_FLIGHT = 64
BATCH = 100
START_MAX_S = 20.0
ETCD_PUT = "/etcdserverpb.KV/Put"
Rate = Callable[[Client, "Peer"], float]
TARGETS = {"Redis": (0.20, 1.5)}  # of single appends and of batches, against the peer's single ones


class Peer:
    """A peer's server on free ports, for as long as the block runs."""

    def __init__(self, folder: Path, command: Callable[[Path, int, int], Sequence[str]]) -> None:
        folder.mkdir(parents=True)
        self.port, other = _free_ports()
        self._log = (folder / "peer.log").open("wb")
        self._process = subprocess.Popen(
            command(folder, self.port, other), cwd=folder, env=environment(), stdout=self._log, stderr=self._log
        )

    def __enter__(self) -> Self:
        until = time.monotonic() + START_MAX_S
        while time.monotonic() < until and self._process.poll() is None:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        self._process.kill()
        raise Missing("it does not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _redis(folder: Path, port: int, _: int) -> Sequence[str]:
    settings = {"port": port, "bind": "127.0.0.1", "dir": folder, "appendonly": "yes", "appendfsync": "always"}
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    return [str(executable("redis-server")), *flags, "--save", ""]


def _nats(folder: Path, port: int, _: int) -> Sequence[str]:
    settings = folder / "nats.conf"
    settings.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}", sync_interval: always }}\n', encoding="utf-8"
    )
    return [str(executable("nats-server")), "-c", str(settings)]


def _etcd(folder: Path, port: int, other: int) -> Sequence[str]:
    mine, theirs = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}"
    flags = {
        "--data-dir": str(folder / "data"),
        "--listen-client-urls": mine,
        "--advertise-client-urls": mine,
        "--listen-peer-urls": theirs,
        "--initial-advertise-peer-urls": theirs,
        "--initial-cluster": f"default={theirs}",
    }
    return [str(executable("etcd")), *(text for flag in flags.items() for text in flag)]


def _etcd_rate(client: Client, peer: Peer) -> float:
    """Put the event under one key again and again; each is a new revision in etcd's log."""
    request = wire_bytes(b"\x0a", b"bench/event") + wire_bytes(b"\x12", sample_event().SerializeToString())
    found = client.unary(f"127.0.0.1:{peer.port}", ETCD_PUT, IN_FLIGHT, request, SECONDS)
    return float(found["rate"])


def _plain_rate(name: str, connections: int) -> Rate:
    def rate(client: Client, peer: Peer) -> float:
        message = sample_event().SerializeToString().hex()
        found = client.ask(
            load=name, port=peer.port, in_flight=IN_FLIGHT, connections=connections, seconds=SECONDS, message=message
        )
        return float(found["rate"])

    return rate


COMMANDS = {"Redis": _redis, "NATS": _nats, "etcd": _etcd}
# What is measured, of which peer. Callers of Redis have a connection each, as 64 callers have; what one of
# them gets that sends 64 at a time is a batch of its own kind. Those of NATS and etcd share one, as gRPC's do.
RATES: dict[str, tuple[str, Rate]] = {
    "Redis": ("Redis", _plain_rate("redis", IN_FLIGHT)),
    "Redis pipeline": ("Redis", _plain_rate("redis", 1)),
    "NATS": ("NATS", _plain_rate("nats", 1)),
    "etcd": ("etcd", _etcd_rate),
}


def measure(folder: Path) -> list[Figure]:
    """Measure single appends and batches against each peer that can be had."""
    single: list[Spent] = []
    batches: list[Spent] = []
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        running = _start(stack, folder)
        server = stack.enter_context(ServerProcess(folder / "tocsin"))
        client = stack.enter_context(Client())
        for _ in range(ROUNDS):
            single.append(load(server, client, "EventLog/AppendEvent", IN_FLIGHT, append_request()))
            request = batch_request(BATCH)
            batches.append(load(server, client, "EventLog/AppendEvents", BATCHES_IN_FLIGHT[BATCH], request, BATCH))
            for name, (peer, rate) in RATES.items():
                if peer in running:
                    rates.setdefault(name, []).append(rate(client, running[peer]))
    figures: list[Figure] = []
    for name, found in rates.items():
        targets = TARGETS.get(name, (None, None))
        figures += [
            figure(f"{name}, 64 in flight, durable", statistics.median(found), "events/s"),
            ratio(f"append, 64 / {name}", [s.rate for s in single], found, targets[0]),
            ratio(f"AppendEvents({BATCH}) / {name}, 64", [b.rate for b in batches], found, targets[1]),
        ]
    return figures


def _start(stack: ExitStack, folder: Path) -> dict[str, Peer]:
    """Start what can be had, and say what cannot."""
    running: dict[str, Peer] = {}
    for name, command in COMMANDS.items():
        try:
            running[name] = stack.enter_context(Peer(folder / name, command))
        except Missing as error:
            print(f"  skipped {name}: {error}", flush=True)
    return running
