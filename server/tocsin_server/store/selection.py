"""`EventFilter` in SQL. The same meaning as `domain/selection.py`, which a property test holds it to.

Values are always bound, never written into the statement. Type patterns go to SQLite's GLOB, which is
exact about case and whose other metacharacters (`?`, `[`) a pattern cannot contain.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tocsin_server.domain.event_log import EventHead, Level
from tocsin_server.domain.selection import EventFilter, glob, is_glob

STREAMS_MAX = 500  # runs of an index that one page is merged from, in one account
LABELS = "iif(events.labels = '', '{}', events.labels)"  # events without labels have an empty text
HEAD_COLUMNS = tuple(name for name in EventHead._fields)


def stored_filter(event_filter: EventFilter) -> str:
    """Give a filter as JSON, to be kept in a row."""
    return json.dumps(asdict(event_filter))


def filter_of(text: str) -> EventFilter:
    """Read a stored filter."""
    return EventFilter(**{name: _tuples(value) for name, value in json.loads(text).items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(below) for below in value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Where:
    """A condition: SQL with `?` marks, and the values for them."""

    sql: str
    values: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a page is found: the index, the criteria that it answers, and those that are left."""

    index: str
    indexed: Where
    residual: Where | None


@dataclass(frozen=True, slots=True)
class Streams:
    """How a page is found: an index, the runs of it that are in order, and the criteria that are left."""

    index: str
    each: tuple[Where, ...]
    residual: Where | None


# Criterion, its column, the index that answers it, and what lets SQLite prove that a partial one does.
INDEXED = (
    ("resource_ids", "resource_id", "events_by_resource", " AND resource_id <> ''"),
    ("types", "type", "events_by_type", ""),
    ("hosts", "host", "events_by_host", " AND host <> ''"),
    ("services", "service", "events_by_service", " AND service <> ''"),
)


def streams(connection: sqlite3.Connection, event_filter: EventFilter) -> Streams:
    """Choose the index for a list by (timestamp, position), and the runs of it; the planner has no say."""
    if event_filter.types == ("*",):
        event_filter = replace(event_filter, types=())
    criteria = dict(_criteria(event_filter))
    times = [criteria.pop(name) for name in ("since", "before") if name in criteria]
    accounts = [event_filter.account] if event_filter.account is not None else _accounts(connection)
    index, runs = _runs(connection, event_filter, accounts, criteria)
    residual = joined(list(criteria.values())) if criteria else None
    return Streams(index, tuple(joined([run, *times]) for run in runs), residual)


def _runs(
    connection: sqlite3.Connection, event_filter: EventFilter, accounts: list[str], criteria: dict[str, Where]
) -> tuple[str, list[Where]]:
    """Give the index and its runs; the criterion that they answer is taken out of `criteria`."""
    for name, column, index, literal in INDEXED:
        values = getattr(event_filter, name)
        exact = values and "" not in values and not (name == "types" and any(map(is_glob, values)))
        if exact and len(values) * len(accounts) <= STREAMS_MAX:
            del criteria[name]
            sql = f"account = ? AND {column} = ?{literal}"
            return index, [Where(sql, (account, v)) for account in accounts for v in dict.fromkeys(values)]
    if event_filter.levels == (Level.ERROR,):
        del criteria["levels"]
        return "events_errors", [Where("account = ? AND level = 2", (account,)) for account in accounts]
    if event_filter.types:
        known = _known_types(connection, event_filter.types, accounts)
        if known is not None:
            del criteria["types"]
            return "events_by_type", [Where("account = ? AND type = ?", found) for found in known]
    return "events_by_time", [Where("account = ?", (account,)) for account in accounts]


def _accounts(connection: sqlite3.Connection) -> list[str]:
    """Read the accounts that have events, by one seek each."""
    rows = connection.execute(
        "WITH RECURSIVE known (account) AS (SELECT min(account) FROM events INDEXED BY events_by_time UNION ALL"
        " SELECT (SELECT min(account) FROM events INDEXED BY events_by_time WHERE account > known.account)"
        " FROM known WHERE account IS NOT NULL) SELECT account FROM known WHERE account IS NOT NULL"
    )
    return [account for (account,) in rows]


