"""Power loss at any moment of what SQLite writes: with synchronous=FULL nothing acknowledged is lost (P1, XA4).

The real writer runs on a recorded file; from the record images of the disk are made as a power loss may leave
them. The same harness has to see the loss at synchronous=NORMAL, or it would see none anywhere.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import apsw
import pytest
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.api.auth import ANYBODY
from tocsin_server.api.event_drafts import Drafts
from tocsin_server.api.event_redaction import EventRedaction
from tocsin_server.domain.redaction import SecretKeys
from tocsin_server.domain.selection import EventFilter
from tocsin_server.runtime import system_runtime
from tocsin_server.store.checking import check
from tocsin_server.store.database import PRAGMAS, Store, open_store
from tocsin_server.store.event_log import delete_step
from tocsin_server.store.tail import Tail
from tocsin_server.store.writer import Writer

from tests.support.power import RecordedDatabase, Recorder, RecordingVfs, image

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
IMAGES = int(os.environ.get("TOCSIN_POWER_IMAGES", "1500"))
ROUNDS = 60
CHECKPOINT_PAGES = 60  # often, so that power fails in the middle of many


class Record:
    """A run of the writer: what was done to the disk, and when what was acknowledged."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.acknowledged: list[tuple[int, dict[str, int]]] = []
        self.deleted: list[tuple[int, int, list[str]]] = []

    def acknowledged_at(self, operation: int) -> dict[str, int]:
        """Give what had been acknowledged when so much had been done."""
        return {name: place for at, events in self.acknowledged if at <= operation for name, place in events.items()}

    def deleted_at(self, operation: int) -> set[str]:
        """Give what may be deleted when so much has been done."""
        return {name for begun, _, names in self.deleted if begun <= operation for name in names}

    def gone_at(self, operation: int) -> set[str]:
        """Give what was told to be deleted when so much had been done: it stays gone."""
        return {name for _, done, names in self.deleted if done <= operation for name in names}


async def record(folder: Path, synchronous: str) -> Record:
    """Append in groups, alone, in batches, and delete some; all through the real writer."""
    path = folder / "tocsin.db"
    open_store(f"sqlite:///{path}", lambda: "0" * 32).close()
    made, runtime = Record(), system_runtime()
    vfs = RecordingVfs(made.recorder)

    def configure(connection: apsw.Connection) -> None:
        # Without shared memory, which a VFS in Python does not have.
        connection.execute("PRAGMA locking_mode = exclusive")
        for name, value in {**PRAGMAS, "synchronous": synchronous, "wal_autocheckpoint": CHECKPOINT_PAGES}.items():
            connection.execute(f"PRAGMA {name} = {value}")

    database: Any = RecordedDatabase(path, "recording", configure)
    lock = (folder / "lock").open("w", encoding="utf-8")
    writer = Writer(Store(path, database, database, lock), runtime, Tail(0).commit)
    writer.start()
    await produce(writer, made, Drafts(runtime, b"k" * 32, EventRedaction(SecretKeys(()))))
    await asyncio.to_thread(writer.stop)
    lock.close()
    vfs.unregister()
    return made


async def produce(writer: Writer, made: Record, drafts: Drafts) -> None:
    chance = random.Random(7)
    operations = made.recorder.operations

    async def append(count: int) -> None:
        events = [pb.Event(type="user.image.analysis", message="m" * chance.randint(0, 900)) for _ in range(count)]
        appended = await writer.append(drafts.append(ANYBODY, pb.AppendEventsRequest(events=events)))
        made.acknowledged.append((len(operations), {a.id: a.position for a in appended}))

    for number in range(ROUNDS):
        await asyncio.gather(*(append(chance.choice((1, 1, 1, 5, 40))) for _ in range(chance.randint(1, 12))))
        if number % 10 == 9:
            began = len(operations)  # from here on they may be gone
            names, _ = await writer.run(lambda tx: delete_step(tx, EventFilter("admin"), 0, tx.head - 100, 50))
            assert len(names) == 50
            made.deleted.append((began, len(operations), names))


def loss_in(folder: Path, made: Record, upto: int, chance: random.Random) -> str:
    """Make an image and say what is wrong with it; empty when nothing is."""
    path = folder / "tocsin.db"
    for name, data in image(made.recorder, upto, chance).items():
        (folder / name).write_bytes(data)
    (folder / "tocsin.db-shm").unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    try:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        stored = dict(connection.execute("SELECT id, position FROM events").fetchall())
        keys = connection.execute("SELECT id, position, deleted_at = 0 FROM event_keys").fetchall()
        (head,) = connection.execute("SELECT head FROM log_head").fetchone()
    except sqlite3.DatabaseError as error:
        return f"corrupt: {error}"
    finally:
        connection.close()
    if sound != "ok":
        return f"corrupt: {sound}"
    gone, placed = made.deleted_at(upto), made.acknowledged_at(len(made.recorder.operations))
    lost = [n for n, place in made.acknowledged_at(upto).items() if stored.get(n) != place and n not in gone]
    if lost:
        return f"lost: {len(lost)} acknowledged events"
    missing = set(range(1, head + 1)) - set(stored.values())
    if not missing <= {placed[name] for name in gone} or max(stored.values(), default=0) != head:
        return f"the head is {head}, positions {sorted(missing)} are missing"
    if back := made.gone_at(upto) & stored.keys():
        return f"back: {len(back)} deleted events"
    if {name: place for name, place, standing in keys if standing} != stored:
        return "the ids do not agree with the events"
    if any(place > head for _, place, _ in keys):
        return f"an id is ahead of the head {head}"
    return ""


async def images(folder: Path, synchronous: str, count: int) -> list[str]:
    """Give what is wrong in each image that is not sound."""
    made = await record(folder, synchronous)
    chance = random.Random(int(os.environ.get("TOCSIN_POWER_SEED", "3")))
    target = folder / "image"
    target.mkdir()
    found = [loss_in(target, made, chance.randrange(1, len(made.recorder.operations)), chance) for _ in range(count)]
    return [wrong for wrong in found if wrong]


async def test_no_power_loss_loses_what_was_acknowledged(tmp_path: Path) -> None:
    """P1, XA4: a committed and answered event survives, and the file is sound."""
    assert await images(tmp_path, "full", IMAGES) == []
    whole = open_store(f"sqlite:///{tmp_path / 'image' / 'tocsin.db'}", lambda: "0" * 32)
    whole.close()
    assert all(not result.damages for result in check(tmp_path / "image" / "tocsin.db", lambda *_: None))


async def test_the_harness_sees_the_loss_where_commits_are_not_synced(tmp_path: Path) -> None:
    """XA13: at synchronous=NORMAL acknowledged events are lost, which is why the server refuses to run so."""
    wrong = await images(tmp_path, "normal", 200)
    assert any(text.startswith("lost") for text in wrong)
