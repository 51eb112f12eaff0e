"""A receiver process that costs next to nothing: it answers every POST with 200 and remembers when it came.

Orders, a JSON object a line: `open` gives the port, `count` waits for so many POSTs since `clear`.
`Sink` is its other side. Times are those of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any, cast

from bench.children import Answer, Child

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
NAME = re.compile(rb'"id":"(e-\d+)"')


class Sink(Child):
    """A receiver process."""

    def __init__(self) -> None:
        super().__init__("bench.sink")
        self.url = f"http://127.0.0.1:{self.ask(do='open')['port']}/"

    def clear(self) -> None:
        """Forget what has come."""
        self.ask(do="clear")

    def count(self, posts: int) -> Answer:
        """Wait for so many; when the `first` and the `last` came, and `arrivals` by the ids of events."""
        return self.ask(do="count", posts=posts)


class Book:
    """What has come."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.arrivals: dict[str, float] = {}
        self.wanted = 0
        self.there = asyncio.Event()

    def note(self, body: bytes) -> None:
        now = time.perf_counter()
        self.times.append(now)
        found = NAME.search(body)
        if found is not None:
            self.arrivals.setdefault(found[1].decode(), now)
        if len(self.times) >= self.wanted:
            self.there.set()

    async def until(self, count: int) -> None:
        self.wanted = count
        if len(self.times) < count:
            self.there.clear()
            await asyncio.wait_for(self.there.wait(), 300)


class Posts(asyncio.Protocol):
    """One connection."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._read, 0, end)
            whole = end + 4 + (int(length[1]) if length is not None else 0)
            if len(self._read) < whole:
                return
            self._book.note(self._read[end + 4 : whole])
            self._read = self._read[whole:]
            self._transport.write(ANSWER)


async def serve() -> None:
    """Do what each line of standard input says, until it ends."""
    loop = asyncio.get_running_loop()
    book = Book()
    server = await loop.create_server(lambda: Posts(book), "127.0.0.1", 0)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order: dict[str, Any] = json.loads(line)
        answer: Answer = {}
        if order["do"] == "open":
            answer = {"port": server.sockets[0].getsockname()[1]}
        elif order["do"] == "clear":
            book.times, book.arrivals = [], {}
        else:
            await book.until(order["posts"])
            answer = {"first": book.times[0], "last": book.times[-1], "arrivals": book.arrivals}
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Run until standard input ends."""
    import uvloop  # noqa: PLC0415 - a development dependency

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
