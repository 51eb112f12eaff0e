"""Run measurements and publish the figures: `python -m bench [--full] [--only PART]...`."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import alerting, append, delivery, fanout, lists, peers, restart, routing, subscribers
from bench.results import Figure, publish

LISTED = {False: 200_000, True: 10_000_000}  # events, by whether the bench is full
RESTARTED = {False: 200_000, True: 1_000_000}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the bench: what it says while it runs, and what measures in a folder of its own."""

    text: str
    measure: Callable[[Path], Sequence[Figure]]


def parts(full: bool) -> dict[str, Part]:
    """Name the parts, in their order."""
    named = {
        "unary": Part("unary appends against no-op calls", append.unary),
        "batches": Part("batches against raw SQLite", append.batches),
        "ingest": Part("Ingest against unary appends", append.streams),
        "commits": Part("appends with slow commits", append.delayed),
        "fan-out": Part("delivery to many subscribers", fanout.throughput),
        "latency": Part("append to subscriber", fanout.latency),
        "stalled": Part("one stalled reader among 100", fanout.stalled),
        "idle": Part("idle subscribers", subscribers.measure(subscribers.WHOLE if full else subscribers.SHORT)),
        "lists": Part("pages of a long log", lists.measure(LISTED[full])),
        "restart": Part("serving again after a crash", restart.measure(RESTARTED[full])),
        "routing": Part("routing at many selectors", routing.routing),
        "templates": Part("rendering of templates", routing.templates),
        "webhooks": Part("webhooks against bare POSTs", delivery.throughput),
        "delivery": Part("append to webhook", delivery.latency),
        "alerts": Part("runs of alerts", alerting.measure(RESTARTED[full])),
    }
    whole = {
        "dead": Part("append to webhook beside dead receivers", delivery.beside_dead),
        "backlog": Part("a long line of a dead receiver", delivery.backlog),
        "peers": Part("peers: Redis, NATS, etcd", peers.measure),
    }
    return {**named, **whole} if full else named


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the server; see docs/benchmarks.md.")
    parser.add_argument("--full", action="store_true", help="whole sizes and the peers; about half an hour")
    parser.add_argument("--only", action="append", metavar="PART", choices=parts(True), help="one part; repeatable")
    arguments = parser.parse_args()
    chosen = {name: part for name, part in parts(arguments.full).items() if name in (arguments.only or parts(True))}
    figures: list[Figure] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as folder:
        for number, (name, part) in enumerate(chosen.items(), 1):
            print(f"{time.monotonic() - began:4.0f} s  {number}/{len(chosen)}  {part.text} ...", flush=True)
            figures += part.measure(Path(folder) / name)
    publish(figures, whole=not arguments.only)
    print(f"took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
