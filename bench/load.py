"""A client process that keeps a number of unary calls in flight and says how fast they were answered.

`python -m bench.load ADDRESS METHOD IN_FLIGHT SECONDS REQUEST_HEX` prints one JSON line. The request is
sent as it is and the answer is not decoded: the client costs as little as a Python client can.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

import grpc


async def run(address: str, method: str, in_flight: int, seconds: float, request: bytes) -> dict[str, Any]:
    """Call `method` with so many calls in flight for so long."""
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/tocsin.v1.{method}", lambda body: body, lambda body: body)
        await call(request)
        end = time.perf_counter() + seconds

        async def worker() -> None:
            while (began := time.perf_counter()) < end:
                await call(request)
                latencies.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        took = time.perf_counter() - began
    quantiles = statistics.quantiles(latencies, n=100)
    return {"rate": len(latencies) / took, "p50_ms": quantiles[49] * 1e3, "p99_ms": quantiles[98] * 1e3}


def main() -> None:
    """Run the command line."""
    address, method, in_flight, seconds, request = sys.argv[1:]
    import uvloop  # noqa: PLC0415 - a development dependency

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(address, method, int(in_flight), float(seconds), bytes.fromhex(request)))))


if __name__ == "__main__":
    main()
