"""Receivers that answer what is no HTTP, or nothing: each is tried again, none ends a delivery for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tocsin_server.domain.notifications import Message, Outcome
from tocsin_server.domain.verdicts import ErrorClass, Verdict
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.email import Email
from tocsin_server.endpoints.http import HttpDoor
from tocsin_server.endpoints.webhook import Webhook

from tests.support.receivers import SECRET

Answer = Callable[[asyncio.StreamWriter], None]
OK = b"HTTP/1.1 200 OK\r\n"
BAD_ANSWERS = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    OK + b"content-length: -1\r\n\r\n",
    OK + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nabc",
    OK + b"x: " + b"a" * 20_000 + b"\r\n\r\n",
    OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    b"\x00" * 100,
    b"",
]


@asynccontextmanager
async def answering(raw: bytes) -> AsyncIterator[str]:
    """Answer every connection with these bytes, then close it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await server.wait_closed()


async def sent(url: str, allow: tuple[str, ...] = ("127.0.0.0/8",)) -> Outcome:
    door = HttpDoor(Egress(allow))
    try:
        message = Message("d1", 1_800_000_000_000_000, subject={"test": True})
        return await Webhook(door).send(message, {"url": url, "secret": SECRET})
    finally:
        await door.close()


@pytest.mark.parametrize("raw", BAD_ANSWERS, ids=range(len(BAD_ANSWERS)))
async def test_what_is_no_http_is_tried_again(raw: bytes) -> None:
    """XD33."""
    async with answering(raw) as url:
        outcome = await sent(url)
    assert outcome.verdict is Verdict.RETRY
    assert outcome.error_class in (ErrorClass.PROTOCOL_ERROR, ErrorClass.CONNECTION_RESET)


async def test_a_whole_status_and_headers_deliver_even_if_the_body_breaks() -> None:
    async with answering(OK + b"content-length: 10\r\n\r\nabc") as url:
        assert (await sent(url)).verdict is Verdict.DELIVERED


async def test_a_redirect_is_not_followed() -> None:
    """XD10."""
    async with answering(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n") as url:
        outcome = await sent(url)
    assert outcome.error == "REDIRECT_NOT_FOLLOWED: http://127.0.0.1:1/"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/", "http://[::ffff:127.0.0.1]/"]
)
async def test_what_is_inside_is_not_reached(url: str) -> None:
    """XD18."""
    outcome = await sent(url, allow=())
    assert outcome.error.startswith("BLOCKED_ADDRESS: ")


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0", "017700000001", "a..b"])
def test_hosts_that_resolvers_read_as_addresses_are_refused_when_saved(host: str) -> None:
    kind = Webhook(HttpDoor(Egress(["127.0.0.0/8"])))
    assert [v.path for v in kind.check({"url": f"http://{host}/", "secret": SECRET})] == ["url"]


async def test_what_an_event_brings_into_a_template_adds_no_receivers() -> None:
    """XD24: one text is one address."""
    connection = {"host": "127.0.0.1", "port": 9, "from_address": "a@example.com", "recipients": ["b@example.com"]}
    message = Message("d1", 0, params={"to": "b@example.com, evil@example.com"}, subject={"alert_id": "x"})
    outcome = await Email(Egress(["127.0.0.0/8"])).send(message, connection)
    assert (outcome.verdict, outcome.reason) == (Verdict.PERMANENT, "RENDER")
    kind = Email(Egress([]))
    assert [v.path for v in kind.check_action({"to": "a@x.de, b@x.de"})] == ["to"]
    assert kind.check_action({"to": ["a@x.de", "{{context.owner}}"]}) == []
