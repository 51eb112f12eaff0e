"""A damaged store: the server refuses to start on it, and `tocsin-server check` says what is damaged."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.store import database
from tocsin_server.store.database import StoreError, file_system_of, open_store

from tests.support.servers import serving

HEADER = 100  # bytes in which SQLite counts how often the file was opened to write


async def filled(data: Path, count: int = 1500) -> Path:
    """Make a store with events, closed properly: all of it is in the one file."""
    async with serving(data) as api:
        for first in range(0, count, 500):
            events = [pb.Event(id=f"e{first + n}", type="t", message="m" * 100) for n in range(500)]
            await api.events.AppendEvents(pb.AppendEventsRequest(events=events))
    return data / "tocsin.db"


def run(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def check(data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tocsin_server", "check", "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def opened(path: Path) -> None:
    open_store(f"sqlite:///{path}", lambda: "0" * 32).close()


async def test_a_sound_store_is_found_sound_while_a_server_runs_on_it(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as api:
        await api.append("one")
        done = check(tmp_path / "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert "events                      1   ok" in done.stdout
    assert "DAMAGED" not in done.stdout


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE events SET body = x'00' WHERE position = 3", "position 3 does not match its checksum"),
        ("DELETE FROM event_keys WHERE position = 7", "position 7 is not found by its id e6"),
        ("DELETE FROM events WHERE position = 9", "the event of id e8 at position 9 is gone"),
        ("UPDATE log_head SET head = 1499", "position 1500 is ahead of the head 1499"),
        ("UPDATE events SET created_at = 1 WHERE position = 700", "position 700 was stored before"),
        ("UPDATE cursors SET position = 9999 WHERE name = 'router'", "the router is at position 9999"),
    ],
)
async def test_what_does_not_fit_together_is_named(tmp_path: Path, statement: str, says: str) -> None:
    path = await filled(tmp_path / "data")
    run(path, statement)
    done = check(tmp_path / "data")
    assert done.returncode == 1
    assert says in done.stdout
    assert "the store is damaged" in done.stderr


async def test_no_store_is_said_in_one_line(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"tocsin-server: there is no store at {tmp_path / 'tocsin.db'}\n"


def flip(position: int) -> Callable[[Path], None]:
    """Flip one bit of the newest body."""

    def damage(path: Path) -> None:
        run(path, f"UPDATE events SET body = CAST(x'ff' || substr(body, 2) AS BLOB) WHERE position = {position}")

    return damage


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def overwrite_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)


def lower_head(path: Path) -> None:
    run(path, "UPDATE log_head SET head = head - 1")


@pytest.mark.parametrize("damage", [flip(1500), flip(600), truncate, overwrite_header, lower_head])
async def test_a_damaged_store_is_not_served_and_not_touched(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """XA11: a bit flipped in one of the newest thousand events, a truncated file, no header, a head that is behind."""
    path = await filled(tmp_path / "data")
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="restore"):
        opened(path)
    assert path.read_bytes()[HEADER:] == before[HEADER:]


def test_the_store_of_a_network_folder_is_refused(tmp_path: Path) -> None:
    """XA12: the type of the file system is that of the longest mount above the folder."""
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/vda1 / ext4 rw 0 0\nnas:/a /mnt/my\\040nas nfs4 rw 0 0\ntmpfs /mnt/my\\040nas/ram tmpfs rw 0 0\n"
    )
    assert file_system_of(Path("/mnt/my nas/tocsin"), mounts) == "nfs4"
    assert file_system_of(Path("/mnt/my nas/ram"), mounts) == "tmpfs"
    assert file_system_of(Path("/mnt/my nasty"), mounts) == "ext4"
    assert file_system_of(Path("/x"), tmp_path / "none") == ""


@pytest.mark.parametrize("kind", sorted(database.NETWORK_FILE_SYSTEMS))
async def test_no_server_starts_on_a_network_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """XA12: the whole server refuses, says why, and leaves no file of a store behind."""
    data = tmp_path / "data"
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda1 / ext4 rw 0 0\nnas:/a {data} {kind} rw 0 0\n")
    monkeypatch.setattr(database, "MOUNTS", mounts)
    with pytest.raises(StoreError) as refusal:
        async with serving(data):
            pass
    reason = f"is on a network file system ({kind}), where events would not be safe: use a local disk"
    assert str(refusal.value) == f"{data / 'tocsin.db'} {reason}"
    assert {path.name for path in data.iterdir()} <= {"tocsin.db.lock"}


def test_the_store_of_this_machine_is_not_refused(tmp_path: Path) -> None:
    opened(tmp_path / "tocsin.db")
