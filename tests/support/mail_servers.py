"""Mail servers at the outer edge: a real one with TLS and users, and one that says what it is told to say."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

DROP = "drop"  # instead of an answer: the connection ends
HANG = "hang"  # instead of an answer: nothing
OFFERS = "250-mail.test\r\n250-SIZE 1000000\r\n250 HELP"
USUAL = {"": "220 mail.test", "EHLO": OFFERS, "DATA": "354 go on", ".": "250 taken", "QUIT": "221 bye"}


@dataclass
class MailServer:
    """What a mail server has seen. `refuse` gives the answers to a recipient, one after the other."""

    port: int = 0
    mails: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    refuse: dict[str, list[str]] = field(default_factory=dict)
    connections: int = 0
    logins: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    open: set[SMTP] = field(default_factory=set)
    most_open: int = 0
    quiet: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        answers = self.refuse.get(address)
        if answers:
            return answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append((list(envelope.rcpt_tos), mail))
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        """Let Ann in."""
        assert isinstance(given, LoginPassword)
        self.logins.append(given.login.decode())
        return AuthResult(success=(given.login, given.password) == (b"ann", b"pass word"), handled=False)

    def break_off(self) -> None:
        """End every connection, as a server does that starts anew."""
        for one in list(self.open):
            if one.transport is not None:
                one.transport.close()


class _Counted(SMTP):
    def __init__(self, seen: MailServer, **options: Any) -> None:
        super().__init__(seen, **options)
        self._seen = seen

    def connection_made(self, transport: Any) -> None:
        if self.session is None:  # else it goes on over TLS
            self._seen.connections += 1
        self._seen.open.add(self)
        self._seen.most_open = max(self._seen.most_open, len(self._seen.open))
        super().connection_made(transport)

    def connection_lost(self, error: Any) -> None:
        self._seen.open.discard(self)
        if not self._seen.open:
            self._seen.quiet.set()
        super().connection_lost(error)


@asynccontextmanager
async def mail_server(
    implicit: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None, users: bool = False
) -> AsyncIterator[MailServer]:
    """Run a mail server on a free port: TLS from the first byte, by STARTTLS, or none; with users or without."""
    seen = MailServer()

    def made() -> SMTP:
        with warnings.catch_warnings(action="ignore"):  # it does not see TLS that is there from the first byte
            return _Counted(
                seen,
                hostname="mail.test",
                tls_context=starttls,
                require_starttls=starttls is not None,
                auth_required=users,
                authenticator=seen.authenticate if users else None,
                auth_require_tls=starttls is not None,
            )

    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0, ssl=implicit)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        seen.break_off()


@asynccontextmanager
async def scripted(script: dict[str, str | Callable[[], str]]) -> AsyncIterator[MailServer]:
    """Run a mail server that answers to a command as the script says; "" is the greeting, "." the end of a mail."""
    seen = MailServer()
    running: set[asyncio.Task[Any]] = set()

    async def answer(writer: asyncio.StreamWriter, verb: str) -> str:
        said = script.get(verb, USUAL.get(verb, "250 OK"))
        text = said() if callable(said) else said
        if text == HANG:
            await asyncio.Event().wait()
        if text == DROP:
            raise ConnectionError
        writer.write(text.encode("utf-8", "surrogateescape") + b"\r\n")
        await writer.drain()
        return text

    async def content(reader: asyncio.StreamReader) -> None:
        raw = (await reader.readuntil(b"\r\n.\r\n")).removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        mail = message_from_bytes(raw, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        recipients = [line[8:].strip("<>") for line in seen.commands if line.startswith("RCPT TO:")]
        seen.mails.append((recipients, mail))

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        await answer(writer, "")
        while line := (await reader.readline()).decode().strip():
            seen.commands.append(line)
            verb = line.partition(" ")[0].upper()
            if verb == "DATA" and (await answer(writer, verb)).startswith("354"):
                await content(reader)
                await answer(writer, ".")
            elif verb != "DATA":
                await answer(writer, verb)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
