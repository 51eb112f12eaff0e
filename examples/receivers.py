"""What stands in for the world outside: a webhook receiver and a mailbox, on free ports of 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from aiosmtpd.smtp import SMTP, Envelope, Session
from standardwebhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True)
class Post:
    """A webhook message whose signature was right. `id` is the same in every attempt of a delivery."""

    path: str
    id: str
    body: Any


@dataclass(frozen=True)
class Mail:
    """A mail as it arrived. `id` is the local part of its Message-ID."""

    id: str
    recipients: tuple[str, ...]
    subject: str
    body: str


class WebhookReceiver:
    """Takes posts, checks their signatures with the public library of Standard Webhooks.

    A post with a wrong signature is answered 401 and counted in `refused`.
    """

    def __init__(self, on_post: Callable[[Post], None]) -> None:
        self.refused = 0
        self._on_post = on_post
        self._secrets: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def expect(self, path: str, secret: str) -> str:
        """Take posts to a path that are signed with this secret; answers the URL to post to."""
        self._secrets[path] = secret
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def receive(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Judge one post and answer the HTTP status."""
        try:
            Webhook(self._secrets[path]).verify(body, headers)
        except (KeyError, WebhookVerificationError):
            self.refused += 1
            return 401
        id = {name.lower(): value for name, value in headers.items()}["webhook-id"]
        self._on_post(Post(path, id, json.loads(body)))
        return 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver.receive(self.path, dict(self.headers.items()), body))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep standard error free of a line for each post."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Mailbox:
    """Takes every mail, without protection: only for 127.0.0.1."""

    def __init__(self, on_mail: Callable[[Mail], None]) -> None:
        self.port = 0
        self._on_mail = on_mail
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    # The name is aiosmtpd's: called for each mail.
    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take a mail."""
        content = envelope.content
        raw = content if isinstance(content, bytes) else str(content).encode()
        mail = message_from_bytes(raw, policy=default_policy)
        assert isinstance(mail, EmailMessage)
        id = str(mail["Message-ID"]).strip("<>").rpartition("@")[0]
        recipients = tuple(str(name) for name in envelope.rcpt_tos)
        text = mail.get_body(("plain",))
        body = str(text.get_content()).replace("\r\n", "\n") if text is not None else ""
        # A folded header keeps the blank at which it was folded.
        self._on_mail(Mail(id, recipients, str(mail["Subject"]).strip(), body))
        return "250 taken"

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(
            lambda: SMTP(self, hostname="localhost", loop=self._loop), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        # Connections that are still open have tasks of their own.
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
