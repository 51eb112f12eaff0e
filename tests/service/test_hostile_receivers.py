"""Receivers that answer what is no HTTP, or nothing: each is tried again, none ends a delivery for ever."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tocsin_server.domain.notifications import EXCERPT_BYTES_MAX, Message, Outcome
from tocsin_server.domain.verdicts import ErrorClass, Verdict
from tocsin_server.endpoints import addresses
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.email import Email
from tocsin_server.endpoints.faults import class_of
from tocsin_server.endpoints.http import HttpDoor
from tocsin_server.endpoints.webhook import Webhook

from tests.support import zoo
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


async def sent(url: str, allow: tuple[str, ...] = ("127.0.0.0/8",), deadline_s: float = 5.0) -> Outcome:
    door = HttpDoor(Egress(allow), deadline_s)
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


# What each of the zoo comes to.
ZOO = [
    (zoo.hangs, Verdict.RETRY, ErrorClass.TIMEOUT),
    (zoo.trickles, Verdict.RETRY, ErrorClass.TIMEOUT),
    (zoo.informs_without_end, Verdict.RETRY, ErrorClass.TIMEOUT),
    (zoo.tls_never_ends, Verdict.RETRY, ErrorClass.TIMEOUT),
    (zoo.never_ends, Verdict.DELIVERED, ErrorClass.NONE),
    (zoo.never_ends_and_fails, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    (zoo.huge_head, Verdict.RETRY, ErrorClass.PROTOCOL_ERROR),
    (zoo.bomb, Verdict.DELIVERED, ErrorClass.NONE),
    (zoo.answers_before_it_reads, Verdict.DELIVERED, ErrorClass.NONE),
    (zoo.informs_then_answers, Verdict.DELIVERED, ErrorClass.NONE),
    (zoo.bad_chunks, Verdict.DELIVERED, ErrorClass.NONE),
    (zoo.resets_after_the_answer, Verdict.DELIVERED, ErrorClass.NONE),
    (zoo.resets, Verdict.RETRY, ErrorClass.CONNECTION_RESET),
    (zoo.closes, Verdict.RETRY, ErrorClass.CONNECTION_RESET),
    (zoo.speaks_no_tls, Verdict.RETRY, ErrorClass.TLS_ERROR),
]


@pytest.mark.parametrize(("behaviour", "verdict", "error_class"), ZOO, ids=[b.__name__ for b, _, _ in ZOO])
async def test_each_of_the_zoo_has_its_verdict_in_time(
    behaviour: zoo.Behaviour, verdict: Verdict, error_class: ErrorClass
) -> None:
    """XD7, XD8, XD9, XD33: one deadline over the whole exchange, bounded reading, a whole head decides."""
    slow = error_class is ErrorClass.TIMEOUT
    async with zoo.receiver(behaviour) as url:
        scheme = "https" if "tls" in behaviour.__name__ else "http"
        began = asyncio.get_running_loop().time()
        outcome = await sent(url.replace("http", scheme, 1), deadline_s=0.5 if slow else 10.0)
        took = asyncio.get_running_loop().time() - began
    assert (outcome.verdict, outcome.error_class) == (verdict, error_class), outcome.error
    assert took < 3.0
    assert len(outcome.response_excerpt.encode()) <= EXCERPT_BYTES_MAX * 3


async def test_an_address_that_takes_no_connection_is_given_up_in_time() -> None:
    """XD7: its queue is full, so a connection is never made."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        blocked = [socket.socket() for _ in range(4)]
        for one in blocked:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        outcome = await sent(f"http://127.0.0.1:{full.getsockname()[1]}/", deadline_s=0.5)
        for one in blocked:
            one.close()
    assert outcome.error_class is ErrorClass.TIMEOUT


@pytest.mark.parametrize(
    ("error", "verdict", "error_class"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Verdict.RETRY, ErrorClass.DNS_ERROR),
        (socket.gaierror(socket.EAI_NODATA, "No address"), Verdict.RETRY, ErrorClass.DNS_ERROR),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), Verdict.OUTAGE, ErrorClass.DNS_UNAVAILABLE),
        (None, Verdict.RETRY, ErrorClass.CONNECTION_ERROR),
        (TimeoutError(), Verdict.OUTAGE, ErrorClass.DNS_UNAVAILABLE),
    ],
)
async def test_a_name_that_is_not_found_is_the_receivers_fault_a_resolver_that_is_down_is_ours(
    monkeypatch: pytest.MonkeyPatch, error: OSError | None, verdict: Verdict, error_class: ErrorClass
) -> None:
    """XD17: NXDOMAIN, no address, SERVFAIL, an empty answer, a resolver that hangs."""

    async def resolve(*arguments: object, **named: object) -> list[object]:
        if isinstance(error, TimeoutError):
            await asyncio.Event().wait()
        if error is not None:
            raise error
        return []

    monkeypatch.setattr(addresses, "LOOKUP_DEADLINE_S", 0.1)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    outcome = await sent("http://hook.example.com/")
    assert (outcome.verdict, outcome.error_class) == (verdict, error_class), outcome.error


async def test_a_machine_without_a_way_out_blames_nobody() -> None:
    """No route at all: connecting fails here, not there."""
    unreachable = OSError(errno.ENETUNREACH, "Network is unreachable")
    try:
        raise OSError("wrapped") from unreachable
    except OSError as error:
        assert class_of(error) is ErrorClass.NETWORK_UNREACHABLE


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
