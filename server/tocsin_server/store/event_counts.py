"""Counting events for alerts: `domain.alerting.EventReads` over one connection.

Bound to an alert: it reads the log as the alert's owner, in its account only, and never counts an
event about the alert itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from tocsin_server.domain.alerting import INSTANCES_MAX, GroupCount
from tocsin_server.domain.event_log import OWN_SERVICE
from tocsin_server.domain.selection import EventFilter, sees_own_events
from tocsin_server.domain.transitions import RESOURCE_TYPE
from tocsin_server.store import selection
from tocsin_server.store.selection import Where

GROUP_COLUMNS = frozenset({"resource_id", "resource_type", "type", "subtype", "service", "host", "user_id"})


class EventCounts:
    """Counts for one alert; see the port."""

    def __init__(self, connection: sqlite3.Connection, account: str, alert_id: str) -> None:
        self._connection = connection
        self._account = account
        self._alert_id = alert_id

    def count(
        self,
        events: EventFilter,
        *,
        created_before: int,
        group_by: Sequence[str] = (),
        at_least: int = 1,
        at_most: int | None = None,
        limit: int = INSTANCES_MAX,
    ) -> list[GroupCount]:
        """Count the events that a filter means and that were stored before a time."""
        unknown = set(group_by) - GROUP_COLUMNS
        if unknown:
            raise ValueError(f"events cannot be grouped by {', '.join(sorted(unknown))}")
        if events.where:
            raise ValueError(
                "counts of alerts are made by SQL alone: a where would need the interpreter for each event"
            )
        plan = selection.plan(replace(events, account=self._account))
        own = self._own_events(events)
        conditions = [plan.indexed, *([plan.residual] if plan.residual else []), own]
        sql = " AND ".join(condition.sql for condition in conditions)
        values = [value for condition in conditions for value in condition.values]
        source = f"FROM events INDEXED BY {plan.index} WHERE {sql} AND created_at < ? AND deleted_at = 0"
        if not group_by:
            row = self._connection.execute(f"SELECT count(*) {source}", [*values, created_before]).fetchone()
            return [GroupCount((), row[0])]
        columns = ", ".join(group_by)
        having = "n >= ?" if at_most is None else "n BETWEEN ? AND ?"
        bounds = [at_least] if at_most is None else [at_least, at_most]
        rows = self._connection.execute(
            f"SELECT count(*) AS n, {columns} {source} GROUP BY {columns} HAVING {having}"
            f" ORDER BY n DESC, {columns} LIMIT ?",
            [*values, created_before, *bounds, limit],
        )
        return [GroupCount(tuple(row[1:]), row[0]) for row in rows]

    def _own_events(self, events: EventFilter) -> Where:
        """Say which events of tocsin's own are meant: those that a `system.` pattern asks for, of others."""
        others = Where("service <> ?", (OWN_SERVICE,))
        types = tuple(pattern for pattern in events.types if sees_own_events(pattern))
        if not types:
            return others
        asked = selection.where(EventFilter(None, types=types))
        return Where(
            f"({others.sql} OR ({asked.sql} AND NOT (resource_type = ? AND resource_id = ?)))",
            (*others.values, *asked.values, RESOURCE_TYPE, self._alert_id),
        )
