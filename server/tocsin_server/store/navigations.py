"""The registered navigations in the store."""

from __future__ import annotations

import asyncio
import sqlite3

from tocsin_server.domain.alerting import Alert
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.navigation import NAVIGATIONS_MAX, Navigation
from tocsin_server.store.alert_rows import read_alert
from tocsin_server.store.database import Readers
from tocsin_server.store.writer import Transaction, Writer

COLUMNS = "account, consumer, alert_type_id, path_template"
PLACE = "account = ? AND consumer = ? AND alert_type_id = ?"


class Navigations:
    """The store behind `domain.navigation.NavigationStore`."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    async def register(self, navigation: Navigation) -> None:
        """Store a navigation."""
        await self._writer.run(lambda tx: _register(tx, navigation))

    async def forget(self, account: str, consumer: str, alert_type_id: str) -> None:
        """Forget a navigation."""
        await self._writer.run(lambda tx: _forget(tx, Navigation(account, consumer, alert_type_id, "")))

    async def holding(self, alert: Alert) -> Navigation | None:
        """Read the navigation that holds for an alert, stored or not."""
        return await asyncio.wrap_future(self._readers.submit(lambda c: holding(c, alert)))

    async def of(self, account: str, alert_id: str) -> tuple[Alert, Navigation | None]:
        """Read an alert and the navigation that holds for it."""

        def read(connection: sqlite3.Connection) -> tuple[Alert, Navigation | None]:
            alert = read_alert(connection, account, alert_id)
            return alert, holding(connection, alert)

        return await asyncio.wrap_future(self._readers.submit(read))


def holding(connection: sqlite3.Connection, alert: Alert) -> Navigation | None:
    """Read the navigation that holds for an alert: that of its type before its consumer's default."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM alert_navigations WHERE account = ? AND consumer = ? AND alert_type_id IN (?, '')"
        " ORDER BY alert_type_id DESC LIMIT 1",
        (alert.account, alert.spec.consumer, alert.spec.alert_type_id),
    ).fetchone()
    return Navigation(*row) if row else None


def _register(transaction: Transaction, new: Navigation) -> None:
    connection = transaction.connection
    place = (new.account, new.consumer, new.alert_type_id)
    if connection.execute(f"SELECT 1 FROM alert_navigations WHERE {PLACE}", place).fetchone():
        raise TocsinError(Reason.NAVIGATION_REGISTERED, f"a navigation {new.name} is registered")
    (count,) = connection.execute("SELECT count(*) FROM alert_navigations WHERE account = ?", place[:1]).fetchone()
    if count >= NAVIGATIONS_MAX:
        raise TocsinError(Reason.LIMIT_REACHED, f"an account has at most {NAVIGATIONS_MAX} navigations")
    connection.execute(f"INSERT INTO alert_navigations ({COLUMNS}) VALUES (?, ?, ?, ?)", (*place, new.path_template))


def _forget(transaction: Transaction, gone: Navigation) -> None:
    place = (gone.account, gone.consumer, gone.alert_type_id)
    if not transaction.connection.execute(f"DELETE FROM alert_navigations WHERE {PLACE}", place).rowcount:
        raise TocsinError(Reason.NAVIGATION_NOT_REGISTERED, f"a navigation {gone.name} is not registered")
