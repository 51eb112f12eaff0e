"""Asking about deliveries: pages, one with its attempts, and the sums of promise P3."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from tocsin_server.domain.deliveries import DeliveryLine, DeliveryPage, DeliveryQuery, DeliverySums
from tocsin_server.domain.errors import not_found
from tocsin_server.domain.notifications import ATTEMPTS_SHOWN_MAX, Attempt, Delivery
from tocsin_server.store.delivery_rows import COLUMNS, delivery

SCAN_ROWS_MAX = 20_000  # of one page: it may be short, with a token to go on
SUMS = "routed, delivered, exhausted, cancelled, silenced"


def page(
    connection: sqlite3.Connection, query: DeliveryQuery, after: tuple[int, str] | None, size: int
) -> DeliveryPage:
    """Read deliveries, newest first; look at a bounded number of rows, however few of them are meant."""
    where, values = _along_an_index(query, after)
    criteria, wanted = _criteria(query)
    looked_at = (
        f"SELECT {COLUMNS}, {criteria} AS meant FROM deliveries WHERE {where}"
        f" ORDER BY created_at DESC, id DESC LIMIT {SCAN_ROWS_MAX}"
    )
    if not wanted:
        rows = connection.execute(f"{looked_at[: -len(str(SCAN_ROWS_MAX))]}{size}", values).fetchall()
        return DeliveryPage([delivery(row[:-1]) for row in rows], None)
    rows = connection.execute(f"SELECT * FROM ({looked_at}) WHERE meant LIMIT ?", [*wanted, *values, size]).fetchall()
    found = [delivery(row[:-1]) for row in rows]
    if len(found) == size:
        return DeliveryPage(found, None)
    last = connection.execute(
        f"SELECT created_at, id FROM deliveries WHERE {where}"
        f" ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET {SCAN_ROWS_MAX - 1}",
        values,
    ).fetchone()
    return DeliveryPage(found, (int(last[0]), str(last[1])) if last is not None else None)


def _along_an_index(query: DeliveryQuery, after: tuple[int, str] | None) -> tuple[str, list[Any]]:
    """Give the conditions that an index has in the order of the page."""
    conditions, values = ["account = ?"], [query.account]
    bound: list[Any] = list(values)
    for column, value in (("configuration_id", query.configuration_id), ("alert_id", query.alert_id)):
        if value:
            conditions.append(f"{column} = ?")
            bound.append(value)
    if query.event_id:
        conditions.append("event_position > 0 AND event_id = ?")
        bound.append(query.event_id)
    for condition, time in (("created_at >= ?", query.since), ("created_at < ?", query.until)):
        if time:
            conditions.append(condition)
            bound.append(time)
    if after is not None:
        conditions.append("(created_at, id) < (?, ?)")
        bound.extend(after)
    return " AND ".join(conditions), bound


def _criteria(query: DeliveryQuery) -> tuple[str, list[Any]]:
    """Give the condition on what a delivery is now, for which there is no index; 1 when there is none."""
    parts: list[str] = []
    values: list[Any] = []
    for column, wanted in (("state", query.states), ("error_class", query.error_classes)):
        if wanted:
            parts.append(f"{column} IN ({','.join('?' * len(wanted))})")
            values.extend(wanted)
    if query.status_codes:
        ranges = [_codes(text) for text in query.status_codes]
        parts.append(f"({' OR '.join(['status_code BETWEEN ? AND ?'] * len(ranges))})")
        values.extend(code for pair in ranges for code in pair)
    return " AND ".join(parts) or "1", values


def _codes(text: str) -> tuple[int, int]:
    """Read a status code, or a class of them such as 5xx."""
    if text.endswith("xx"):
        return int(text[0]) * 100, int(text[0]) * 100 + 99
    return int(text), int(text)


def meant(connection: sqlite3.Connection, query: DeliveryQuery, ids: Sequence[str]) -> list[Delivery]:
    """Read those deliveries with these ids that are meant, in the order of their ids."""
    where, values = _along_an_index(query, None)
    criteria, wanted = _criteria(query)
    named = f"id IN ({','.join('?' * len(ids))})"
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM deliveries WHERE {where} AND {named} AND {criteria} ORDER BY id",
        (*values, *ids, *wanted),
    )
    return [delivery(row) for row in rows]


def get(connection: sqlite3.Connection, account: str, delivery_id: str) -> tuple[Delivery, list[Attempt]]:
    """Read one delivery with its newest attempts, oldest of them first."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM deliveries WHERE account = ? AND id = ?", (account, delivery_id)
    ).fetchone()
    if row is None:
        raise not_found("delivery", delivery_id)
    attempts = connection.execute(
        "SELECT number, started_at, duration_us, verdict, status_code, response_excerpt, error, next_attempt_at,"
        " error_class FROM attempts WHERE account = ? AND delivery_id = ? ORDER BY number DESC LIMIT ?",
        (account, delivery_id, ATTEMPTS_SHOWN_MAX),
    ).fetchall()
    return delivery(row), [Attempt(*attempt) for attempt in reversed(attempts)]


def sums(connection: sqlite3.Connection, account: str | None) -> DeliverySums:
    """Read the sums of an account, or of all (None), and count what is open."""
    where, values = ("account = ?", (account,)) if account is not None else ("1", ())
    totals = ", ".join(f"coalesce(sum({name}), 0)" for name in SUMS.split(", "))
    still_open = f"(SELECT count(*) FROM deliveries WHERE ended_at = 0 AND {where})"
    # One statement: both are read of the same moment.
    row = connection.execute(f"SELECT {totals}, {still_open} FROM delivery_sums WHERE {where}", (*values, *values))
    return DeliverySums(*row.fetchone())


def line(connection: sqlite3.Connection, now: int) -> DeliveryLine:
    """Count the deliveries of all accounts that wait to be sent, and those of them whose time has come."""
    row = connection.execute(
        "SELECT count(*), coalesce(sum(due_at <= ?), 0) FROM deliveries INDEXED BY deliveries_waiting"
        " WHERE state IN ('PENDING', 'RETRYING')",
        (now,),
    )
    return DeliveryLine(*row.fetchone())
