"""Loads for peers, in the client process: durable appends of one message each, over one connection or several.

Each connection keeps so many unanswered and sends as many more as were answered, in one write: as cheap for
the client as it can be in Python, so that the peer and not the client is measured as far as that goes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, cast

Answer = dict[str, Any]
NATS_STREAM = "bench"
NATS_SUBJECT = "bench.event"
NATS_INBOX = "answers"


class _Pipeline(asyncio.Protocol):
    """One connection: counts answers, and sends a request for each of them until the time is over."""

    def __init__(self, request: bytes, in_flight: int, seconds: float) -> None:
        self._request = request
        self._in_flight = in_flight
        self._seconds = seconds
        self._rest = b""
        self._end = 0.0
        self.waiting = 0
        self.answered = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def begin(self) -> None:
        """Send the first requests."""
        self._end = time.perf_counter() + self._seconds
        self.waiting = self._in_flight
        self.transport.write(self._request * self._in_flight)

    def data_received(self, data: bytes) -> None:
        """Count the answers that are whole, and send as many requests."""
        try:
            answers, self._rest = self.count(self._rest + data)
        except ValueError as error:
            self.over.set_exception(error)
            return
        self.answered += answers
        self.waiting -= answers
        if time.perf_counter() < self._end:
            self.waiting += answers
            self.transport.write(self._request * answers)
        elif self._end and not self.waiting and not self.over.done():
            self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """End with the connection."""
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the peer has closed the connection"))

    def count(self, data: bytes) -> tuple[int, bytes]:
        """Count the whole answers in what came; give the rest. ValueError where one is a refusal."""
        raise NotImplementedError


class _Redis(_Pipeline):
    """Answers of XADD are two lines each: a length, and the id of the entry."""

    def count(self, data: bytes) -> tuple[int, bytes]:
        """Count pairs of lines."""
        if data.startswith(b"-"):
            raise ValueError(data[:200].decode())
        *lines, rest = data.split(b"\r\n")
        whole = len(lines) // 2
        return whole, data if not whole else b"\r\n".join([*lines[whole * 2 :], rest])


class _Nats(_Pipeline):
    """Answers of JetStream are messages of two lines each: a head, and JSON with the sequence."""

    def count(self, data: bytes) -> tuple[int, bytes]:
        """Count the sequences; answer a PING."""
        *lines, rest = data.split(b"\r\n")
        answers = 0
        for index, line in enumerate(lines):
            if line == b"PING":
                self.transport.write(b"PONG\r\n")
            elif line.startswith(b"{") and b'"seq":' in line:
                answers += 1
            elif b'"error"' in line or line.startswith(b"-ERR"):
                raise ValueError(line[:200].decode())
            elif index == len(lines) - 1 and line.startswith(b"MSG "):
                return answers, line + b"\r\n" + rest
        return answers, rest


async def redis(port: int, in_flight: int, connections: int, seconds: float, message: str) -> Answer:
    """Append entries to a stream of Redis."""
    body = bytes.fromhex(message)
    parts = [b"XADD", b"bench", b"*", b"event", body]
    request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    return await _run(lambda: _Redis(request, in_flight // connections, seconds), port, connections)


async def nats(port: int, in_flight: int, connections: int, seconds: float, message: str) -> Answer:
    """Publish into a stream of JetStream, each message acknowledged."""
    body = bytes.fromhex(message)
    request = b"PUB %s %s %d\r\n%s\r\n" % (NATS_SUBJECT.encode(), NATS_INBOX.encode(), len(body), body)
    await _nats_stream(port)
    hello = b'CONNECT {"verbose":false}\r\nSUB %s 1\r\n' % NATS_INBOX.encode()
    return await _run(lambda: _Nats(request, in_flight // connections, seconds), port, connections, hello)


async def _nats_stream(port: int) -> None:
    """Make the stream, on a connection of its own; one that is there already is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    wanted = json.dumps({"name": NATS_STREAM, "subjects": [f"{NATS_STREAM}.>"], "storage": "file"}).encode()
    writer.write(
        b'CONNECT {"verbose":false}\r\nSUB made 1\r\n'
        b"PUB $JS.API.STREAM.CREATE.%s made %d\r\n%s\r\n" % (NATS_STREAM.encode(), len(wanted), wanted)
    )
    while not (line := await reader.readline()).startswith(b"{"):
        if not line:
            raise ConnectionError("NATS has closed the connection")
    if b'"error"' in line:
        raise ValueError(line[:300].decode())
    writer.close()


async def _run(make: Callable[[], _Pipeline], port: int, connections: int, hello: bytes = b"") -> Answer:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(make, "127.0.0.1", port) for _ in range(connections)]
    for transport, _ in made:
        transport.write(hello)
    began = time.perf_counter()
    for _, pipeline in made:
        pipeline.begin()
    await asyncio.gather(*(pipeline.over for _, pipeline in made))
    took = time.perf_counter() - began
    for transport, _ in made:
        transport.close()
    answered = sum(pipeline.answered for _, pipeline in made)
    return {"rate": answered / took, "calls": answered}
