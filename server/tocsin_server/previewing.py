"""Previews in a process of their own: a replay of a day is a minute of work that nobody else should wait for.

The server starts `python -m tocsin_server.previewing`, writes an order to it as one line of JSON, and reads
frames: a byte that says what it is, four bytes of length, and the message. The process opens the store to
read, beside the server, and ends when its output is not read any more, or when its input ends: the server keeps
that open for as long as it lives, so that one that is killed leaves no process behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from tocsin_server.api import alert_previews as messages
from tocsin_server.domain.alerting import Alert, AlertTypes
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.navigation import Place
from tocsin_server.domain.replay import EVENTS_MAX, Order, replay
from tocsin_server.store.alert_rows import spec_json, spec_of
from tocsin_server.store.replaying import ReplayReads, reading

log = structlog.get_logger("tocsin.alerting")

INPUT = 0  # the descriptor
ANSWER, REFUSAL = b"A", b"R"
HEADER = struct.Struct("!cI")
PROGRESS_S = 1.0
PROCESSES_MAX = 2  # at once, of all accounts: each keeps a core busy, and one more is refused
COMPLAINT_BYTES_MAX = 4096  # of what a process writes to stderr, the last is kept
ENDING_MAX_S = 5.0  # until the pipes of a process that was killed are empty
NICENESS = 10  # of the process: it gives way to the server


class ChildPreviews:
    """See `domain.replay.Previewer`."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._processes = 0

    async def frames(self, order: Order) -> AsyncGenerator[bytes, None]:
        """Give the answers of a preview, encoded; closing it ends the process."""
        if self._processes >= PROCESSES_MAX:
            text = f"{PROCESSES_MAX} previews are under way, and no more at a time: try again when one has ended"
            raise TocsinError(Reason.TOO_MANY_PREVIEWS, text)
        self._processes += 1
        try:
            async with _process() as (process, output, complaint):
                assert process.stdin is not None
                process.stdin.write(_written(order, self._store))
                while (frame := await _frame(output)) is not None:
                    yield frame
                await _ended(process, complaint)
        finally:
            self._processes -= 1


@asynccontextmanager
async def _process() -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader, asyncio.Task[bytes]]]:
    """Have a process for as long as the block runs, its output, and the last of its complaints once it has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tocsin_server.previewing",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    complaint = asyncio.create_task(_tail(process.stderr))
    try:
        yield process, process.stdout, complaint
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        # It counts as ended when its pipes are read to their end, which what a plug-in started may keep open.
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING_MAX_S):
                await _tail(process.stdout)
                await process.wait()
        complaint.cancel()


async def _tail(output: asyncio.StreamReader) -> bytes:
    """Read to the end, so that whoever writes never waits; give the last of it."""
    tail = b""
    while read := await output.read(1 << 16):
        tail = (tail + read)[-COMPLAINT_BYTES_MAX:]
    return tail


async def _frame(output: asyncio.StreamReader) -> bytes | None:
    try:
        kind, length = HEADER.unpack(await output.readexactly(HEADER.size))
        body = await output.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    if kind == REFUSAL:
        reason, _, text = body.decode().partition(" ")
        raise TocsinError(Reason(reason), text)
    return body


async def _ended(process: asyncio.subprocess.Process, complaint: asyncio.Task[bytes]) -> None:
    """Wait for the end of a process that has no more to say; RuntimeError when it did not end well."""
    if await process.wait():
        said = (await complaint).decode(errors="replace")
        log.error("a preview failed", exit_status=process.returncode, complaint=said)
        raise RuntimeError(f"the process of a preview ended with {process.returncode}")


def _written(order: Order, store: Path) -> bytes:
    alert = order.alert
    plain = {
        "store": str(store),
        "account": alert.account,
        "alert_id": alert.id,
        "created_by": alert.created_by,
        "updated_by": alert.updated_by,
        "spec": json.loads(spec_json(alert.spec)),
        "start": order.start,
        "end": order.end,
        "every_run": order.every_run,
        "place": [order.place.path, order.place.link],
    }
    return json.dumps(plain).encode() + b"\n"


def _read(plain: dict[str, Any]) -> Order:
    alert = Alert(
        account=plain["account"],
        id=plain["alert_id"],
        version=0,
        enabled=True,
        spec=spec_of(plain["spec"]),
        created_by=plain["created_by"],
        updated_by=plain["updated_by"],
        created_at=0,
        updated_at=0,
    )
    return Order(alert, plain["start"], plain["end"], plain["every_run"], Place(*plain["place"]))


# --- the process -------------------------------------------------------------------------------


def answers(order: Order, types: AlertTypes, store: Path, clock: Callable[[], float]) -> Iterator[bytes]:
    """Replay an alert; give the answers in their order. TocsinError when it is too much."""
    alert_type = types.usable(order.alert.spec.alert_type_id)
    runs = errors = notifications = 0
    said = clock()
    yield messages.started(order)
    with reading(store) as connection:
        reads = ReplayReads(connection, order.alert.account, order.alert.id)
        for replayed in replay(order, alert_type, reads):
            if reads.events > EVENTS_MAX:
                text = f"a preview reads at most {EVENTS_MAX:,} events: choose a shorter range, or fewer events"
                raise TocsinError(Reason.LIMIT_REACHED, text)
            runs += 1
            errors += replayed.outcome.error is not None
            notifications += len(replayed.outcome.notifications)
            if order.every_run or not replayed.is_quiet:
                yield messages.run(order, replayed)
            if clock() - said >= PROGRESS_S:
                said = clock()
                yield messages.progress(runs, reads.events)
        yield messages.done(runs, errors, notifications, reads.events, reads.is_incomplete(order.start))


def _end_with_input() -> None:
    """End the process, whatever it is busy with, when the server is gone."""
    # Not by way of sys.stdin: its lock would be held when the process ends by itself.
    while os.read(INPUT, 1):
        pass
    os._exit(1)


def main() -> None:
    """Do what the order on standard input says."""
    from tocsin_server.alert_types import discover  # noqa: PLC0415 - only the process needs the types
    from tocsin_server.plugins.loading import with_plugins  # noqa: PLC0415

    os.nice(NICENESS)
    plain = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, name="input", daemon=True).start()
    # What plug-ins print, and what is logged, goes where it does not disturb the frames.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def write(kind: bytes, body: bytes) -> None:
        out.write(HEADER.pack(kind, len(body)) + body)
        out.flush()

    try:
        for answer in answers(_read(plain), with_plugins(discover()), Path(plain["store"]), time.monotonic):
            write(ANSWER, answer)
    except TocsinError as error:
        write(REFUSAL, f"{error.reason} {error.message}".encode())
    except BrokenPipeError:
        # Whoever asked has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


if __name__ == "__main__":
    main()
