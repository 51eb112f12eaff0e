"""A receiver of webhooks on this machine: verifies each, hands it on where that is wanted, and tells what it got."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Self
from urllib.parse import urlsplit

from tocsin.signatures import WebhookRefused, verify_webhook

BODY_BYTES_MAX = 8 * 1_048_576
_IDLE_S = 30.0  # a sender that says nothing for so long is let go
_FORWARD_S = 14.0  # tocsin waits 15 s for an answer
_ANSWER_BYTES_MAX = 1_048_576
# What belongs to one connection and not to the message.
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade", "host", "content-length", "expect")
)  # fmt: skip
_PLAIN = (("content-type", "text/plain; charset=utf-8"),)
_ANSWERED = frozenset(("content-type", "retry-after"))


@dataclass(frozen=True)
class Received:
    """A request and what became of it. `refused` says why it was not verified, `unreached` why it was not handed on."""

    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    status: int = 0
    id: str = ""
    refused: str = ""
    unreached: str = ""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Answer:
    """What is answered to the sender."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


class Target:
    """Where verified webhooks are handed on to: the same body and headers, the same answer. Redirects are not followed.

    Raises ValueError for what is no URL of HTTP.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise ValueError(f"{url!r} is no URL: give http://HOST:PORT/PATH")
        if parts.username is not None:
            raise ValueError("a URL with a user is not taken")
        self._host, self._port = parts.hostname, parts.port
        self._is_secure = parts.scheme == "https"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def post(self, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """Hand a webhook on. Raises OSError or HTTPException where there is no answer."""
        kind = HTTPSConnection if self._is_secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=_FORWARD_S)
        try:
            connection.putrequest("POST", self._path, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() in _ANSWERED]
            return Answer(answer.status, kept, answer.read(_ANSWER_BYTES_MAX))
        finally:
            connection.close()


class _Server(ThreadingTCPServer):
    """Like HTTPServer, which would look the host's name up first."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[BaseRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that goes away is no fault of ours."""


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    has_body = answer.status not in (204, 304)
    handler.send_response(answer.status)
    for name, value in answer.headers:
        handler.send_header(name, value)
    if has_body:
        handler.send_header("content-length", str(len(answer.body)))
    handler.end_headers()
    if has_body:
        handler.wfile.write(answer.body)


class Receiver:
    """Listens for webhooks until it is closed. `told` is called with each request, in the thread that answered it."""

    def __init__(
        self,
        host: str,
        port: int,
        secrets: Sequence[str],
        told: Callable[[Received], None],
        target: Target | None = None,
    ) -> None:
        """Listen. Raises OSError where that cannot be."""
        self._secrets = list(secrets)
        self._told = told
        self._target = target
        self._server = _Server(host, port, self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def judge(self, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> tuple[Received, Answer]:
        """Verify one request, and hand it on."""
        found = Received(path, headers, body)
        try:
            id = verify_webhook(self._secrets, dict(headers), body)
        except WebhookRefused as error:
            found = replace(found, status=401, refused=str(error))
            return found, Answer(401, _PLAIN, f"not verified: {error}\n".encode())
        answer, unreached = Answer(204), ""
        if self._target is not None:
            try:
                answer = self._target.post(headers, body)
            except (OSError, HTTPException) as error:
                unreached = str(error) or type(error).__name__
                answer = Answer(502, _PLAIN, b"it could not be handed on\n")
        return replace(found, status=answer.status, id=id, unreached=unreached), answer

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        """Read, judge and answer one request."""
        headers = list(handler.headers.items())
        length = handler.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            status = 413 if length.isdecimal() else 411
            why = f"its body is larger than {BODY_BYTES_MAX} bytes" if status == 413 else "it has no length"
            found, answer = Received(handler.path, headers, b"", status, refused=why), Answer(status)
        else:
            found, answer = self.judge(handler.path, headers, handler.rfile.read(int(length)))
        try:
            _send(handler, answer)
        finally:
            self._told(found)  # also when the sender has gone: it will come again

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _IDLE_S

            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None:
                """Keep standard error for what the command says."""

        return Handler
