"""`tocsin-server check`: reads the whole store and says what does not fit together.

It reads a snapshot, so a server may be running on the store; it changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from tocsin_server.store.database import StoreError
from tocsin_server.store.event_log import ROUTER, cursor_position

SHOWN_MAX = 20  # damages of one kind that are named one by one
REPORT_EVERY = 10_000
Progress = Callable[[str, int, int], None]  # what is read, how much of it, of how much


@dataclass(frozen=True, slots=True)
class Result:
    """One part of the store: how many entries were read, and what is wrong with some of them."""

    part: str
    count: int
    damages: tuple[str, ...]


def check(path: Path, progress: Progress) -> Iterator[Result]:
    """Read everything, part after part. Raises StoreError for what is no store."""
    if not path.exists():
        raise StoreError(f"there is no store at {path}")
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("BEGIN")
        (head,) = connection.execute("SELECT head FROM log_head").fetchone()
        yield _pages(connection, progress)
        yield _events(connection, int(head), progress)
        yield _keys(connection, progress)
        yield _references(connection, int(head))
    except sqlite3.DatabaseError as error:
        yield Result("file", 0, (f"cannot be read: {error}",))
    finally:
        connection.close()


def _pages(connection: sqlite3.Connection, progress: Progress) -> Result:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    progress("pages", 0, pages)
    found = [row[0] for row in connection.execute(f"PRAGMA integrity_check({SHOWN_MAX})")]
    return Result("pages", pages, () if found == ["ok"] else tuple(found))


def _events(connection: sqlite3.Connection, head: int, progress: Progress) -> Result:
    """Read every event: its checksum, its place, its time of storage, its key."""
    (total,) = connection.execute("SELECT count(*) FROM events").fetchone()
    damages: list[str] = []
    count, last_created_at = 0, 0
    rows = connection.execute(
        "SELECT e.position, e.id, e.created_at, e.crc, e.body, k.position FROM events AS e NOT INDEXED"
        " LEFT JOIN event_keys AS k ON k.account = e.account AND k.id = e.id ORDER BY e.position"
    )
    for position, event_id, created_at, crc, body, key_position in rows:
        count += 1
        if count % REPORT_EVERY == 0:
            progress("events", count, total)
        if not isinstance(body, bytes) or crc32(body) != crc:
            damages.append(f"the event at position {position} does not match its checksum")
        if position > head:
            damages.append(f"the event at position {position} is ahead of the head {head}")
        if created_at < last_created_at:
            damages.append(f"the event at position {position} was stored before the one in front of it")
        if key_position != position:
            damages.append(f"the event at position {position} is not found by its id {event_id}")
        last_created_at = max(created_at, last_created_at)
    return Result("events", count, _shown(damages))


def _keys(connection: sqlite3.Connection, progress: Progress) -> Result:
    (count,) = connection.execute("SELECT count(*) FROM event_keys").fetchone()
    progress("ids", 0, count)
    rows = connection.execute(
        "SELECT k.id, k.position FROM event_keys AS k LEFT JOIN events AS e ON e.position = k.position"
        " WHERE k.deleted_at = 0 AND e.position IS NULL"
    )
    return Result("ids", count, _shown([f"the event of id {name} at position {place} is gone" for name, place in rows]))


def _references(connection: sqlite3.Connection, head: int) -> Result:
    """Look whether open deliveries have their events, and readers their place."""
    damages = [
        f"the event at position {position} of the open delivery {name} is gone"
        for name, position in connection.execute(
            "SELECT d.id, d.event_position FROM deliveries AS d LEFT JOIN events AS e ON e.position = d.event_position"
            " WHERE d.ended_at = 0 AND d.event_position > 0 AND e.position IS NULL"
        )
    ]
    router = cursor_position(connection, ROUTER)
    if router > head:
        damages.append(f"the router is at position {router}, ahead of the head {head}")
    (count,) = connection.execute("SELECT count(*) FROM deliveries WHERE ended_at = 0").fetchone()
    return Result("open deliveries", count, _shown(damages))


def _shown(damages: list[str]) -> tuple[str, ...]:
    if len(damages) <= SHOWN_MAX:
        return tuple(damages)
    return (*damages[:SHOWN_MAX], f"and {len(damages) - SHOWN_MAX} more")
