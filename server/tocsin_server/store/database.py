"""Opening the store: one file, one server, migrated and checked before anything is served.

Two Peewee databases per process: `writer` (BEGIN IMMEDIATE, used by the writer's thread alone) and
`reader` (query_only, a few threads). A read holds no transaction beyond its statement, or a few short ones.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar
from zlib import crc32

from peewee import DatabaseError, SqliteDatabase
from playhouse.migrations import Runner

from tocsin_server.domain.event_log import LogStatus
from tocsin_server.store.tables import LogHead

T = TypeVar("T")
MIGRATIONS = Path(__file__).parent / "migrations"
READER_THREADS = 3  # reads are short; more threads only fight for the interpreter
CACHE_KIB = 64 * 1024  # dirty index pages of a batch stay in memory
AUTOCHECKPOINT_PAGES = 10_000  # 40 MB of log between checkpoints: 25 % off an append with 6 indexes
WAL_BYTES_KEPT = 64 * 1024 * 1024  # a log that a long read made longer is cut back
WAL_LOOK_S = 1.0  # how often its length is looked at
WAL_WAIT_MS = 50  # how long the writer waits for readers to let go of it
BUSY_TIMEOUT_S = 5.0
SYNCHRONOUS_FULL = 2
NEWEST_CHECKED = 1000  # events: a few milliseconds at start, where a crash would have left its marks
MOUNTS = Path("/proc/self/mounts")
NETWORK_FILE_SYSTEMS = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"))

PRAGMAS = {
    "auto_vacuum": "incremental",  # set before the first table is made: retention gives pages back
    "journal_mode": "wal",
    "synchronous": "full",
    "foreign_keys": 1,
    "cache_size": -CACHE_KIB,
    "wal_autocheckpoint": AUTOCHECKPOINT_PAGES,
    "journal_size_limit": WAL_BYTES_KEPT,
}


class StoreError(Exception):
    """The store cannot be opened as it has to be; the message says what to do."""


class StoreGone(Exception):
    """The file of an open store was taken away: what is written now would be on no disk after the end."""


@dataclass(frozen=True, slots=True)
class Store:
    """An open store. `lock` is held as long as the process lives: a second server is refused."""

    path: Path
    writer: SqliteDatabase
    reader: SqliteDatabase
    lock: IO[str]

    def close(self) -> None:
        """Close the caller's thread's connections and give the file free."""
        for database in (self.reader, self.writer):
            if not database.is_closed():
                database.close()
        self.lock.close()


def open_store(url: str, new_id: Callable[[], str]) -> Store:
    """Lock, open, migrate and check the store at `url` (`sqlite:///path`)."""
    path = path_of(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(f"{path}.lock", "a+", encoding="utf-8")  # noqa: SIM115 - held for the life of the process
    except OSError as error:
        raise StoreError(f"the store {path} cannot be opened: {error.strerror} ({error.filename})") from error
    _take(lock, path)
    try:
        _refuse_network(path)
        _check_readable(path)
        writer = SqliteDatabase(str(path), pragmas=PRAGMAS, timeout=BUSY_TIMEOUT_S, lock_type="IMMEDIATE")
        with writer.connection_context():
            _migrate(writer, path)
            _assert_durable(writer)
            _found_log(writer, new_id)
            _check_newest(writer, path)
        reader = SqliteDatabase(
            str(path),
            pragmas=dict(PRAGMAS, query_only=1, cache_size=-CACHE_KIB // 4),
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,  # each thread has its own; Readers.close closes them all
        )
        return Store(path, writer, reader, lock)
    except (sqlite3.DatabaseError, DatabaseError) as error:
        lock.close()
        raise _damaged(path, error) from error
    except BaseException:
        lock.close()
        raise


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"DATA_LOSS: {path} is not a readable SQLite database ({error}): restore it from a backup, or save what can be"
        " read with `sqlite3 FILE .recover`; nothing was changed"
    )


def path_of(url: str) -> Path:
    """Give the file that a store's URL names."""
    scheme, separator, rest = url.partition(":///")
    if scheme != "sqlite" or not separator or not rest:
        raise StoreError(f"store.url {url!r} is not supported: give sqlite:///PATH")
    return Path(rest).absolute()


