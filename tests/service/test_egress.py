"""The egress guard: whatever leads inside is reached by no way, whether it is given, looked up or redirected to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from tocsin_server.domain.notifications import Message, Outcome
from tocsin_server.domain.verdicts import ErrorClass, Verdict
from tocsin_server.endpoints.addresses import BlockedAddress, Egress
from tocsin_server.endpoints.email import Email
from tocsin_server.endpoints.http import HttpDoor
from tocsin_server.endpoints.webhook import Webhook

from tests.support.receivers import SECRET, WebhookReceiver

V4 = [
    "0.0.0.0", "0.0.0.1", "0.255.255.255", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200",
    "100.127.255.254", "127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.254", "169.254.0.1", "169.254.169.253",
    "169.254.169.254", "169.254.170.2", "169.254.255.255", "172.16.0.1", "172.17.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1",
    "192.88.99.1", "192.168.0.1", "192.168.1.1", "192.168.255.255", "192.175.48.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "224.0.0.251", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "168.63.129.16",
]  # fmt: skip
V6 = [
    "::", "::1", "::2", "::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1", "100::1", "100:0:0:1::1", "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:7f00:1::1", "2001:2::1", "2001:10::1", "2001:20::1",
    "2001:db8::1", "2620:4f:8000::1", "3fff::1", "5f00::1", "64:ff9b:1::7f00:1", "fc00::1", "fd00::1",
    "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::a9fe:a9fe", "febf::1", "fec0::1", "ff01::1", "ff02::1",
    "ff02::fb", "ff05::2", "ff0e::1", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "4000::1",
    "1::1", "8000::1",
]  # fmt: skip
INNER = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "100.64.0.1", "172.16.0.1")


def embedded(inner: str) -> list[str]:
    """Give the forms of IPv6 that hold an address of IPv4: mapped, NAT64, 6to4."""
    number = int(ipaddress.IPv4Address(inner))
    high, low = number >> 16, number & 0xFFFF
    return [
        f"::ffff:{inner}", f"::ffff:{high:x}:{low:x}", f"0:0:0:0:0:ffff:{inner}", f"64:ff9b::{inner}",
        f"64:ff9b::{high:x}:{low:x}", f"2002:{high:x}:{low:x}::1",
    ]  # fmt: skip


def spelled(inner: str) -> list[str]:
    """Give the spellings of IPv4 that resolvers understand: decimal, hexadecimal, octal, short, other digits."""
    number, parts = int(ipaddress.IPv4Address(inner)), [int(part) for part in inner.split(".")]
    wide = inner.translate({ord(digit): chr(ord(digit) - 48 + 0xFF10) for digit in "0123456789"})
    return [
        str(number), hex(number), hex(number).upper().replace("X", "x"), f"0{number:o}",
        ".".join(f"0x{part:x}" for part in parts), ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}", f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        f"0x{parts[0]:x}.{number & 0xFFFFFF}", f"{inner}.", wide, inner.replace(".", "\u3002"),
        inner.replace(".", "\uff0e"), inner.replace(".", "\uff61"),
    ]  # fmt: skip


ADDRESSES = [*V4, *V6, *(form for inner in INNER for form in embedded(inner))]
OTHER = [
    *(form for inner in INNER for form in spelled(inner)), "0", "0x0", "00", "0.0", "localhost", "LOCALHOST",
    "localhost.", "a.localhost", "fe80::1%lo", "fe80::1%25lo", "::1%lo", "\u2460\u2461\u2466.0.0.1",
    "\u0661\u0662\u0667.\u0660.\u0660.\u0661", "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
]  # fmt: skip
HOSTS = list(dict.fromkeys([*ADDRESSES, *OTHER]))
URLS = [
    "http://user@127.0.0.1:{port}/", "http://user:pass@127.0.0.1:{port}/", "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/", "http://127.0.0.1:{port}@example.com/",
    "http://127.0.0.1:{port}\\@example.com/", "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}%2f@example.com/", "http://%31%32%37.0.0.1:{port}/", "http://127.0.0.1%00:{port}/",
    "http://[::1%2525lo]:{port}/", "http:\\\\127.0.0.1:{port}/", "http:127.0.0.1:{port}/", "http:///127.0.0.1:{port}/",
    "file:///etc/passwd", "ftp://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/",
    "ldap://127.0.0.1:{port}/", "unix:///tmp/socket", "http+unix://%2Ftmp%2Fsocket/", "ws://127.0.0.1:{port}/",
    "javascript:alert(1)", "data:text/plain,x", "//127.0.0.1:{port}/", "http://", "http://:{port}/",
    "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://127.0.0.1:{port}x/", "http://xn--/",
]  # fmt: skip
REDIRECTS = (301, 302, 303, 307, 308)
MESSAGE = Message("d1", 1_800_000_000_000_000, subject={"test": True})


@dataclass
class Canary:
    """Listens on every loopback address; `accepted` counts who got through to it."""

    port: int = 0
    accepted: int = 0


@asynccontextmanager
async def listening() -> AsyncIterator[Canary]:
    canary = Canary()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        canary.accepted += 1
        writer.close()

    first = await asyncio.start_server(accept, "0.0.0.0", 0)
    canary.port = first.sockets[0].getsockname()[1]
    servers = [first]
    if socket.has_ipv6:
        with contextlib.suppress(OSError):  # where it is not switched off
            servers.append(await asyncio.start_server(accept, "::", canary.port))
    yield canary
    for server in servers:
        server.close()


@pytest_asyncio.fixture
async def canary() -> AsyncIterator[Canary]:
    async with listening() as running:
        yield running
        await asyncio.sleep(0)
        assert running.accepted == 0


@pytest.fixture(autouse=True)
def kind_resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Have every name lead to this machine: the worst that a name server can do. No other machine is asked."""

    def answer(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        try:
            return found(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            return found("127.0.0.1", port, type=socket.SOCK_STREAM)

    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return answer


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Have names lead to these addresses, one answer after the other, the last for ever; gives what is asked."""
    asked: list[str] = []

    def answer(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        asked.append(host)
        chosen = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in chosen]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def mail_to(host: str, port: int) -> dict[str, Any]:
    connection = {"host": host, "port": port, "security": "NONE", "from_address": "a@example.com"}
    return connection | {"recipients": ["b@example.com"]}


async def posted(url: str, allow: tuple[str, ...] = ()) -> Outcome:
    door = HttpDoor(Egress(allow), 5.0)
    try:
        return await Webhook(door).send(MESSAGE, {"url": url, "secret": SECRET})
    finally:
        await door.close()


async def mailed(host: str, port: int) -> Outcome:
    kind = Email(Egress([]), 5.0)
    try:
        return await kind.send(MESSAGE, mail_to(host, port))
    finally:
        await kind.close()


def test_the_corpus_is_large_enough() -> None:
    assert len(HOSTS) >= 200
    assert len(set(URLS)) >= 30


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
def test_it_is_refused_when_it_is_saved(host: str) -> None:
    """XD18."""
    found = Webhook(HttpDoor(Egress([]))).check({"url": url_of(host, 8080), "secret": SECRET})
    assert [v.path for v in found] == ["url"]
    assert [v.path for v in Email(Egress([])).check(mail_to(host, 25))] == ["host"]


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
async def test_it_is_not_reached_when_it_is_sent_to(host: str, canary: Canary) -> None:
    """XD18: even if it had been saved."""
    for outcome in (await posted(url_of(host, canary.port)), await mailed(host, canary.port)):
        assert outcome.verdict is not Verdict.DELIVERED
        if host in ADDRESSES:
            assert outcome.error_class is ErrorClass.BLOCKED_ADDRESS


@pytest.mark.parametrize("url", URLS)
async def test_a_url_that_is_read_in_two_ways_is_refused_and_not_reached(url: str, canary: Canary) -> None:
    """XD18, XD21: user names, escapes, backslashes, other schemes."""
    given = url.format(port=canary.port) if "{port}" in url else url
    found = Webhook(HttpDoor(Egress([]))).check({"url": given, "secret": SECRET})
    assert "url" in [v.path for v in found]
    assert (await posted(given)).verdict is not Verdict.DELIVERED


@asynccontextmanager
async def redirecting(status: int, location: str) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": location})

    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
async def test_a_redirect_to_it_is_not_followed(host: str, canary: Canary) -> None:
    """XD10, XD18."""
    status = REDIRECTS[HOSTS.index(host) % len(REDIRECTS)]
    async with redirecting(status, url_of(host, canary.port).encode("ascii", "ignore").decode()) as url:
        outcome = await posted(url, ("127.0.0.1/32",))
    assert (outcome.status_code, outcome.error_class) == (status, ErrorClass.REDIRECT)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_name_that_leads_there_is_refused(
    address: str, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XD19, XD20: at each look-up anew, and whole if one of several addresses is refused."""
    egress = Egress([])
    resolving(monkeypatch, ["93.184.216.34"], [address], ["93.184.216.34", address])
    assert await egress.resolve("rebind.example.com", 80) == ["93.184.216.34"]
    for _ in range(2):
        with pytest.raises(BlockedAddress):
            await egress.resolve("rebind.example.com", 80)
    for answer in ([address], ["93.184.216.34", address]):
        resolving(monkeypatch, answer)
        for outcome in (
            await posted(url_of("rebind.example.com", canary.port)),
            await mailed("rebind.example.com", canary.port),
        ):
            assert (outcome.verdict, outcome.error_class) == (Verdict.RETRY, ErrorClass.BLOCKED_ADDRESS)


async def test_the_address_that_was_vetted_is_the_one_that_is_dialled(
    hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XD19: a name is looked up once for a connection, and that answer is used."""
    asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    url = hook.url.replace("127.0.0.1", "name.example.com")
    assert (await posted(url, ("127.0.0.1/32",))).verdict is Verdict.DELIVERED
    assert asked == ["name.example.com"]
    assert hook.posted[0].headers["host"].startswith("name.example.com:")
    assert (await posted(url, ("127.0.0.1/32",))).error_class is ErrorClass.BLOCKED_ADDRESS


async def test_proxies_and_netrc_have_no_say(
    hook: WebhookReceiver, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XD21."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
        monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{canary.port}")
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (await posted(hook.url, ("127.0.0.0/8",))).verdict is Verdict.DELIVERED
    assert "authorization" not in hook.posted[0].headers
