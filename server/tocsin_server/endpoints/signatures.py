"""Signatures of webhooks as Standard Webhooks 1.0.0 has them: `v1` with a shared secret, `v1a` with a private key.

What is signed is the id of the message, the Unix seconds of the attempt and the body, joined by dots.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)  # as the specification has it
PRIVATE_PREFIX = "whsk_"
SEED_BYTES = 32  # a seed alone, or with its public key behind it


def signing_key(secret: str) -> bytes:
    """Read a secret; ValueError says what is wrong with it."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"has to begin with {SECRET_PREFIX}, then the base64 of 24 to 64 random bytes")
    try:
        key = base64.b64decode(secret[len(SECRET_PREFIX) :], validate=True)
    except binascii.Error as error:
        raise ValueError(f"is not base64 after {SECRET_PREFIX}") from error
    if len(key) not in SECRET_BYTES:
        raise ValueError(f"holds {len(key)} bytes, 24 to 64 are allowed")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Sign as Standard Webhooks `v1`: HMAC-SHA256 over id, Unix seconds of the attempt, and body."""
    signed = _signed(message_id, timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(signing_key(secret), signed, "sha256")).decode()


def private_key(text: str) -> Ed25519PrivateKey:
    """Read a private key; ValueError says what is wrong with it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - few have such a key
        Ed25519PrivateKey,
    )

    if not text.startswith(PRIVATE_PREFIX):
        raise ValueError(f"has to begin with {PRIVATE_PREFIX}, then the base64 of an Ed25519 key")
    try:
        key = base64.b64decode(text[len(PRIVATE_PREFIX) :], validate=True)
    except binascii.Error as error:
        raise ValueError(f"is not base64 after {PRIVATE_PREFIX}") from error
    if len(key) not in (SEED_BYTES, 2 * SEED_BYTES):
        raise ValueError(f"holds {len(key)} bytes, an Ed25519 key has {SEED_BYTES} or {2 * SEED_BYTES}")
    return Ed25519PrivateKey.from_private_bytes(key[:SEED_BYTES])


def asymmetric_signature(key: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Sign as Standard Webhooks `v1a`: Ed25519 over the same."""
    return "v1a," + base64.b64encode(private_key(key).sign(_signed(message_id, timestamp, body))).decode()


def _signed(message_id: str, timestamp: int, body: bytes) -> bytes:
    return b".".join((message_id.encode(), str(timestamp).encode(), body))
