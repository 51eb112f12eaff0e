"""Purging: deliveries that ended long ago are forgotten; the sums of promise P3 keep count of them."""

from __future__ import annotations

from tocsin_server.store.writer import Transaction

STEP = 1000  # rows of one transaction


def purge(transaction: Transaction, ended_before: int, place: int) -> int:
    """Forget some deliveries that ended before a time, and their attempts; give where the next step begins.

    Rows lie in the order in which they were made, so the oldest come first, and no index is needed; a row
    that is younger than the time ends the look.
    """
    connection = transaction.connection
    rows = connection.execute(
        "SELECT rowid, account, id, created_at, ended_at FROM deliveries WHERE rowid > ? ORDER BY rowid LIMIT ?",
        (place, STEP),
    ).fetchall()
    old = [row for row in rows if row[3] < ended_before]
    gone = [(account, delivery_id) for _, account, delivery_id, _, ended_at in old if 0 < ended_at < ended_before]
    connection.executemany("DELETE FROM attempts WHERE account = ? AND delivery_id = ?", gone)
    connection.executemany("DELETE FROM deliveries WHERE account = ? AND id = ?", gone)
    return int(rows[-1][0]) if len(old) == STEP else 0