def _known_types(
    connection: sqlite3.Connection, patterns: tuple[str, ...], accounts: list[str]
) -> list[tuple[str, str]] | None:
    """Read which types, by account, match patterns, by one seek each; None when they are too many."""
    found: dict[tuple[str, str], None] = {}
    if len(accounts) > STREAMS_MAX:
        return None
    for account in accounts:
        for pattern in patterns:
            first = pattern.partition("*")[0]
            rows = connection.execute(
                "WITH RECURSIVE known (type) AS (SELECT min(type) FROM events INDEXED BY events_by_type"
                " WHERE account = ?1 AND type >= ?2 UNION ALL SELECT (SELECT min(type) FROM events"
                " INDEXED BY events_by_type WHERE account = ?1 AND type > known.type) FROM known"
                " WHERE substr(type, 1, length(?2)) = ?2) SELECT type FROM known WHERE type IS NOT NULL LIMIT ?3",
                (account, first, STREAMS_MAX + 2),
            ).fetchall()
            if len(rows) > STREAMS_MAX + 1:
                return None
            matches = glob(pattern)
            found.update({(account, event_type): None for (event_type,) in rows if matches(event_type)})
            if len(found) > STREAMS_MAX:
                return None
    return list(found)


def plan(event_filter: EventFilter) -> Plan:
    """Choose the most selective index for counts in one account; the planner has no say."""
    account = _account(event_filter)
    criteria = dict(_criteria(event_filter))
    choices = [
        ("resource_ids", event_filter.resource_ids, "events_by_resource", " AND resource_id <> ''"),
        ("types", tuple(t for t in event_filter.types if not is_glob(t)), "events_by_type", ""),
        ("hosts", event_filter.hosts, "events_by_host", " AND host <> ''"),
        ("services", event_filter.services, "events_by_service", " AND service <> ''"),
        ("levels", event_filter.levels if event_filter.levels == (Level.ERROR,) else (), "events_errors", ""),
    ]
    index, indexed = "events_by_time", account
    if event_filter.account is not None:
        for name, values, candidate, literal in choices:
            # One value only: several would need a merge to keep the order.
            if len(values) == 1 and len(getattr(event_filter, name)) == 1 and values[0] != "":
                own = criteria.pop(name)
                # The literal lets SQLite prove that the partial index covers the condition.
                sql = "level = 2" if name == "levels" else own.sql + literal
                index, indexed = (
                    candidate,
                    joined([account, Where(sql, () if name == "levels" else own.values)]),
                )
                break
    # The times are a range of the same index.
    times = [criteria.pop(name) for name in ("since", "before") if name in criteria]
    residual = joined(list(criteria.values())) if criteria else None
    return Plan(index, joined([indexed, *times]), residual)


def where(event_filter: EventFilter) -> Where:
    """Say the whole filter, for scans in position order."""
    return joined([_account(event_filter), *(condition for _, condition in _criteria(event_filter))])


def _account(event_filter: EventFilter) -> Where:
    if event_filter.account is None:
        return Where("1")
    return Where("account = ?", (event_filter.account,))


def _criteria(event_filter: EventFilter) -> list[tuple[str, Where]]:
    found: list[tuple[str, Where]] = []
    if event_filter.types:
        found.append(("types", _types(event_filter.types)))
    for name, column in (
        ("subtypes", "subtype"),
        ("levels", "level"),
        ("resource_types", "resource_type"),
        ("resource_ids", "resource_id"),
        ("user_ids", "user_id"),
        ("services", "service"),
        ("hosts", "host"),
    ):
        values = getattr(event_filter, name)
        if values:
            found.append((name, _in(column, values)))
    for key, value in event_filter.labels:
        # SQLite may ask the second term first, so that it has to be able to read what is no JSON.
        sql = f"labels <> '' AND EXISTS (SELECT 1 FROM json_each({LABELS}) WHERE key = ? AND value = ?)"
        found.append((f"label {key}", Where(sql, (key, value))))
    if event_filter.since is not None:
        found.append(("since", Where("timestamp >= ?", (event_filter.since,))))
    if event_filter.before is not None:
        found.append(("before", Where("timestamp < ?", (event_filter.before,))))
    return found


def _types(types: tuple[str, ...]) -> Where:
    exact = tuple(t for t in types if not is_glob(t))
    globs = tuple(t for t in types if is_glob(t))
    parts = ["type GLOB ?"] * len(globs)
    if exact:
        parts.insert(0, _in("type", exact).sql)
    return Where(parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})", exact + globs)


def _in(column: str, values: tuple[object, ...]) -> Where:
    if len(values) == 1:
        return Where(f"{column} = ?", values)
    return Where(f"{column} IN ({','.join('?' * len(values))})", values)


def joined(conditions: Sequence[Where], by: str = " AND ") -> Where:
    """Say several conditions at once."""
    return Where(by.join(c.sql for c in conditions), tuple(value for c in conditions for value in c.values))
