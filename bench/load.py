"""A client process that does one load after the other, as it is told on its standard input.

It reads a JSON object a line, `{"load": "unary", ...}`, and answers with one. Requests are sent as they are
and answers are not decoded: the client costs as little as a Python client can. `Client` is its other side.
Times are those of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
from tocsin.v1 import event_log_pb2 as pb

from bench import peer_load
from bench.children import Child
from bench.events import append_request, batch_request, sample_event

Answer = dict[str, Any]
BATCHES_IN_FLIGHT = 4
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)  # a connection for each channel, not one for all


class Client(Child):
    """A client process, started once and used for many rounds."""

    def __init__(self) -> None:
        super().__init__("bench.load")

    def unary(self, address: str, method: str, in_flight: int, request: bytes, seconds: float) -> Answer:
        """Keep so many calls in flight for so long; `rate` per second, `p50_ms` and `p99_ms` of the calls."""
        return self.ask(
            load="unary", address=address, method=method, in_flight=in_flight, request=request.hex(), seconds=seconds
        )

    def ingest(self, address: str, window: int, events: int, seconds: float) -> Answer:
        """Keep so many batches of `events` events unacknowledged on one stream; `rate` of batches per second."""
        return self.ask(load="ingest", address=address, window=window, events=events, seconds=seconds)

    def batches(self, address: str, size: int, count: int) -> Answer:
        """Append so many batches; when it `began`, and the `position` of the last event."""
        return self.ask(load="batches", address=address, size=size, count=count)

    def paced(self, address: str, per_second: float, count: int) -> Answer:
        """Append single events at a steady rate; of each its position and when it was sent and acknowledged."""
        return self.ask(load="paced", address=address, per_second=per_second, count=count)


async def unary(address: str, method: str, in_flight: int, request: str, seconds: float) -> Answer:
    """Call `method` with so many calls in flight for so long."""
    latencies: list[float] = []
    body = bytes.fromhex(request)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call: Any = channel.unary_unary(method, _as_it_is, _as_it_is)
        await call(body)
        end = time.perf_counter() + seconds

        async def worker() -> None:
            while (began := time.perf_counter()) < end:
                await call(body)
                latencies.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        took = time.perf_counter() - began
    quantiles = statistics.quantiles(latencies, n=100)
    return {
        "rate": len(latencies) / took,
        "calls": len(latencies),
        "p50_ms": quantiles[49] * 1e3,
        "p99_ms": quantiles[98] * 1e3,
    }


async def ingest(address: str, window: int, events: int, seconds: float) -> Answer:
    """Send batches for so long, never more than `window` of them unacknowledged."""
    body = pb.IngestRequest(events=[sample_event()] * events).SerializeToString()
    acknowledged = 0
    room = asyncio.Semaphore(window)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        method: Any = channel.stream_stream("/tocsin.v1.EventLog/Ingest", _as_it_is, pb.IngestResponse.FromString)
        stream = method()

        async def read() -> None:
            nonlocal acknowledged
            async for answer in stream:
                if any(batch.HasField("refusal") for batch in answer.batches):
                    raise RuntimeError(f"a batch was refused: {answer}")
                acknowledged += len(answer.batches)
                for _ in answer.batches:
                    room.release()

        reading = asyncio.create_task(read())
        sent, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            await room.acquire()
            await stream.write(body)
            sent += 1
        await stream.done_writing()
        await reading
        took = time.perf_counter() - began
    if acknowledged != sent:
        raise RuntimeError(f"{sent} batches were sent, {acknowledged} acknowledged")
    return {"rate": acknowledged / took, "calls": acknowledged}


async def batches(address: str, size: int, count: int) -> Answer:
    """Append so many batches, some of them in flight at a time."""
    body = batch_request(size)
    left = iter(range(count))
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call: Any = channel.unary_unary("/tocsin.v1.EventLog/AppendEvents", _as_it_is, _as_it_is)
        status: Any = channel.unary_unary(
            "/tocsin.v1.EventLog/GetLogStatus", _as_it_is, pb.GetLogStatusResponse.FromString
        )
        await status(b"")

        async def worker() -> None:
            for _ in left:
                await call(body)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(BATCHES_IN_FLIGHT)))
        return {"began": began, "position": (await status(b"")).head}


async def paced(address: str, per_second: float, count: int) -> Answer:
    """Append at a steady rate whatever the answers take."""
    events: list[tuple[int, float, float]] = []
    body = append_request()
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call: Any = channel.unary_unary("/tocsin.v1.EventLog/AppendEvent", _as_it_is, pb.AppendEventResponse.FromString)
        await call(body)

        async def one() -> None:
            sent = time.perf_counter()
            answer = await call(body)
            events.append((answer.event.position, sent, time.perf_counter()))

        start = time.perf_counter()
        tasks = []
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
            tasks.append(asyncio.create_task(one()))
        await asyncio.gather(*tasks)
    return {"events": events}


def _as_it_is(body: bytes) -> bytes:
    return body


LOADS: dict[str, Callable[..., Coroutine[Any, Any, Answer]]] = {
    load.__name__: load for load in (unary, ingest, batches, paced, peer_load.redis, peer_load.nats)
}


async def serve() -> None:
    """Do what each line of standard input says, until it ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await LOADS[order.pop("load")](**order)), flush=True)


def main() -> None:
    """Run until standard input ends."""
    import uvloop  # noqa: PLC0415 - a development dependency

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
