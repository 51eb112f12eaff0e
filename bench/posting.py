"""A process that posts signed messages in a bare loop, over the same transport as the server's deliveries.

Orders, a JSON object a line: `post` sends so many with so many in flight, `pace` sends them at a steady
rate. `Poster` is its other side.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.http import HttpDoor
from tocsin_server.endpoints.signatures import signature

from bench.children import Answer, Child

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Poster(Child):
    """A posting process."""

    def __init__(self) -> None:
        super().__init__("bench.posting")

    def rate(self, url: str, body: str, count: int, in_flight: int) -> float:
        """Post so many with so many in flight; POSTs a second."""
        return float(self.ask(do="post", url=url, body=body, count=count, in_flight=in_flight)["rate"])

    def median_s(self, url: str, body: str, count: int, per_second: float) -> float:
        """Post at a steady rate; the median time of one."""
        return float(self.ask(do="pace", url=url, body=body, count=count, per_second=per_second)["median_s"])


async def one(door: HttpDoor, url: str, body: bytes, number: int) -> None:
    """Sign and post one message, as the webhook kind does."""
    seconds = int(time.time())
    headers = {
        "content-type": "application/json",
        "user-agent": "bench",
        "accept-encoding": "identity",
        "webhook-id": f"{number:032x}",
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature(SECRET, f"{number:032x}", seconds, body),
    }
    answer = await door.post(url, headers, body)
    if answer.status != 200:
        raise RuntimeError(f"the sink answered {answer.status}")


async def post(door: HttpDoor, url: str, body: str, count: int, in_flight: int) -> Answer:
    """Post so many with so many in flight."""
    left = iter(range(count))

    async def worker() -> None:
        for number in left:
            await one(door, url, body.encode(), number)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return {"rate": count / (time.perf_counter() - began)}


async def pace(door: HttpDoor, url: str, body: str, count: int, per_second: float) -> Answer:
    """Post at a steady rate."""
    took: list[float] = []
    start = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
        began = time.perf_counter()
        await one(door, url, body.encode(), number)
        took.append(time.perf_counter() - began)
    return {"median_s": statistics.median(took)}


async def serve() -> None:
    """Do what each line of standard input says, until it ends."""
    loop = asyncio.get_running_loop()
    door = HttpDoor(Egress(["127.0.0.0/8"]))
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order: dict[str, Any] = json.loads(line)
        work = post(door, **order) if order.pop("do") == "post" else pace(door, **order)
        print(json.dumps(await work), flush=True)
    await door.close()


def main() -> None:
    """Run until standard input ends."""
    import uvloop  # noqa: PLC0415 - a development dependency

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
