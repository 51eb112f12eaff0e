"""The server with a disk that takes 2 ms longer for each commit: `python -m bench.slow_commits serve ...`.

The disks of servers take 0.5 to 10 ms for what a fast one does in 0.1 ms. The delay sits at the outermost
edge, in the connection that the writer commits over, and gives up the interpreter as a sync does.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from typing import Any

from peewee import SqliteDatabase
from tocsin_server import __main__ as command
from tocsin_server.store import database

DELAY_S = 0.002


class SlowConnection(sqlite3.Connection):
    """A connection whose COMMIT takes longer."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Run a statement."""
        if sql == "COMMIT":
            time.sleep(DELAY_S)
        return super().execute(sql, *parameters)


def main() -> None:
    """Run the command line of the server over such connections."""
    slow = functools.partial(SqliteDatabase, factory=SlowConnection)
    setattr(database, "SqliteDatabase", slow)  # noqa: B010 - a name of the module, for this process only
    command.main()


if __name__ == "__main__":
    main()
