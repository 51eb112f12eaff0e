"""Power loss: what SQLite writes and syncs is recorded, and any crash can be replayed into files.

What was synced is on the disk. Of what was written since, any part may be: each write whole, torn at a
sector, or not at all. The recorder sits where SQLite meets the operating system, as a VFS.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Operation:
    """One write (`data` at `offset`), truncation (to `offset`) or sync of a file."""

    name: str
    kind: str
    offset: int = 0
    data: bytes = b""


@dataclass
class Recorder:
    """What was done to the files, in order, and what they held in the beginning."""

    operations: list[Operation] = field(default_factory=list)
    beginning: dict[str, bytes] = field(default_factory=dict)


class RecordingFile(apsw.VFSFile):
    """A file whose changes are recorded."""

    def __init__(self, recorder: Recorder, vfs: str, name: apsw.URIFilename | str | None, flags: list[int]) -> None:
        super().__init__(vfs, name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._recorder = recorder
        self._name = Path(path).name
        if self._name not in recorder.beginning:
            recorder.beginning[self._name] = Path(path).read_bytes() if Path(path).exists() else b""

    def _record(self, kind: str, offset: int = 0, data: bytes = b"") -> None:
        self._recorder.operations.append(Operation(self._name, kind, offset, data))

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._record("write", offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._record("truncate", newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._record("sync")


class RecordingVfs(apsw.VFS):
    """Opens files that record."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__("recording", "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> apsw.VFSFile:
        return RecordingFile(self._recorder, "", name, flags)


def image(recorder: Recorder, upto: int, chance: random.Random) -> dict[str, bytes]:
    """Give what the files may hold when the power fails after so many operations."""
    files = {name: bytearray(data) for name, data in recorder.beginning.items()}
    loose: dict[str, list[Operation]] = {name: [] for name in files}
    for operation in recorder.operations[:upto]:
        if operation.kind == "sync":
            for done in loose[operation.name]:
                _apply(files[operation.name], done)
            loose[operation.name].clear()
        else:
            loose[operation.name].append(operation)
    luck = chance.choice((0.0, 0.5, 0.9))
    for name, operations in loose.items():
        for operation in operations:
            if chance.random() < luck:
                _apply(files[name], _torn(operation, chance))
    return {name: bytes(data) for name, data in files.items()}


def _torn(operation: Operation, chance: random.Random) -> Operation:
    """Keep a write whole, or only its first sectors."""
    if operation.kind != "write" or chance.random() < 0.7 or len(operation.data) <= SECTOR:
        return operation
    kept = chance.randrange(0, len(operation.data), SECTOR)
    return Operation(operation.name, "write", operation.offset, operation.data[:kept])


def _apply(file: bytearray, operation: Operation) -> None:
    if operation.kind == "truncate":
        del file[operation.offset :]
        return
    end = operation.offset + len(operation.data)
    if len(file) < end:
        file.extend(bytes(end - len(file)))
    file[operation.offset : end] = operation.data


@dataclass
class RecordedDatabase:
    """Stands where Peewee's database does: gives the writer's thread a connection that records."""

    path: Path
    vfs: str
    configure: Callable[[apsw.Connection], None]
    _connection: apsw.Connection | None = None

    def connect(self, reuse_if_open: bool = False) -> None:
        self._connection = apsw.Connection(str(self.path), vfs=self.vfs)
        self.configure(self._connection)

    def connection(self) -> apsw.Connection:
        assert self._connection is not None
        return self._connection

    def close(self) -> None:
        self.connection().close()
