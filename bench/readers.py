"""A client process with many subscriptions that cost little: frames are counted, not decoded.

It reads a JSON object a line, `{"do": "open", ...}`, and answers with one. `Readers` is its other side. Times
are those of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc
from tocsin.v1 import event_log_pb2 as pb

from bench.children import Child

Answer = dict[str, Any]
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)  # a connection for each channel, not one for all
BATCH, CAUGHT_UP = 0x12, 0x22  # the tags of SubscribeResponse that matter here
OPENING_MAX = 200
METHOD = "/tocsin.v1.EventLog/Subscribe"


class Readers(Child):
    """A process of subscribers, started once and used for many rounds."""

    def __init__(self) -> None:
        super().__init__("bench.readers")

    def open(self, address: str, streams: int, channels: int) -> None:
        """Open so many more streams, spread over new channels; they are all caught up when this returns."""
        self.ask(do="open", address=address, streams=streams, channels=channels)

    def reached(self) -> float:
        """Give the answer to `tell(do="reach", position=...)`: when the last stream had everything up to it."""
        return float(self.answer()["last"])

    def cancel(self) -> None:
        """Cancel all streams and close their channels."""
        self.ask(do="cancel")


class Stream:
    """One subscription: how far it has come."""

    def __init__(self, house: House, channel: grpc.aio.Channel) -> None:
        self.position = 0
        self._house = house
        method: Any = channel.unary_stream(METHOD, _as_it_is, _as_it_is)
        self._call = method(b"")
        self._task: asyncio.Task[None] | None = None

    async def caught_up(self, reads: bool) -> None:
        """Read until nothing is left; go on reading beside if it `reads`, else leave all that comes unread."""
        while (await self._call.read())[0] != CAUGHT_UP:
            pass
        if reads:
            self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        house, read = self._house, self._call.read
        while (message := await read()) is not grpc.aio.EOF:
            if message[0] == BATCH:
                before, self.position = self.position, _position_at_end(message)
                house.arrived(before, self.position, message)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._call.cancel()


def _position_at_end(message: bytes) -> int:
    """Read Batch.position, the last field of a batch: a varint behind its one-byte tag."""
    place = len(message) - 2
    while message[place] >= 0x80:
        place -= 1
    number = 0
    for shift, byte in enumerate(message[place + 1 :]):
        number |= (byte & 0x7F) << 7 * shift
    return number


class House:
    """All streams of this process."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []
        self._channels: list[grpc.aio.Channel] = []
        self._last = 0.0
        self._target = self._behind = 0
        self._done = asyncio.Event()
        self._times: list[tuple[int, float]] | None = None

    def arrived(self, before: int, position: int, message: bytes) -> None:
        """Note that a stream has come from one position to another."""
        self._last = time.perf_counter()
        if self._times is not None:
            batch = pb.SubscribeResponse.FromString(message).batch
            self._times.extend((event.position, self._last) for event in batch.events)
        if before < self._target <= position:
            self._behind -= 1
            if not self._behind:
                self._done.set()

    async def open(self, address: str, streams: int, channels: int, reads: bool = True) -> Answer:
        """Open streams; they are caught up when this is answered."""
        opened = [grpc.aio.insecure_channel(address, options=OPTIONS) for _ in range(channels)]
        self._channels += opened
        room = asyncio.Semaphore(OPENING_MAX)

        async def one(number: int) -> Stream:
            async with room:
                stream = Stream(self, opened[number % channels])
                await stream.caught_up(reads)
                return stream

        found = await asyncio.gather(*(one(number) for number in range(streams)))
        if reads:
            self._streams += found
        return {"open": len(found)}

    async def reach(self, position: int) -> Answer:
        """Wait until every stream has come to a position; say when the last one had."""
        self._target = position
        self._behind = sum(stream.position < position for stream in self._streams)
        self._done.clear()
        if self._behind:
            await self._done.wait()
        self._target = 0
        return {"last": self._last}

    async def record(self) -> Answer:
        """Begin to note when each event reaches each stream."""
        self._times = []
        return {}

    async def times(self) -> Answer:
        """Tell what was noted: positions and times."""
        return {"times": self._times}

    async def cancel(self) -> Answer:
        """Cancel every stream and close the channels."""
        for stream in self._streams:
            stream.cancel()
        for channel in self._channels:
            await channel.close()
        count = len(self._streams)
        self._streams, self._channels = [], []
        return {"cancelled": count}


def _as_it_is(body: bytes) -> bytes:
    return body


async def serve() -> None:
    """Do what each line of standard input says, until it ends."""
    loop, house = asyncio.get_running_loop(), House()
    orders = {do.__name__: do for do in (house.open, house.reach, house.record, house.times, house.cancel)}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await orders[order.pop("do")](**order)), flush=True)
    await house.cancel()


def main() -> None:
    """Run until standard input ends."""
    import uvloop  # noqa: PLC0415 - a development dependency

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
