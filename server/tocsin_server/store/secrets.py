"""The server's key file, and what is derived from it.

Secret fields are encrypted with AES-256-GCM under a key that lies beside the store, not in it. Each
ciphertext is bound to its place (account, configuration and field): moved elsewhere it does not
decrypt.
"""

from __future__ import annotations

import base64
import hmac
import os
import stat
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.store.database import Store, StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
VERSION = "v1:"


class KeyFile:
    """The master key of a store, readable by its owner only; made together with the store, never later."""

    def __init__(self, path: Path, store: Store) -> None:
        known = _key_check(store)
        if known and not path.exists():
            raise StoreError(f"the key file {path} of the store {store.path} is missing: put it back from your backup")
        try:
            self._key = path.read_bytes() if path.exists() else _create(path)
        except OSError as error:
            raise StoreError(f"the key file {path} cannot be read: {error.strerror}") from error
        if len(self._key) != KEY_BYTES:
            raise StoreError(f"the key file {path} has {len(self._key)} bytes instead of {KEY_BYTES}")
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StoreError(f"the key file {path} can be read by others: chmod 600 it")
        check = self.derive("key check").hex()
        if known and known != check:
            raise StoreError(f"the key file {path} is not that of the store {store.path}: put the right one back")
        if not known:  # each look at the store opens it and closes it again, which writes its log back
            _remember_key_check(store, check)

    def derive(self, purpose: str) -> bytes:
        """Derive a key for one purpose; the same every time."""
        return hmac.digest(self._key, purpose.encode(), "sha256")


def _key_check(store: Store) -> str:
    with store.writer.connection_context():
        return str(store.writer.execute_sql("SELECT key_check FROM log_head").fetchone()[0])


def _remember_key_check(store: Store, check: str) -> None:
    with store.writer.connection_context():
        store.writer.execute_sql("UPDATE log_head SET key_check = ? WHERE key_check = ''", (check,))


def _create(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = os.urandom(KEY_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


class SecretCipher:
    """Encrypts and decrypts secret fields; see `domain.ports.Cipher`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @cached_property
    def _aead(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - with the first secret

        return AESGCM(self._key)

    def encrypt(self, secret: str, place: str) -> str:
        """Encrypt for one place."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._aead.encrypt(nonce, secret.encode(), place.encode())
        return VERSION + base64.b64encode(sealed).decode()

    def decrypt(self, sealed: str, place: str) -> str:
        """Decrypt what was encrypted for this place."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

        try:
            raw = base64.b64decode(sealed.removeprefix(VERSION))
            return self._aead.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], place.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise TocsinError(
                Reason.KEY_MISSING, "a stored secret cannot be decrypted with the server's key: write it anew"
            ) from error
