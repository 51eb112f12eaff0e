"""Reading several events by their ids, and counting what stands."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from tocsin_server.domain.event_log import PAGE_BYTES_MAX, STANDING_MAX, Found, TotalSize
from tocsin_server.store.wire import checked

IDS_PER_QUERY = 500  # below SQLite's bound of variables in one statement
BODY = "SELECT position, crc, body FROM events WHERE position = ?"


def batch(connection: sqlite3.Connection, account: str, ids: Sequence[str]) -> Found:
    """Read events by id in the order of `ids`; bodies beyond one answer are not read."""
    places = _places(connection, account, list(dict.fromkeys(ids)))
    found = Found([], [], [])
    taken = 0
    for event_id in ids:
        position, size = places.get(event_id, (0, 0))
        if not position:
            found.missing.append(event_id)
        elif found.remaining or (found.frames and taken + size > PAGE_BYTES_MAX):
            found.remaining.append(event_id)
        else:
            row = connection.execute(BODY, (position,)).fetchone()
            if row is None:  # deleted since its place was read
                found.missing.append(event_id)
                continue
            found.frames.append(checked(*row))
            taken += size
    return found


def _places(connection: sqlite3.Connection, account: str, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Read the positions and the sizes of events by their ids."""
    places: dict[str, tuple[int, int]] = {}
    for start in range(0, len(ids), IDS_PER_QUERY):
        part = ids[start : start + IDS_PER_QUERY]
        rows = connection.execute(
            "SELECT k.id, e.position, length(e.body) FROM event_keys AS k JOIN events AS e ON e.position = k.position"
            f" WHERE k.account = ? AND k.id IN ({','.join('?' * len(part))}) AND k.deleted_at = 0 AND e.deleted_at = 0",
            [account, *part],
        )
        places.update({event_id: (position, size) for event_id, position, size in rows})
    return places


def standing(connection: sqlite3.Connection, account: str | None) -> TotalSize:
    """Count the events that can be read, to a bound, in an index: no body is read."""
    where, values = ("WHERE account = ?", [account]) if account is not None else ("", [])
    hidden = "deleted_at <> 0" if account is None else "deleted_at <> 0 AND account = ?"
    (gone,) = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM events INDEXED BY events_hidden WHERE {hidden} LIMIT ?)",
        [*values, STANDING_MAX],
    ).fetchone()
    (rows,) = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM events INDEXED BY events_by_time {where} LIMIT ?)",
        [*values, STANDING_MAX + 1 + gone],
    ).fetchone()
    count = rows - gone
    return TotalSize(min(count, STANDING_MAX), count > STANDING_MAX)
