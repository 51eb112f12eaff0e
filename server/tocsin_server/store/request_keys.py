"""Request ids of creates: the same id with the same content answers what it made the first time."""

from __future__ import annotations

from tocsin_server.domain.errors import request_id_reused
from tocsin_server.store.appending import INSERT_REQUEST
from tocsin_server.store.writer import Transaction


def known_answer(transaction: Transaction, account: str, method: str, request_id: str, digest: bytes) -> str:
    """Give the id that this request made before; empty when it is new."""
    if not request_id:
        return ""
    row = transaction.connection.execute(
        "SELECT digest, answer FROM request_keys WHERE account = ? AND method = ? AND request_id = ?",
        (account, method, request_id),
    ).fetchone()
    if row is None:
        return ""
    if bytes(row[0]) != digest:
        raise request_id_reused(request_id, bytes(row[0]), digest)
    return str(row[1])


def remember(transaction: Transaction, account: str, method: str, request_id: str, digest: bytes, answer: str) -> None:
    """Remember what a request made."""
    if request_id:
        values = (account, method, request_id, digest, answer, transaction.log.created_at)
        transaction.connection.execute(INSERT_REQUEST, values)
