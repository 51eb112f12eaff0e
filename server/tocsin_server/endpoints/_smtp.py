"""The one door through which mail leaves: vetted addresses, protection as asked, connections that are kept.

A connection is opened for one server as one user, and kept for a while after a mail: the handshakes cost
more than the mail. The server's answers are given as they are; what they mean is in `verdicts.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import aiosmtplib

from tocsin_server.domain.notifications import SEND_DEADLINE_S
from tocsin_server.domain.verdicts import ErrorClass, MailStage
from tocsin_server.endpoints.addresses import BlockedAddress, Egress
from tocsin_server.endpoints.faults import class_of
from tocsin_server.endpoints.http import NoAnswer, trust

CONNECT_DEADLINE_S = 10.0
ALIVE_DEADLINE_S = 3.0  # a kept connection that does not answer so soon is dropped for a new one
QUIT_DEADLINE_S = 2.0
IDLE_S = 30.0  # a connection without mail is kept so long; servers end them after minutes
MAILS_MAX = 100  # over one connection: servers take no more than some hundreds
CONNECTIONS_MAX = 8  # to one server as one user: more are refused by many
IDLE_MAX = 64  # connections that are kept, in all
PLACE_S = 20.0  # a mail waits so long for a connection: together with its deadline shorter than a lease
TRUSTED_MAX = 64  # sets of certificates that are kept ready
CLOSING = 421  # the server ends the connection with this answer
UNKNOWN_USER = 530  # it wants to know who we are, before anything else
FULL_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
SSL_PLACE = re.compile(r"^\[[^]]*\] | \(_ssl\.c:[0-9]+\)$")
METHODS = ("plain", "login", "cram-md5")  # one is tried, the first that is offered: more would lock the user out
IN_DOUBT = "the server did not answer to the whole mail: it may have taken it"


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server, how it is reached, and as whom: what connections are shared by."""

    host: str
    port: int
    security: str
    username: str = ""
    password: str = field(default="", repr=False)
    ca_certificate: str = field(default="", repr=False)


def readable(text: str) -> str:
    """Replace what is no text in a server's words."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Refused(Exception):
    """The server answered that it does not go on."""

    def __init__(self, stage: MailStage, code: int, text: str) -> None:
        super().__init__(text)
        self.stage, self.code, self.text = stage, code, readable(text)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server said about one recipient."""

    stage: MailStage
    code: int
    text: str


@dataclass(slots=True)
class _Mail:
    """One mail on its way; `in_doubt` from its last byte to the server's word on it."""

    sender: str
    recipients: Sequence[str]
    content: bytes
    in_doubt: bool = False


class _Connection:
    """One connection that greets, is protected and logged in."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self.client = client
        self.mails = 0
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        return self.client.is_connected and self.mails < MAILS_MAX

    async def begin(self, mail: _Mail) -> None:
        """Begin to hand a mail over."""
        sized = [f"SIZE={len(mail.content)}"] if self.client.supports_extension("size") else []
        try:
            await self.client.mail(mail.sender, options=sized)
        except aiosmtplib.SMTPResponseException as error:
            raise Refused(MailStage.SENDER, error.code, error.message) from error

    async def name(self, recipients: Sequence[str]) -> dict[str, Reply]:
        """Name the recipients; the server's word on each."""
        replies: dict[str, Reply] = {}
        for recipient in recipients:
            try:
                code, text = await self.client.rcpt(recipient)
            except aiosmtplib.SMTPResponseException as error:
                if error.code in (CLOSING, UNKNOWN_USER):
                    raise Refused(MailStage.RECIPIENT, error.code, error.message) from error
                code, text = error.code, readable(error.message)
            replies[recipient] = Reply(MailStage.RECIPIENT, code, text)
        return replies

    async def hand_over(self, mail: _Mail) -> Reply:
        """Give the mail itself; once its last byte is under way, no answer means that it may have been taken."""
        code, text = await self.client.execute_command(b"DATA")
        protocol = self.client.protocol
        if code != 354 or protocol is None:
            return Reply(MailStage.CONTENT, code if code >= 400 else 0, readable(text))
        mail.in_doubt = True
        protocol.write(re.sub(rb"(?m)^\.", b"..", mail.content) + b".\r\n")
        code, text = await protocol.read_response()
        mail.in_doubt = False
        self.mails += 1
        return Reply(MailStage.CONTENT, code, readable(text))

    async def forget(self) -> None:
        """Have the server forget a mail that is not handed over."""
        try:
            await self.client.rset()
        except (OSError, aiosmtplib.SMTPException):
            self.client.close()

    async def quit(self) -> None:
        """Take leave and close."""
        with contextlib.suppress(OSError, aiosmtplib.SMTPException):
            async with asyncio.timeout(QUIT_DEADLINE_S):
                await self.client.quit()
        self.client.close()


