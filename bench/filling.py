"""A store file with many events, made by raw inserts of the store's own rows and kept for later runs.

    python -m bench.filling EVENTS

The file is what the server would have made, but for its durability while it is being made and for the
router, which is told that it has seen everything. It is taken into use, by a new name, once it is complete.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tocsin_server.domain.encoding import wire_timestamp
from tocsin_server.domain.event_log import EventHead, Stored
from tocsin_server.store.appending import INSERT_EVENT, INSERT_KEY, event_row
from tocsin_server.store.database import open_store
from tocsin_server.store.wire import created_at_field, frame

from bench.events import sample_event

CACHE = Path(__file__).parents[1] / ".cache" / "bench"
TRANSACTION_EVENTS = 20_000
CACHE_KIB = 1024 * 1024
PROGRESS_S = 5.0
SPACING_US = 1000  # one event a millisecond
LATE_US = 2_000_000  # events come up to two seconds late: their order in time is not that of their positions
FIRST_US = 1_750_000_000_000_000
FORMAT = "2"  # of the files; another one makes them anew

# Each value that is asked for has more than a page of events in a log of ten thousand.
TYPES = 40
SERVICES = 20
HOSTS = 50
ERROR_EVERY = 20
COMMON_RESOURCE_EVERY = 50
COMMON_RESOURCE = "docker.io/library/nginx:latest"
TIMESTAMP_TAG = b"\x6a"  # Event.timestamp: field 13, length-delimited
Rows = tuple[list[tuple[object, ...]], list[tuple[object, ...]]]


def log_of(events: int) -> Path:
    """Give the data folder of a log with so many events; make it where it is not there yet."""
    folder = CACHE / f"log-{events}-{FORMAT}"
    if not (folder / "tocsin.db").exists():
        making = CACHE / f"making-{events}"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        _fill(making / "tocsin.db", events)
        making.rename(folder)
    return folder


def timestamp_of(position: int) -> int:
    """Give the middle of the times that the event at a position can have, in microseconds."""
    return FIRST_US + position * SPACING_US - LATE_US // 2


def _fill(path: Path, events: int) -> None:
    open_store(f"sqlite:///{path}", lambda: uuid.uuid4().hex).close()
    began = said = time.monotonic()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous=off", f"cache_size=-{CACHE_KIB}", "wal_autocheckpoint=100000"):
            connection.execute(f"PRAGMA {pragma}")
        makers = rows(events)
        for first in range(0, events, TRANSACTION_EVENTS):
            _insert(connection, *next(makers))
            done = min(first + TRANSACTION_EVENTS, events)
            if time.monotonic() - said > PROGRESS_S or done == events:
                said = time.monotonic()
                print(f"  {done:,} of {events:,} events, {done / (said - began):,.0f}/s", flush=True)
        created = FIRST_US + events * SPACING_US
        connection.execute("UPDATE log_head SET head = ?, created_at = ?", (events, created))
        connection.execute("INSERT INTO cursors (name, position, epoch) VALUES ('router', ?, 1)", (events,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert(connection: sqlite3.Connection, events: list[tuple[object, ...]], keys: list[tuple[object, ...]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT_EVENT, events)
    connection.executemany(INSERT_KEY, keys)
    connection.execute("COMMIT")


def rows(events: int, account: str = "admin") -> Iterator[Rows]:
    """Make the rows of a log, a transaction at a time: of the table of events and of that of keys."""
    chance = random.Random(events)
    positions = iter(range(1, events + 1))
    while part := list(itertools.islice(positions, TRANSACTION_EVENTS)):
        stored = [_stored(position, account, chance) for position in part]
        keys: list[tuple[object, ...]] = [(account, event.id, event.position, None) for event in stored]
        yield [event_row(event) for event in stored], keys


_SAMPLE = sample_event()


def _stored(position: int, account: str, chance: random.Random) -> Stored:
    """Make one event; its values follow from its position, some by chance."""
    event = _SAMPLE
    created = FIRST_US + position * SPACING_US
    occurred = created - int(chance.random() * LATE_US)
    event.id = f"{created // 1000:012x}{chance.getrandbits(80):020x}"
    event.account = account
    event.type = f"user.image.kind_{position % TYPES:02d}" if position % 2 else f"user.checks.kind_{position % TYPES}"
    event.level = 2 if position % ERROR_EVERY == 0 else 1  # type: ignore[assignment]
    event.source.service = f"service-{position // 7 % SERVICES}"
    event.source.host = f"host-{position // 3 % HOSTS}"
    event.resource.id = (
        COMMON_RESOURCE if position % COMMON_RESOURCE_EVERY == 0 else hashlib.md5(b"%d" % (position // 20)).hexdigest()
    )
    body = event.SerializeToString() + wire_timestamp(TIMESTAMP_TAG, occurred)
    resource, source = event.resource, event.source
    head = EventHead(
        account, event.type, "", event.level, resource.type, resource.id, resource.user_id, source.service,
        source.host, {"region": "eu-1", "tier": "gold"}, occurred,
    )  # fmt: skip
    return Stored(position, created, event.id, head, frame(body, position, created_at_field(created)))


if __name__ == "__main__":
    print(log_of(int(sys.argv[1])))
