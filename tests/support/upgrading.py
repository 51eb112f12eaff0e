"""Upgrades of a store, each killed at another moment: a process that forks for each, so that a start is cheap.

`python -m tests.support.upgrading OLD FOLDER EACH` upgrades a copy of the folder OLD undisturbed. Then, for every
EACH-th statement that SQLite was given for it, a child upgrades another copy and is killed just before that statement;
what it leaves is upgraded, and compared. It prints how many statements there were, and a line for each difference.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from peewee import SqliteDatabase
from playhouse.migrations import Runner
from tocsin_server.store.database import MIGRATIONS, PRAGMAS, open_store

CONNECT = sqlite3.connect


def old_store(path: Path, newest: int, filled: Path) -> None:
    """Make a store as it was after so many migrations, with what a store of today has and that one had a place for."""
    path.parent.mkdir(parents=True)
    if not newest:
        return
    known = path.parent.parent / f"migrations-{newest}"
    known.mkdir()
    for file in sorted(MIGRATIONS.glob("0*.py"))[:newest]:
        shutil.copy(file, known)
    database = SqliteDatabase(str(path), pragmas=PRAGMAS, lock_type="IMMEDIATE")
    with database.connection_context():
        Runner(database, str(known)).up()
    with CONNECT(path) as connection:
        connection.execute("ATTACH ? AS filled", (str(filled),))
        for table in tables(connection):
            if table != "schema_migration":
                there = columns(connection, "filled", table)
                names = ", ".join(name for name in columns(connection, "main", table) if name in there)
                connection.execute(f"INSERT OR REPLACE INTO main.{table} ({names}) SELECT {names} FROM filled.{table}")
    connection.close()


def tables(connection: sqlite3.Connection) -> list[str]:
    """Give the names of the tables."""
    return [name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]


def columns(connection: sqlite3.Connection, schema: str, table: str) -> list[str]:
    """Give the names of a table's columns."""
    return [row[1] for row in connection.execute(f"PRAGMA {schema}.table_info({table})")]


def contents(path: Path) -> dict[str, Any]:
    """Give the schema of a store and all that is in its tables, but for when a migration was done."""
    connection = CONNECT(path)
    found: dict[str, Any] = {"schema": connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()}
    for table in tables(connection):
        names = [
            name for name in columns(connection, "main", table) if (table, name) != ("schema_migration", "applied")
        ]
        found[table] = sorted(connection.execute(f"SELECT {', '.join(names)} FROM {table}"), key=repr)
    connection.close()
    return found


def upgrade(folder: Path) -> None:
    """Open a store as a server does at its start."""
    open_store(f"sqlite:///{folder / 'tocsin.db'}", lambda: "0" * 32).close()


def count_down(left: int) -> list[int]:
    """Have this process killed before SQLite begins with so many more statements; 0 is never."""
    counter = [left]

    def begun(statement: str) -> None:
        counter[0] -= 1
        if counter[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = CONNECT(*arguments, **options)
        connection.set_trace_callback(begun)
        return connection

    setattr(sqlite3, "connect", traced)  # noqa: B010 - mypy knows that it is another function
    return counter


def killed(folder: Path, count: int) -> bool:
    """Upgrade in a child that is killed before its so-manieth statement; False when it had fewer."""
    child = os.fork()
    if child == 0:
        count_down(count)
        upgrade(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def main() -> None:
    """Upgrade once undisturbed, and once for each moment."""
    old, folder, each = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    shutil.copytree(old, folder / "whole")
    counter = count_down(0)
    upgrade(folder / "whole")
    sqlite3.connect = CONNECT
    wanted = contents(folder / "whole" / "tocsin.db")
    print(-counter[0])
    for count in range(1, 1 - counter[0], each):
        copy = folder / "killed"
        shutil.copytree(old, copy)
        if not killed(copy, count):
            print(f"nobody was killed before statement {count}")
        upgrade(copy)
        found = contents(copy / "tocsin.db")
        for name in wanted.keys() | found.keys():
            if found.get(name) != wanted.get(name):
                print(f"killed before statement {count}: {name} is {found.get(name)}, not {wanted.get(name)}")
        shutil.rmtree(copy)


if __name__ == "__main__":
    main()