class SmtpDoor:
    """Hands mail over; belongs to the event loop that uses it first."""

    def __init__(self, egress: Egress, deadline_s: float = SEND_DEADLINE_S) -> None:
        self._egress = egress
        self._deadline_s = deadline_s
        self._idle: dict[Server, list[_Connection]] = {}
        self._places: WeakValueDictionary[Server, asyncio.Semaphore] = WeakValueDictionary()
        self._trusted: dict[str, ssl.SSLContext] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def submit(self, server: Server, sender: str, recipients: Sequence[str], content: bytes) -> dict[str, Reply]:
        """Hand one mail over, once, to each recipient that the server takes; its word on each of them.

        Raises Refused when the server does not go on, and NoAnswer or BlockedAddress when there is no answer.
        """
        mail = _Mail(sender, recipients, content)
        place = self._places.get(server) or asyncio.Semaphore(CONNECTIONS_MAX)
        self._places[server] = place
        try:
            async with asyncio.timeout(PLACE_S):
                await place.acquire()
        except TimeoutError:
            raise NoAnswer(ErrorClass.INTERNAL, f"all {CONNECTIONS_MAX} connections were busy") from None
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._submit(server, mail)
        except (BlockedAddress, NoAnswer):
            raise
        except (OSError, aiosmtplib.SMTPException, ValueError) as error:
            if mail.in_doubt:
                raise NoAnswer(ErrorClass.INTERRUPTED, IN_DOUBT) from error
            raise NoAnswer(class_of(error), _plainly(error)) from error
        finally:
            place.release()

    async def _submit(self, server: Server, mail: _Mail) -> dict[str, Reply]:
        async with self._begun(server, mail) as connection:
            replies = await connection.name(mail.recipients)
            taken = [recipient for recipient, reply in replies.items() if reply.code // 100 == 2]
            if not taken:
                await connection.forget()
                return replies
            answer = await connection.hand_over(mail)
            return replies | dict.fromkeys(taken, answer)

    @contextlib.asynccontextmanager
    async def _begun(self, server: Server, mail: _Mail) -> AsyncIterator[_Connection]:
        """Give a connection that has begun to take a mail; keep it afterwards if nothing broke."""
        connection = await self._alive(server, mail)
        if connection is None:
            connection = _Connection(await self._open(server))
            try:
                await connection.begin(mail)
            except BaseException:
                connection.client.close()
                raise
        try:
            yield connection
        except BaseException:
            connection.client.close()
            raise
        self._keep(server, connection)

    async def _alive(self, server: Server, mail: _Mail) -> _Connection | None:
        """Find a kept connection that still takes mail: beginning one is the proof.

        If the newest does not, the others are not asked either.
        """
        while (connection := self._newest(server)) is not None:
            if not connection.usable:
                self._leave(connection)
                continue
            try:
                async with asyncio.timeout(ALIVE_DEADLINE_S):
                    await connection.begin(mail)
            except (OSError, aiosmtplib.SMTPException, Refused):
                dead: _Connection | None = connection
                while dead is not None:
                    dead.client.close()
                    dead = self._newest(server)
            except BaseException:
                connection.client.close()
                raise
            else:
                return connection
        return None

    def _newest(self, server: Server) -> _Connection | None:
        """Take the connection that was kept last."""
        kept = self._idle.get(server)
        if not kept:
            return None
        connection = kept.pop()
        if not kept:
            del self._idle[server]
        if connection.expiry is not None:
            connection.expiry.cancel()
        return connection

    def _keep(self, server: Server, connection: _Connection) -> None:
        if not connection.usable:
            self._leave(connection)
            return
        if sum(len(kept) for kept in self._idle.values()) >= IDLE_MAX:
            oldest = next(iter(self._idle))
            self._expire(oldest, self._idle[oldest][0])
        self._idle.setdefault(server, []).append(connection)
        loop = asyncio.get_running_loop()
        connection.expiry = loop.call_later(IDLE_S, self._expire, server, connection)

    def _expire(self, server: Server, connection: _Connection) -> None:
        kept = self._idle.get(server, [])
        if connection in kept:
            kept.remove(connection)
            self._leave(connection)
        if not kept:
            self._idle.pop(server, None)

    def _leave(self, connection: _Connection) -> None:
        if connection.expiry is not None:
            connection.expiry.cancel()
        task = asyncio.create_task(connection.quit())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _open(self, server: Server) -> aiosmtplib.SMTP:
        """Connect, protect and log in."""
        context = None if server.security == "NONE" else await self._context(server.ca_certificate)
        client = aiosmtplib.SMTP(
            hostname=server.host.rstrip("."),
            use_tls=server.security == "TLS",
            start_tls=False,
            tls_context=context,
            timeout=CONNECT_DEADLINE_S,
        )
        dialled = await self._dial(server.host, server.port)
        try:
            await _greet(client, dialled)
            if server.security == "STARTTLS":
                await _protect(client)
            if server.username:
                await _log_in(client, server.username, server.password)
        except BaseException:
            client.close()
            raise
        return client

    async def _context(self, ca: str) -> ssl.SSLContext:
        """Give what checks certificates. Reading the system's takes tens of milliseconds: not on the event loop."""
        found = self._trusted.get(ca)
        if found is None:
            found = trust(ca) if ca else await asyncio.to_thread(ssl.create_default_context)
            if len(self._trusted) >= TRUSTED_MAX:
                self._trusted.clear()
            self._trusted[ca] = found
        return found

    async def _dial(self, host: str, port: int) -> socket.socket:
        self._egress.vet_literal(host)
        failure: OSError = OSError(f"{host} has no address")
        for address in await self._egress.resolve(host, port):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            dialled = socket.socket(family, socket.SOCK_STREAM)
            dialled.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_DEADLINE_S):
                    await asyncio.get_running_loop().sock_connect(dialled, (address, port))
            except OSError as error:
                dialled.close()
                failure = error
            except BaseException:
                dialled.close()
                raise
            else:
                return dialled
        raise failure

    async def close(self) -> None:
        """Take leave of every server."""
        for kept in self._idle.values():
            for connection in kept:
                self._leave(connection)
        self._idle.clear()
        while self._leaving:
            await asyncio.wait(list(self._leaving))


