"""Appending to the log inside an open write transaction: ids, positions, rows.

The transaction holds the lock of `log_head`, so positions are dense and in commit order on every
store. Known ids and request ids are looked up first, repeats inside the group are settled in memory,
and only new events get positions; an integrity error here is a bug.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from zlib import crc32

from tocsin_server.domain.errors import Reason, TocsinError, Violation, request_id_reused
from tocsin_server.domain.event_log import Append, Appended, Draft, Identity, Stored
from tocsin_server.store import wire

ROWS_PER_STATEMENT = 64
INSERT_EVENT = (
    "INSERT INTO events (position, account, id, type, subtype, level, resource_type, resource_id, user_id,"
    " service, host, labels, timestamp, created_at, deleted_at, crc, body) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,0,?,?)"
)
INSERT_KEY = "INSERT INTO event_keys (account, id, position, digest, deleted_at) VALUES (?,?,?,?,0)"
INSERT_REQUEST = (
    "INSERT INTO request_keys (account, method, request_id, digest, answer, created_at) VALUES (?,?,?,?,?,?)"
)
_quoted = json.encoder.encode_basestring
IDS_PER_QUERY = 500  # below SQLite's bound of variables in one statement


@dataclass(frozen=True, slots=True)
class Known:
    """An id that the log knows: where its event is, what it was, whether it still stands."""

    position: int
    digest: bytes | None
    deleted: bool


class LogAppender:
    """The log's head for the length of one transaction; `flush` writes what was collected."""

    def __init__(self, connection: sqlite3.Connection, now: int) -> None:
        self._connection = connection
        self.log_id, self.head, last = connection.execute("SELECT log_id, head, created_at FROM log_head").fetchone()
        # created_at never falls, whatever the clock does: readers by time rely on it.
        self.created_at: int = max(now, last)
        self._created_at_field = wire.created_at_field(self.created_at)
        self._flushed_head: int = self.head
        self._flushed = 0
        self._keys: list[tuple[str, str, int, bytes | None]] = []
        self._requests: list[tuple[str, str, str, bytes, str, int]] = []
        self.stored: list[Stored] = []
        self.deleted: list[int] = []

    def append_all(self, appends: Sequence[Append]) -> list[list[Appended] | TocsinError]:
        """Append each of several appends, all or none of each; a bad one does not touch the others."""
        if not appends:
            return []
        ids = self._known_ids(appends)
        requests = self._known_requests(appends)
        return [self._append(append, ids, requests) for append in appends]

    def _append(
        self,
        append: Append,
        ids: dict[tuple[str, str], Known],
        requests: dict[tuple[str, str, str], tuple[bytes, str]],
    ) -> list[Appended] | TocsinError:
        request = (append.account, append.method, append.request_id)
        if append.request_id and request in requests:
            return self._repeated(append, *requests[request])
        bad, known = _judge(append, ids)
        if bad is not None:
            return bad
        new = [draft for index, draft in enumerate(append.drafts) if index not in known]
        first = len(self.stored)
        self.store(new)
        stored = iter(self.stored[first:])
        answer: list[Appended] = []
        for index, draft in enumerate(append.drafts):
            old = known.get(index)
            if old is not None:
                answer.append(Appended(draft.id, old.position, old.deleted))
                continue
            event = next(stored)
            ids[append.account, draft.id] = Known(event.position, draft.digest, False)
            answer.append(Appended(draft.id, event.position, frame=event.frame))
        if append.request_id:
            text = json.dumps([[a.id, a.position] for a in answer])
            requests[request] = (append.digest, text)
            self._requests.append((*request, append.digest, text, self.created_at))
        return answer

    def _repeated(self, append: Append, digest: bytes, answer: str) -> list[Appended] | TocsinError:
        if digest != append.digest:
            return request_id_reused(append.request_id, digest, append.digest)
        first = json.loads(answer)
        known = known_ids(self._connection, append.account, [event_id for event_id, _ in first])
        standing = {k.position for k in known.values() if not k.deleted} | {s.position for s in self.stored}
        return [Appended(event_id, position, position not in standing) for event_id, position in first]

    def store(self, drafts: Sequence[Draft]) -> list[int]:
        """Give positions to new events and collect their rows."""
        positions: list[int] = []
        for draft in drafts:
            self.head += 1
            body = wire.frame(draft.body, self.head, self._created_at_field)
            self.stored.append(Stored(self.head, self.created_at, draft.id, draft.head, body))
            self._keys.append((draft.head.account, draft.id, self.head, draft.digest))
            positions.append(self.head)
        return positions

    def mark(self) -> tuple[int, int, int, int]:
        """Write what is collected and remember the place, so that a unit can be undone."""
        self.flush()
        return self.head, len(self.stored), self._flushed_head, len(self.deleted)

    def rewind(self, mark: tuple[int, int, int, int]) -> None:
        """Forget what came after the mark; the savepoint has undone its rows."""
        self.head, count, self._flushed_head, deleted = mark
        del self.stored[count:]
        del self.deleted[deleted:]
        self._flushed = count
        self._keys.clear()
        self._requests.clear()

    def flush(self) -> None:
        """Write the collected rows and the head."""
        connection = self._connection
        if self._flushed < len(self.stored):
            insert(connection, INSERT_EVENT, [event_row(event) for event in self.stored[self._flushed :]])
            insert(connection, INSERT_KEY, self._keys)
            self._flushed = len(self.stored)
            self._keys.clear()
        if self._requests:
            connection.executemany(INSERT_REQUEST, self._requests)
            self._requests.clear()
        if self.head != self._flushed_head:
            connection.execute("UPDATE log_head SET head = ?, created_at = ?", (self.head, self.created_at))
            self._flushed_head = self.head

    def _known_ids(self, appends: Sequence[Append]) -> dict[tuple[str, str], Known]:
        by_account: dict[str, list[str]] = {}
        for append in appends:
            given = [draft.id for draft in append.drafts if draft.digest is not None]
            if given:
                by_account.setdefault(append.account, []).extend(given)
        known: dict[tuple[str, str], Known] = {}
        for account, ids in by_account.items():
            known.update(known_ids(self._connection, account, ids))
        return known

    def _known_requests(self, appends: Iterable[Append]) -> dict[tuple[str, str, str], tuple[bytes, str]]:
        known: dict[tuple[str, str, str], tuple[bytes, str]] = {}
        for append in appends:
            if append.request_id:
                key = (append.account, append.method, append.request_id)
                row = self._connection.execute(
                    "SELECT digest, answer FROM request_keys WHERE account = ? AND method = ? AND request_id = ?",
                    key,
                ).fetchone()
                if row is not None:
                    known[key] = (bytes(row[0]), row[1])
        return known


