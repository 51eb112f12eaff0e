"""Run every measurement and publish the figures."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import append, delivery
from bench.results import publish
from bench.server import ServerProcess


def main() -> None:
    """Run the measurements one after the other."""
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as name:
        folder = Path(name)
        with ServerProcess(folder / "append") as server:
            print("unary appends against no-op calls ...", flush=True)
            figures = append.unary(server)
            print("batches against raw SQLite ...", flush=True)
            figures += append.batches(server, folder)
        print("append to webhook ...", flush=True)
        figures += delivery.latency(folder / "delivery")
    publish(figures)


if __name__ == "__main__":
    main()