def _own_name(dialled: socket.socket) -> str:
    """Say who we are: this machine's full name, or its address where it has none. No name server is asked."""
    name = socket.gethostname()
    if FULL_NAME.fullmatch(name):
        return name
    address = dialled.getsockname()[0].partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _plainly(error: BaseException) -> str:
    """Say why there was no answer: in the system's words where there are some, not the library's."""
    if isinstance(error, TimeoutError):
        return "no complete answer within the deadline"
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return readable(SSL_PLACE.sub("", words))[:500]


async def _greet(client: aiosmtplib.SMTP, dialled: socket.socket) -> None:
    try:
        await client.connect(sock=dialled, local_hostname=_own_name(dialled))
        await client.ehlo()
    except aiosmtplib.SMTPResponseException as error:
        raise Refused(MailStage.GREETING, error.code, error.message) from error


async def _protect(client: aiosmtplib.SMTP) -> None:
    """Upgrade to TLS or give up: nothing is ever sent in the clear instead."""
    if not client.supports_extension("starttls"):
        raise NoAnswer(ErrorClass.TLS_ERROR, "the server does not offer STARTTLS")
    try:
        await client.starttls()
        await client.ehlo()
    except aiosmtplib.SMTPResponseException as error:
        raise NoAnswer(
            ErrorClass.TLS_ERROR, f"the server refuses STARTTLS: {error.code} {readable(error.message)}"
        ) from error


async def _log_in(client: aiosmtplib.SMTP, username: str, password: str) -> None:
    ways = {"plain": client.auth_plain, "login": client.auth_login, "cram-md5": client.auth_crammd5}
    offered = next((name for name in METHODS if name in client.server_auth_methods), None)
    if offered is None:
        raise Refused(MailStage.LOGIN, 0, "it offers no way to log in that is known here")
    try:
        await ways[offered](username, password)
    except aiosmtplib.SMTPResponseException as error:
        raise Refused(MailStage.LOGIN, error.code, error.message) from error