def _judge(append: Append, ids: dict[tuple[str, str], Known]) -> tuple[TocsinError | None, dict[int, Known]]:
    """Sort an append's events into new, repeated (by index) and refused."""
    single = append.method == "AppendEvent"
    given = [Identity(index, d.id, d.digest) for index, d in enumerate(append.drafts) if d.digest is not None]
    if not given:
        return None, {}
    known, violations = sorted_out(append.account, given, ids, "event.id" if single else "events[{}].id")
    if not violations:
        return None, known
    metadata = {"id": append.drafts[0].id} if single else {}
    if single and (old := ids.get((append.account, append.drafts[0].id))) is not None:
        metadata |= {
            "known_digest": (old.digest or b"").hex(),
            "given_digest": (append.drafts[0].digest or b"").hex(),
        }
    text = "; ".join(f"{v.path}: {v.description}" for v in violations[:3])
    return TocsinError(Reason.ID_REUSED, text, metadata=metadata, violations=violations), known


def sorted_out(
    account: str, given: Sequence[Identity], ids: Mapping[tuple[str, str], Known], path: str
) -> tuple[dict[int, Known], list[Violation]]:
    """Sort events that have ids into repeats, by index, and violations; what is in neither is new."""
    known: dict[int, Known] = {}
    violations: list[Violation] = []
    seen: set[str] = set()
    for index, event_id, digest in given:
        old = ids.get((account, event_id))
        if event_id in seen:
            violations.append(Violation(path.format(index), f"{event_id!r} occurs twice in this request"))
        elif old is not None and old.digest != digest:
            shown = old.digest.hex() if old.digest else "made by the server"
            digests = f"known digest {shown}, given {digest.hex()}"
            violations.append(Violation(path.format(index), f"{event_id!r} is stored with other content ({digests})"))
        elif old is not None:
            known[index] = old
        seen.add(event_id)
    return known, violations


def reused(connection: sqlite3.Connection, account: str, given: Sequence[Identity]) -> list[Violation]:
    """Name the events of a batch whose id is stored with other content, or occurs twice."""
    ids = known_ids(connection, account, [identity.id for identity in given])
    return sorted_out(account, given, ids, "events[{}].id")[1]


def known_ids(connection: sqlite3.Connection, account: str, ids: Sequence[str]) -> dict[tuple[str, str], Known]:
    """Look ids up that an account has given."""
    known: dict[tuple[str, str], Known] = {}
    for start in range(0, len(ids), IDS_PER_QUERY):
        part = ids[start : start + IDS_PER_QUERY]
        marks = ",".join("?" * len(part))
        rows = connection.execute(
            f"SELECT id, position, digest, deleted_at FROM event_keys WHERE account = ? AND id IN ({marks})",
            [account, *part],
        )
        for event_id, position, digest, deleted_at in rows:
            known[account, event_id] = Known(position, digest, deleted_at != 0)
    return known


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows by a one-row INSERT statement, as many at a time as there are.

    Each statement gives the interpreter up and has to get it back, which under load costs more than the
    row: the fewer statements the better. Their sizes are powers of two, so that few are ever prepared.
    """
    start, size = 0, ROWS_PER_STATEMENT
    while start < len(rows):
        left = len(rows) - start
        while size > left:
            size //= 2
        values = list(chain.from_iterable(rows[start : start + size]))
        connection.execute(_many(statement, size), values)
        start += size


@lru_cache(maxsize=64)
def _many(statement: str, rows: int) -> str:
    head, _, one = statement.partition(" VALUES ")
    return f"{head} VALUES {','.join([one] * rows)}"


def event_row(event: Stored) -> tuple[object, ...]:
    """Give the columns of an event, in the order of INSERT_EVENT."""
    position, created_at, event_id, head, frame = event
    labels = json_of_labels(head.labels) if head.labels else ""
    return (position, head[0], event_id, *head[1:9], labels, head[10], created_at, crc32(frame), frame)


def json_of_labels(labels: Mapping[str, str]) -> str:
    """Encode labels as a JSON object."""
    return "{" + ",".join([f"{_quoted(key)}:{_quoted(value)}" for key, value in labels.items()]) + "}"
