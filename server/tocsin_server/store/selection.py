"""`EventFilter` in SQL. The same meaning as `domain/selection.py`, which a property test holds it to.

Values are always bound, never written into the statement. Type patterns go to SQLite's GLOB, which is
exact about case and whose other metacharacters (`?`, `[`) a pattern cannot contain.
"""

from __future__ import annotations

from dataclasses import dataclass

from tocsin_server.domain.event_log import Level
from tocsin_server.domain.selection import EventFilter, is_glob


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


def plan(event_filter: EventFilter) -> Plan:
    """Choose the most selective index for a list by (timestamp, position); the planner has no say."""
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
                    _all([account, Where(sql, () if name == "levels" else own.values)]),
                )
                break
    # The times are a range of the same index.
    times = [criteria.pop(name) for name in ("since", "before") if name in criteria]
    residual = _all(list(criteria.values())) if criteria else None
    return Plan(index, _all([indexed, *times]), residual)


def where(event_filter: EventFilter) -> Where:
    """Say the whole filter, for scans in position order."""
    return _all([_account(event_filter), *(condition for _, condition in _criteria(event_filter))])


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
        sql = "labels <> '' AND EXISTS (SELECT 1 FROM json_each(events.labels) WHERE key = ? AND value = ?)"
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


def _all(conditions: list[Where]) -> Where:
    sql = " AND ".join(c.sql for c in conditions)
    return Where(sql, tuple(value for c in conditions for value in c.values))
