"""Receivers at the outer edge: a real HTTP server and a real SMTP server on 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiohttp import web
from aiosmtpd.controller import Controller
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Posted:
    """One request that a webhook receiver got."""

    headers: dict[str, str]
    body: bytes
    path: str = "/"

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str = SECRET) -> Any:
        """Check the signature with the public library and give the payload."""
        return Webhook(secret).verify(self.body, self.headers)

    def verified_as_of_then(self) -> Any:
        """Check the signature at the time that it names: for what is looked at long after it came."""
        sent = datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), tz=UTC)
        signature = Webhook(SECRET).sign(self.id, sent, self.body.decode())
        assert signature in self.headers["webhook-signature"].split(" ")
        return json.loads(self.body)


@dataclass
class WebhookReceiver:
    """Collects requests; `answer` decides the status of each."""

    url: str
    posted: list[Posted] = field(default_factory=list)
    answer: Callable[[Posted], Any] = lambda posted: 200
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, count: int) -> list[Posted]:
        """Wait until so many requests have come."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: len(self.posted) >= count)
        return self.posted


class Held:
    """Answers of a receiver that hold until they are let go, and how many were asked for at a time."""

    def __init__(self, hook: WebhookReceiver) -> None:
        self.holds = False
        self.now = self.most = 0
        self.go = asyncio.Event()
        self.status = 200
        hook.answer = self.answer

    async def answer(self, posted: Posted) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.holds:
            await self.go.wait()
        self.now -= 1
        return web.Response(status=self.status, headers={"retry-after": "3600"} if self.status == 429 else {})


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    """Run a webhook receiver on a free port."""
    receiver = WebhookReceiver("")

    async def handle(request: web.Request) -> web.StreamResponse:
        posted = Posted({k.lower(): v for k, v in request.headers.items()}, await request.read(), request.path)
        async with receiver.changed:
            receiver.posted.append(posted)
            receiver.changed.notify_all()
        answer = receiver.answer(posted)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, web.StreamResponse) else web.Response(status=answer)

    application = web.Application()
    application.router.add_post("/{tail:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


class Mailbox:
    """An SMTP server that keeps what it gets; `refuse` maps a recipient to the answer that refuses it."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.refuse: dict[str, str] = {}
        self.port = 0
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Condition()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        asyncio.run_coroutine_threadsafe(self._keep(list(envelope.rcpt_tos), mail), self._loop)
        return "250 OK"

    async def _keep(self, recipients: list[str], mail: EmailMessage) -> None:
        async with self._changed:
            self.mails.append((recipients, mail))
            self._changed.notify_all()

    async def until(self, count: int) -> list[tuple[list[str], EmailMessage]]:
        """Wait until so many mails have come."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(self.mails) >= count)
        return self.mails


def plain_of(mail: EmailMessage) -> str:
    """Give the text of a mail that has HTML beside it."""
    found = mail.get_body(("plain",))
    assert isinstance(found, EmailMessage)
    return str(found.get_content()).replace("\r\n", "\n")


class _FreePort(Controller):
    """aiosmtpd's controller asks the configured port whether it is up: tell it the real one."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def mailbox() -> AsyncIterator[Mailbox]:
    """Run a mailbox on a free port."""
    box = Mailbox()
    controller = _FreePort(box, hostname="127.0.0.1", port=0)
    await asyncio.to_thread(controller.start)
    box.port = controller.port
    try:
        yield box
    finally:
        await asyncio.to_thread(controller.stop)
