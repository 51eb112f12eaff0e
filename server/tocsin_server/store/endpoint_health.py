"""The health of receivers: one row for each configuration that has ever failed."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, fields
from typing import Any

from tocsin_server.domain.health import HEALTHY, Health, HealthState

NAMES = tuple(field.name for field in fields(Health))
COLUMNS = ", ".join(NAMES)


def of_row(row: tuple[Any, ...]) -> Health:
    """Make a health of its columns; of a configuration without a row they are all null."""
    return HEALTHY if row[0] is None else Health(HealthState(row[0]), *row[1:])


def get(connection: sqlite3.Connection, account: str, configuration_id: str) -> Health:
    """Read the health of one configuration."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM endpoint_health WHERE account = ? AND configuration_id = ?",
        (account, configuration_id),
    ).fetchone()
    return HEALTHY if row is None else of_row(row)


def put(connection: sqlite3.Connection, account: str, configuration_id: str, health: Health) -> None:
    """Write the health of one configuration."""
    marks = ", ".join("?" * len(NAMES))
    connection.execute(
        f"INSERT OR REPLACE INTO endpoint_health (account, configuration_id, {COLUMNS}) VALUES (?, ?, {marks})",
        (account, configuration_id, *astuple(health)),
    )


def forget(connection: sqlite3.Connection, account: str, configuration_id: str) -> None:
    """Remove the health of one configuration: it is healthy, or gone."""
    connection.execute(
        "DELETE FROM endpoint_health WHERE account = ? AND configuration_id = ?", (account, configuration_id)
    )
