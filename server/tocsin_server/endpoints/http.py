"""The one door through which HTTP leaves: vetted addresses, no redirects, bounded in time and size."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_server.domain.notifications import SEND_DEADLINE_S
from tocsin_server.domain.verdicts import ErrorClass
from tocsin_server.endpoints.addresses import Egress

if TYPE_CHECKING:
    from tocsin_server.endpoints._http_carrier import Carrier

CARRIER = "tocsin_server.endpoints._http_carrier"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered: status, headers in lower case, the beginning of the body."""

    status: int
    headers: Mapping[str, str]
    excerpt: str


class NoAnswer(OSError):
    """There was no answer; `error_class` says in which way."""

    def __init__(self, error_class: ErrorClass, text: str) -> None:
        super().__init__(text)
        self.error_class = error_class


def trust(pem: str) -> ssl.SSLContext:
    """Make a context that trusts these certificates and no others; ValueError says what is wrong with them."""
    try:
        context = ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError("holds no certificate in PEM form that can be read") from error
    if not context.get_ca_certs():
        raise ValueError("holds no certificate of an authority")
    return context


class HttpDoor:
    """Sends requests; belongs to the event loop that uses it first."""

    def __init__(self, egress: Egress, deadline_s: float = SEND_DEADLINE_S) -> None:
        self.egress = egress
        self._deadline_s = deadline_s
        self._carrier: Carrier | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, ca: str = "") -> Answer:
        """Post once, trusting the certificates `ca` (PEM) instead of the system's where they are given.

        Raises NoAnswer, BlockedAddress or TimeoutError when there is no answer.
        """
        if self._carrier is None:
            # The libraries take a quarter of the time that a server needs to start: they come with the first request.
            module = await asyncio.to_thread(importlib.import_module, CARRIER)
            if self._carrier is None:
                self._carrier = module.Carrier(self.egress, self._deadline_s)
        return await self._carrier.post(url, headers, body, ca)

    async def close(self) -> None:
        """Close all connections."""
        if self._carrier is not None:
            await self._carrier.close()
