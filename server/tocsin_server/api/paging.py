"""Page tokens: opaque, signed, bound to what was asked and to the account, not to the size of the page."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import PAGE_BYTES_MAX, PAGE_EVENTS_DEFAULT, PAGE_EVENTS_MAX

M = TypeVar("M", bound=Message)
SIGNATURE_BYTES = 16
QUERY_BYTES = 8
UNBOUND = {"page_token", "page_size", "with_total_size"}  # what may be asked differently for each page


def page_size(asked: int) -> int:
    """Give the entries of a page: 0 is the default, too many is the most."""
    return min(asked or PAGE_EVENTS_DEFAULT, PAGE_EVENTS_MAX)


def fitting(messages: Iterable[M]) -> list[M]:
    """Take as many messages as fit into one answer, at least one."""
    taken: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if taken and size > PAGE_BYTES_MAX:
            break
        taken.append(message)
    return taken


class PageTokens:
    """Makes and reads page tokens with the server's own key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, account: str, request: Message, place: Sequence[int | str]) -> str:
        """Make the token of the page that begins after `place`."""
        payload = self._query(account, request) + json.dumps(list(place), separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(payload) + payload).decode().rstrip("=")

    def read(self, account: str, request: Message, token: str) -> list[int | str]:
        """Read the place out of a token of the same question."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raw = b""
        signature, payload = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
        if len(payload) <= QUERY_BYTES or not hmac.compare_digest(signature, self._sign(payload)):
            raise TocsinError(Reason.INVALID_PAGE_TOKEN, "page_token is not one of this server")
        if payload[:QUERY_BYTES] != self._query(account, request):
            raise TocsinError(
                Reason.PAGE_TOKEN_MISMATCH,
                "page_token belongs to another filter, order or account: begin anew",
            )
        place: list[int | str] = json.loads(payload[QUERY_BYTES:])
        return place

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, "sha256")[:SIGNATURE_BYTES]

    @staticmethod
    def _query(account: str, request: Message) -> bytes:
        asked = type(request)()
        asked.CopyFrom(request)
        for field in UNBOUND.intersection(asked.DESCRIPTOR.fields_by_name):
            asked.ClearField(field)
        named = f"{account}\0{request.DESCRIPTOR.full_name}\0".encode()
        return hashlib.sha256(named + asked.SerializeToString(deterministic=True)).digest()[:QUERY_BYTES]
