"""Endpoints and endpoint configurations. Secret fields are encrypted before they reach a table.

Every change of a configuration or a switch raises the generation.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from tocsin_server.domain.config_webhooks import NAMES, OWNER, PREFIX
from tocsin_server.domain.errors import Reason, TocsinError, not_found
from tocsin_server.domain.health import HealthState
from tocsin_server.domain.notifications import CONFIGURATIONS_MAX, EndpointConfiguration, renewed
from tocsin_server.domain.options import read as read_options
from tocsin_server.domain.ports import Cipher
from tocsin_server.domain.selection import Selector
from tocsin_server.store import endpoint_health, holds, request_keys
from tocsin_server.store.database import Readers
from tocsin_server.store.event_log import cursor_position
from tocsin_server.store.generation import GENERATION, raise_generation
from tocsin_server.store.writer import Transaction, Writer

log = structlog.get_logger("tocsin.store")
T = TypeVar("T")
Succession = Callable[[Mapping[str, Any], Mapping[str, Any], int], Mapping[str, Any]]
COLUMNS = (
    "account, id, kind, name, description, enabled, connection, selectors, options, version, created_at, updated_at"
)
# A configuration as it is read: with the health of its receiver.
SELECT = (
    f"SELECT {', '.join(f'c.{name}' for name in COLUMNS.split(', '))},"
    f" {', '.join(f'h.{name}' for name in endpoint_health.NAMES)} FROM endpoint_configurations AS c"
    " LEFT JOIN endpoint_health AS h ON h.account = c.account AND h.configuration_id = c.id"
)
CREATE_METHOD = "CreateEndpointConfiguration"


class ConfigurationCodec:
    """Rows to configurations and back; encrypts and decrypts the secret fields of each kind."""

    def __init__(self, cipher: Cipher, secret_fields: Mapping[str, tuple[str, ...]]) -> None:
        self._cipher = cipher
        self._secret_fields = secret_fields

    def sealed(self, configuration: EndpointConfiguration) -> str:
        """Give the connection as JSON, its secrets encrypted for this configuration only."""
        connection = dict(configuration.connection)
        for name in self._secret_fields.get(configuration.kind, ()):
            if connection.get(name):
                connection[name] = self._cipher.encrypt(connection[name], _place(configuration, name))
        return json.dumps(connection)

    def read(self, row: tuple[Any, ...], strict: bool = False) -> EndpointConfiguration:
        """Make a configuration of a row, its secrets in the clear.

        One that cannot be decrypted is empty, so that its owner can see the configuration, write the
        secret anew or delete it; when `strict`, TocsinError KEY_MISSING instead: nothing is sent unsigned.
        """
        account, configuration_id, kind, name, description, enabled, connection, selectors, options, *rest = row
        bare = EndpointConfiguration(
            id=configuration_id,
            account=account,
            kind=kind,
            name=name,
            description=description,
            enabled=bool(enabled),
            connection=json.loads(connection),
            selectors=tuple(Selector(*entry) for entry in json.loads(selectors)),
            options=read_options(options),
            health=endpoint_health.of_row(tuple(rest[3:])),
            version=rest[0],
            created_at=rest[1],
            updated_at=rest[2],
        )
        opened = dict(bare.connection)
        for secret in self._secret_fields.get(kind, ()):
            if opened.get(secret):
                try:
                    opened[secret] = self._cipher.decrypt(opened[secret], _place(bare, secret))
                except TocsinError:
                    if strict:
                        raise
                    opened[secret] = ""
        return replace(bare, connection=opened)


def _place(configuration: EndpointConfiguration, name: str) -> str:
    return f"{configuration.account}/{configuration.id}/{name}"


def _selectors_json(configuration: EndpointConfiguration) -> str:
    return json.dumps([list(astuple(selector)) for selector in configuration.selectors])


class Notifications:
    """The store behind `domain.ports.NotificationStore`, and what the loops of delivery read."""

    def __init__(self, writer: Writer, readers: Readers, codec: ConfigurationCodec, paused_max_age_us: int) -> None:
        self._writer = writer
        self._readers = readers
        self._codec = codec
        self.paused_max_age_us = paused_max_age_us
        self.changed: Callable[[], None] = lambda: None

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._readers.submit(read))

    async def _write(self, unit: Callable[[Transaction], T]) -> T:
        result = await self._writer.run(unit)
        self.changed()
        return result

    async def switches(self) -> dict[str, bool]:
        """Read the switches that were ever set, by kind."""
        return await self._read(_switches)

    async def _write_in_steps(self, step: Callable[[Transaction], bool]) -> None:
        """Take short transactions until one says that it was the last."""
        while not await self._writer.run(step):
            pass
        self.changed()

    async def set_switch(self, kind: str, enabled: bool) -> None:
        """Set a kind's switch; then pause or resume what waits, in steps."""

        def unit(transaction: Transaction) -> None:
            transaction.connection.execute(
                "INSERT INTO endpoints (kind, enabled) VALUES (?, ?)"
                " ON CONFLICT (kind) DO UPDATE SET enabled = excluded.enabled",
                (kind, enabled),
            )
            raise_generation(transaction)

        await self._write(unit)

        def step(transaction: Transaction) -> bool:
            if _switches(transaction.connection).get(kind, True) != enabled:
                return True  # somebody has switched it back, and sees to it
            if enabled:
                return holds.resume(transaction, self.paused_max_age_us, kind=kind)
            return holds.pause(transaction, kind=kind)

        await self._write_in_steps(step)

    async def create(self, draft: EndpointConfiguration, request_id: str, digest: bytes) -> EndpointConfiguration:
        """Store a new configuration, or answer the one that this request id has made."""
        return await self._write(lambda tx: self._create(tx, draft, request_id, digest))

    def _create(
        self, transaction: Transaction, draft: EndpointConfiguration, request_id: str, digest: bytes
    ) -> EndpointConfiguration:
        known = request_keys.known_answer(transaction, draft.account, CREATE_METHOD, request_id, digest)
        if known:
            return self._get(transaction.connection, draft.account, known)
        (count,) = transaction.connection.execute(
            "SELECT count(*) FROM endpoint_configurations WHERE account = ?", (draft.account,)
        ).fetchone()
        if count >= CONFIGURATIONS_MAX:
            raise TocsinError(Reason.LIMIT_REACHED, f"an account has at most {CONFIGURATIONS_MAX} configurations")
        new = self._insert(transaction, draft, transaction.runtime.new_id())
        request_keys.remember(transaction, new.account, CREATE_METHOD, request_id, digest, new.id)
        return new

    def _insert(
        self, transaction: Transaction, draft: EndpointConfiguration, configuration_id: str
    ) -> EndpointConfiguration:
        now = transaction.log.created_at
        new = replace(
            draft,
            id=configuration_id,
            selectors=renewed((), draft.selectors, transaction.head),
            version=1,
            created_at=now,
            updated_at=now,
        )
        marks = ",".join("?" * 12)
        transaction.connection.execute(
            f"INSERT INTO endpoint_configurations ({COLUMNS}) VALUES ({marks})",
            (new.account, new.id, new.kind, new.name, new.description, new.enabled, self._codec.sealed(new),
             _selectors_json(new), new.options.stored(), new.version, now, now),
        )  # fmt: skip
        raise_generation(transaction)
        return new

    async def get(self, account: str, configuration_id: str) -> EndpointConfiguration:
        """Read one configuration."""
        return await self._read(lambda c: self._get(c, account, configuration_id))

    def _get(self, connection: sqlite3.Connection, account: str, configuration_id: str) -> EndpointConfiguration:
        row = connection.execute(
            f"{SELECT} WHERE c.account = ? AND c.id = ?",
            (account, configuration_id),
        ).fetchone()
        if row is None:
            raise not_found("endpoint configuration", configuration_id)
        return self._codec.read(row)

    async def page(self, account: str, kind: str, after: str, size: int) -> list[EndpointConfiguration]:
        """Read configurations with an id after the given one."""

        def read(connection: sqlite3.Connection) -> list[EndpointConfiguration]:
            rows = connection.execute(
                f"{SELECT} WHERE c.account = ? AND c.id > ? AND (? = '' OR c.kind = ?) ORDER BY c.id LIMIT ?",
                (account, after, kind, kind, size),
            )
            return [self._codec.read(row) for row in rows]

        return await self._read(read)

    async def update(
        self,
        account: str,
        configuration_id: str,
        change: Callable[[EndpointConfiguration], EndpointConfiguration],
    ) -> EndpointConfiguration:
        """Change a configuration in one transaction; then pause or resume what waits for it, in steps."""

        def unit(transaction: Transaction) -> EndpointConfiguration:
            old = self._get(transaction.connection, account, configuration_id)
            return self._change(transaction, old, change(old))

        new = await self._write(unit)
        await self._write_in_steps(lambda tx: self._follow_switch(tx, (account, configuration_id)))
        return new

    def _change(
        self, transaction: Transaction, old: EndpointConfiguration, wanted: EndpointConfiguration
    ) -> EndpointConfiguration:
        new = replace(
            wanted,
            selectors=renewed(old.selectors, wanted.selectors, transaction.head),
            version=old.version + 1,
            updated_at=transaction.log.created_at,
        )
        transaction.connection.execute(
            "UPDATE endpoint_configurations SET name = ?, description = ?, enabled = ?, connection = ?,"
            " selectors = ?, options = ?, version = ?, updated_at = ? WHERE account = ? AND id = ?",
            (new.name, new.description, new.enabled, self._codec.sealed(new), _selectors_json(new),
             new.options.stored(), new.version, new.updated_at, old.account, old.id),
        )  # fmt: skip
        place = (old.account, old.id)
        if new.connection != old.connection and old.health.state is HealthState.FAILING:
            # Perhaps it is repaired: the next delivery finds out.
            endpoint_health.put(transaction.connection, *place, replace(old.health, until=new.updated_at))
        raise_generation(transaction)
        return new

    def _follow_switch(self, transaction: Transaction, place: tuple[str, str]) -> bool:
        """Pause or resume some of what waits for a configuration as its switches are now; tell if that was all."""
        row = transaction.connection.execute(
            "SELECT enabled, kind FROM endpoint_configurations WHERE account = ? AND id = ?", place
        ).fetchone()
        if row is None:
            return True
        enabled, kind = row
        if not enabled:
            return holds.pause(transaction, configuration=place)
        if _switches(transaction.connection).get(kind, True):
            return holds.resume(transaction, self.paused_max_age_us, configuration=place)
        return True

    async def delete(self, account: str, configuration_id: str) -> None:
        """Delete a configuration; then cancel what waits for it, in steps."""
        await self._write(lambda tx: self._delete(tx, account, configuration_id))
        await self._write_in_steps(lambda tx: holds.cancel(tx, account, configuration_id, "DELETED"))

    def _delete(self, transaction: Transaction, account: str, configuration_id: str) -> None:
        self._get(transaction.connection, account, configuration_id)
        transaction.connection.execute(
            "DELETE FROM endpoint_configurations WHERE account = ? AND id = ?",
            (account, configuration_id),
        )
        endpoint_health.forget(transaction.connection, account, configuration_id)
        raise_generation(transaction)

    async def configure(self, wanted: Sequence[EndpointConfiguration], succeed: Succession) -> None:
        """Make the webhooks of the settings what the settings say; called once, at start.

        `succeed` gives the connection that follows an old one when the settings have a new one, at a time
        in microseconds.
        """

        def unit(transaction: Transaction) -> None:
            rows = transaction.connection.execute(
                f"{SELECT} WHERE c.account = ? AND c.id GLOB '{PREFIX}*'", (OWNER,)
            ).fetchall()
            known = {old.id: old for old in map(self._codec.read, rows)}
            for gone in known.keys() - {new.id for new in wanted}:
                self._delete(transaction, OWNER, gone)
            for new in wanted:
                old = known.get(new.id)
                if old is None:
                    self._insert(transaction, new, new.id)
                    continue
                connection = succeed(old.connection, new.connection, transaction.log.created_at)
                following = replace(new, connection=connection, created_at=old.created_at)
                if _said(old) != _said(following):
                    self._change(transaction, old, following)

        await self._write(unit)
        known = {one.id for one in wanted}
        for name in NAMES:
            await self._write_in_steps(partial(self._follow_settings, place=(OWNER, PREFIX + name), known=known))

    def _follow_settings(self, transaction: Transaction, place: tuple[str, str], known: Collection[str]) -> bool:
        """Hold, let go or end some of what waits for a webhook of the settings; tell if that was all."""
        if place[1] in known:
            return self._follow_switch(transaction, place)
        return holds.cancel(transaction, *place, "DELETED")

    def _readable(self, row: tuple[Any, ...]) -> EndpointConfiguration | None:
        """Read a configuration; one whose secret cannot be decrypted is left out and holds up nobody else."""
        try:
            return self._codec.read(row, strict=True)
        except TocsinError as error:
            log.error("a configuration cannot be used", account=row[0], configuration_id=row[1], error=error.message)
            return None

    async def book(self) -> tuple[int, list[EndpointConfiguration], dict[str, bool]]:
        """Read the generation, all configurations of all accounts, and the switches."""

        def read(connection: sqlite3.Connection) -> tuple[int, list[EndpointConfiguration], dict[str, bool]]:
            # The generation is read first: a change that comes between is noticed by the router.
            generation = cursor_position(connection, GENERATION)
            rows = connection.execute(f"{SELECT} ORDER BY c.id")
            return generation, [c for row in rows if (c := self._readable(row)) is not None], _switches(connection)

        return await self._read(read)


def _said(configuration: EndpointConfiguration) -> tuple[object, ...]:
    """Give what the settings say of a configuration."""
    criteria = [selector.criteria() for selector in configuration.selectors]
    return configuration.enabled, dict(configuration.connection), criteria


def _switches(connection: sqlite3.Connection) -> dict[str, bool]:
    return {kind: bool(enabled) for kind, enabled in connection.execute("SELECT kind, enabled FROM endpoints")}
