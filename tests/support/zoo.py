"""A zoo of hostile receivers: real sockets on 127.0.0.1 that do what no honest server does."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\n"


@asynccontextmanager
async def receiver(behaviour: Behaviour) -> AsyncIterator[str]:
    """Run a receiver for as long as the block runs; give its URL."""
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read everything and never answer."""
    await reader.read(-1)
    await asyncio.Event().wait()


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time, for ever: each one resets the time-out of a naive client."""
    await _request(reader)
    for byte in OK + b"x-slow: " + b"a" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)  # this is the fault, not a wait for an outcome


async def never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a whole head, then a body without end."""
    await _request(reader)
    writer.write(OK + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()


async def never_ends_and_fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Fail, with a body without end."""
    await _request(reader)
    writer.write(FAILED + b"content-length: 10000000000\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def huge_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a megabyte of headers."""
    await _request(reader)
    writer.write(OK + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 1000) for n in range(1000)) + b"\r\n")
    await writer.drain()


async def bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a little that would be 100 MB if it were unpacked."""
    await _request(reader)
    body = gzip.compress(b"\0" * 100_000_000, 1)
    writer.write(OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


async def answers_before_it_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer at once and read afterwards."""
    writer.write(OK + b"content-length: 0\r\n\r\n")
    await writer.drain()
    await reader.read(-1)


async def informs_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say 102 Processing for ever."""
    await _request(reader)
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
        await writer.drain()
        await asyncio.sleep(0)


async def informs_then_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say 103 a few times, then 200."""
    await _request(reader)
    writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + OK + b"content-length: 0\r\n\r\n")
    await writer.drain()


async def bad_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a whole head, then chunks that are none."""
    await _request(reader)
    writer.write(OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await writer.drain()
    await asyncio.sleep(0.1)  # in a packet of its own, so that the head is read before it
    writer.write(b"what?\r\n")
    await writer.drain()


async def resets_after_the_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a whole head and reset the connection before the body."""
    await _request(reader)
    writer.write(OK + b"content-length: 5\r\n\r\n")
    await writer.drain()
    writer.transport.abort()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection instead of an answer."""
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection instead of an answer."""
    await _request(reader)


async def speaks_no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer HTTP where TLS is expected."""
    await reader.read(64)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()


async def tls_never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin a TLS record and never finish it."""
    await reader.read(64)
    writer.write(b"\x16\x03\x03\x40\x00\x02")
    await writer.drain()
    await asyncio.Event().wait()