def _take(lock: IO[str], path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise StoreError(
            f"{path} is in use by another server (process {owner}): stop it or give another --data"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _check_readable(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error
    finally:
        connection.close()


def _migrate(database: SqliteDatabase, path: Path) -> None:
    runner = Runner(database, str(MIGRATIONS))
    unknown = [m.name for m in runner.status() if m.path is None]
    if unknown:
        raise StoreError(f"{path} was written by a newer server (it has {', '.join(unknown)}): use that version")
    runner.up()


def _assert_durable(database: SqliteDatabase) -> None:
    mode = database.execute_sql("PRAGMA journal_mode").fetchone()[0]
    synchronous = database.execute_sql("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or synchronous != SYNCHRONOUS_FULL:
        raise StoreError(f"journal_mode is {mode}, synchronous {synchronous}: acknowledged events would not be safe")


def _found_log(database: SqliteDatabase, new_id: Callable[[], str]) -> None:
    with database.atomic():
        head = LogHead.select(LogHead.head).tuples().execute(database)
        newest = database.execute_sql("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
        rows = list(head)
        if not rows:
            LogHead.insert(id=1, log_id=new_id(), head=0, created_at=0).execute(database)
        elif rows[0][0] < newest:
            raise StoreError(f"the head of the log is {rows[0][0]} but event {newest} is stored: restore from a backup")


def _check_newest(database: SqliteDatabase, path: Path) -> None:
    """Refuse a store whose newest events are damaged; `tocsin-server check` reads all of them."""
    rows = database.execute_sql(
        "SELECT position, crc, body FROM events ORDER BY position DESC LIMIT ?", (NEWEST_CHECKED,)
    )
    for position, crc, body in rows:
        if crc32(body) != crc:
            raise StoreError(
                f"DATA_LOSS: the event at position {position} of {path} does not match its checksum: restore from a"
                " backup; `tocsin-server check` says what else is damaged"
            )


def _refuse_network(path: Path) -> None:
    """Refuse a folder on a network: its locks and syncs do not hold what SQLite needs."""
    kind = file_system_of(path.parent.resolve(), MOUNTS)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{path} is on a network file system ({kind}), where events would not be safe: use a local disk"
        )


def file_system_of(folder: Path, mounts: Path) -> str:
    """Give the type of the file system that a folder is on; empty where that cannot be known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = ("", "")
    for line in lines:
        _, place, kind, *_ = line.split(" ")
        place = place.replace("\\040", " ")
        if folder.is_relative_to(place) and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1]


class StoreFile:
    """The file of an open store, as long as it lies where it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = os.stat(path)

    def require(self) -> None:
        """Look whether the file is still there. Raises StoreGone."""
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise StoreGone(f"{self._path} is gone: {error.strerror}") from error
        if not os.path.samestat(found, self._opened):
            raise StoreGone(f"{self._path} is another file than the one that was opened")


class LogFile:
    """The write-ahead log beside the file: kept short, though readers may keep SQLite from starting it anew."""

    def __init__(self, path: Path) -> None:
        self._path = f"{path}-wal"
        self._again_at = 0.0

    def size(self) -> int:
        """Give its length in bytes."""
        try:
            return os.stat(self._path).st_size
        except FileNotFoundError:
            return 0

    def keep_short(self, connection: sqlite3.Connection, now: float) -> None:
        """Write the log back into the file and begin it anew when it has grown far; called between transactions.

        `now` is a time of `Runtime.monotonic`. While a read holds the log this gives up soon, and tries again later.
        """
        if now < self._again_at:
            return
        self._again_at = now + WAL_LOOK_S
        if self.size() > WAL_BYTES_KEPT:
            connection.execute(f"PRAGMA busy_timeout = {WAL_WAIT_MS}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:g}")


class Readers:
    """A few threads that read, each over its own connection."""

    def __init__(self, store: Store, threads: int = READER_THREADS, name: str = "reader") -> None:
        self._database = store.reader
        self._connections: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=self._connect)

    def _connect(self) -> None:
        self._database.connect(reuse_if_open=True)
        self._connections.append(self._database.connection())

    def submit(self, read: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run `read` on one of the threads with its connection."""
        return self._threads.submit(self._run, read)

    def _run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection = self._database.connection()
        return read(connection)

    def close(self) -> None:
        """Wait for the reads under way, end the threads, close their connections."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for connection in self._connections:
            connection.close()


@contextmanager
def at_one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Have a few short reads see the store as of the same commit: to begin each anew costs more than the read."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def log_status(connection: sqlite3.Connection, account: str | None) -> LogStatus:
    """Read identity and head of the log, and the oldest position that the account can still read."""
    log_id, head = connection.execute("SELECT log_id, head FROM log_head").fetchone()
    mine, values = ("account = ? AND", [account]) if account is not None else ("", [])
    # What is hidden until its delivery has ended cannot be read any more.
    if connection.execute(f"SELECT 1 FROM events WHERE {mine} deleted_at = 0 LIMIT 1", values).fetchone() is None:
        return LogStatus(log_id, head, head + 1)
    # Nothing but retention moves the horizon: to an account's own or to everybody's.
    mine = "WHERE account IN (?, '')" if account is not None else ""
    (horizon,) = connection.execute(f"SELECT max(position) FROM horizons {mine}", values).fetchone()
    return LogStatus(log_id, head, horizon or 1)
