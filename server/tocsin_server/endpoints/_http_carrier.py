"""What carries requests behind the door of `http.py`, which loads it with the first of them.

httpx gives the vocabulary, httpx-aiohttp carries the bytes. Names are looked up and vetted by our own
resolver, and the connection goes to the vetted address; literal addresses, which a connector does not
look up, are vetted before. No proxy or other setting of the environment has a say.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import OrderedDict
from collections.abc import Mapping

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport

from tocsin_server.domain.notifications import EXCERPT_BYTES_MAX
from tocsin_server.domain.verdicts import ErrorClass
from tocsin_server.endpoints.addresses import BlockedAddress, Egress
from tocsin_server.endpoints.faults import class_of
from tocsin_server.endpoints.http import Answer, NoAnswer, trust

CONNECT_DEADLINE_S = 10.0
BODY_DEADLINE_S = 2.0  # for the beginning of a body, which decides nothing
BODY_BYTES_MAX = 64 * 1024  # an answer is read so far, for its verdict; the rest is dropped
URLS_MAX = 10_000
CONNECTIONS_MAX = 256
CONNECTIONS_PER_HOST = 64
TRANSPORTS_MAX = 64  # with certificates of their own


class _VettedResolver(AbstractResolver):
    """Looks names up for the connector; an address that is not vetted is never dialled."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the vetted addresses of a host."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._egress.resolve(host, port)
        ]

    async def close(self) -> None:
        """Nothing is held."""


class Carrier:
    """Sends requests; belongs to the event loop that uses it first."""

    def __init__(self, egress: Egress, deadline_s: float) -> None:
        self._egress = egress
        self._deadline_s = deadline_s
        self._transports: OrderedDict[str, AiohttpTransport] = OrderedDict()  # by the certificates that they trust
        self._urls: dict[str, httpx.URL] = {}

    def _open(self, ca: str) -> AiohttpTransport:
        found = self._transports.get(ca)
        if found is None:
            found = self._transports[ca] = self._new(ca)
        self._transports.move_to_end(ca)
        return found

    def _new(self, ca: str) -> AiohttpTransport:
        connector = aiohttp.TCPConnector(
            resolver=_VettedResolver(self._egress),
            limit=CONNECTIONS_MAX,
            limit_per_host=CONNECTIONS_PER_HOST,
            ttl_dns_cache=10,
            ssl=trust(ca) if ca else True,
            socket_factory=self._socket,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return AiohttpTransport(client=session, trust_env=False)

    def _socket(self, found: aiohttp.AddrInfoType) -> socket.socket:
        """Make a socket for an address, vetted once more at the last moment: whatever came before, it is this one."""
        family, kind, protocol, _, address = found
        self._egress.vet_dialled(str(address[0]))
        return socket.socket(family, kind, protocol)

    async def _close_oldest(self) -> None:
        """Keep few: one that was not used for long opens its connections anew."""
        while len(self._transports) > TRANSPORTS_MAX:
            _, oldest = self._transports.popitem(last=False)
            await oldest.aclose()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, ca: str = "") -> Answer:
        """Post once; raises NoAnswer, BlockedAddress or TimeoutError when there is no answer."""
        request = httpx.Request("POST", self._vetted(url), headers=headers, content=body)
        request.extensions = {"timeout": {"connect": CONNECT_DEADLINE_S}}
        async with asyncio.timeout(self._deadline_s):
            try:
                response = await self._open(ca).handle_async_request(request)
            except (httpx.TransportError, aiohttp.ClientError, ValueError) as error:
                # The transport lets answers that are no HTTP, and names that are no names, through as they are.
                blocked = _blocked(error)
                if blocked is not None:
                    raise blocked from error
                raise NoAnswer(class_of(error), _plainly(error)) from error
        try:
            excerpt = await _beginning(response)
        finally:
            await response.aclose()
            await self._close_oldest()
        shown = excerpt[:EXCERPT_BYTES_MAX].decode("utf-8", "replace")
        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        return Answer(response.status_code, named, shown)

    def _vetted(self, url: str) -> httpx.URL:
        """Parse a URL and vet its host if that is an address; the same few come again and again."""
        found = self._urls.get(url)
        if found is None:
            try:
                found = httpx.URL(url)
                host = found.host
            except (httpx.InvalidURL, ValueError) as error:
                raise NoAnswer(ErrorClass.PROTOCOL_ERROR, f"it is no URL: {error}") from error
            self._egress.vet_literal(host)
            if len(self._urls) >= URLS_MAX:
                self._urls.clear()
            self._urls[url] = found
        return found

    async def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.aclose()


async def _beginning(response: httpx.Response) -> bytes:
    """Read the beginning of a body; a complete status line and headers already decide the verdict."""
    read = b""
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for chunk in response.aiter_raw():
                read += chunk
                if len(read) >= BODY_BYTES_MAX:
                    break
    except (httpx.TransportError, aiohttp.ClientError, ValueError, TimeoutError):
        pass  # it broke or stalled after the headers: what was read is what there is
    return read[:BODY_BYTES_MAX]


def _plainly(error: BaseException) -> str:
    """Say why there was no answer: in the system's words where there are some, not the library's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            found = re.search(r"\[(.*)\]", cause.strerror)
            return found[1] if found else cause.strerror
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the answer is no HTTP: {error.message}"[:500]
    return str(error)[:500] or type(error).__name__


def _blocked(error: BaseException) -> BlockedAddress | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BlockedAddress):
            return cause
        cause = getattr(cause, "os_error", None) or cause.__cause__ or cause.__context__
    return None
