"""Whether a store that was full has room again."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from tocsin_server.store.writer import Transaction, Writer

ROOM_BYTES = 64 * 1024  # for the indexes and the log of a small append, too
DISK_FREE_BYTES = 4 * 1024 * 1024  # less is gone at the next moment


async def has_room(writer: Writer, path: Path) -> bool:
    """Tell whether an append would find room: on the disk, and inside the limits of the file."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize >= DISK_FREE_BYTES and await writer.run(_fits)


def _fits(transaction: Transaction) -> bool:
    """Take so much room and give it back; nothing of it is stored."""
    connection = transaction.connection
    connection.execute("SAVEPOINT room")
    try:
        connection.execute("CREATE TABLE room (filler BLOB)")
        connection.execute("INSERT INTO room VALUES (zeroblob(?))", (ROOM_BYTES,))
    except sqlite3.Error as error:
        # Others in this commit are not failed for it, unless SQLite has given the whole of it up.
        if not connection.in_transaction or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
            raise
        return False
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO room")
            connection.execute("RELEASE room")
    return True
