"""Mail by SMTP: one message per delivery, every recipient with its own verdict.

The connection goes to a vetted address; TLS checks the certificate against the host's name. The
`Message-ID` is the delivery's id, the same at every attempt.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

import aiosmtplib

from tocsin_server.domain.errors import Violation
from tocsin_server.domain.event_log import Event, Level
from tocsin_server.domain.notifications import (
    EXCERPT_BYTES_MAX,
    SEND_DEADLINE_S,
    Message,
    Outcome,
    RecipientVerdict,
)
from tocsin_server.domain.variables import time_text
from tocsin_server.domain.verdicts import Verdict
from tocsin_server.endpoints.addresses import BlockedAddress, Egress
from tocsin_server.endpoints.http import HttpDoor

CONNECT_DEADLINE_S = 10.0
SUBJECT_MAX = 200
ADDRESS = re.compile(r'[^\s@<>(),;:"\\\x00-\x1f]+@[^\s@<>(),;:"\\\x00-\x1f]+')
RECIPIENTS_MAX = 50
SETTLED = (Verdict.DELIVERED, Verdict.PERMANENT)


def make(door: HttpDoor) -> Email:
    """Make the kind."""
    return Email(door.egress)


class Email:
    """Mail by SMTP; see the module's docstring."""

    kind = "email"
    description = "A readable mail to one or more addresses (SMTP)."
    required_fields: tuple[str, ...] = ("host", "from_address", "recipients")
    secret_fields: tuple[str, ...] = ("password",)
    secrets_bound_to: Mapping[str, tuple[str, ...]] = {"password": ("host", "port", "security", "username")}
    action_params: tuple[str, ...] = ("subject", "body", "from", "to", "cc", "bcc")

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._tls: ssl.SSLContext | None = None

    def check(self, connection: Mapping[str, Any]) -> list[Violation]:
        """Judge host, protection of a password, and repeated recipients."""
        found: list[Violation] = []
        try:
            self._egress.vet_literal(connection["host"])
        except BlockedAddress as error:
            found.append(Violation("host", str(error)))
        if connection.get("password") and connection.get("security") == "NONE":
            found.append(Violation("password", "would travel in the clear: use STARTTLS or TLS"))
        if connection.get("password") and not connection.get("username"):
            found.append(Violation("username", "is required with a password"))
        recipients = connection["recipients"]
        found += [
            Violation(f"recipients[{index}]", "has characters that are not ASCII")
            for index, recipient in enumerate(recipients)
            if not recipient.isascii()
        ]
        if len(set(recipients)) < len(recipients):
            found.append(Violation("recipients", "names an address twice"))
        return found

    def succeed(self, old: Mapping[str, Any], new: Mapping[str, Any], now: int) -> Mapping[str, Any]:
        """Nothing goes on from an old connection."""
        return new

    def check_action(self, params: Mapping[str, Any]) -> list[Violation]:
        """Judge the kinds of an action's params; addresses may hold templates and are judged when sent."""
        found = [
            Violation(name, "is not a text")
            for name in ("subject", "body", "from")
            if name in params and not isinstance(params[name], str)
        ]
        found += [
            Violation(name, "is neither one address nor a list of addresses")
            for name in ("to", "cc", "bcc")
            if name in params and not _is_addresses(params[name])
        ]
        return found

    async def send(self, message: Message, connection: Mapping[str, Any]) -> Outcome:
        """Send once to every recipient that has not got it yet."""
        done = {r.recipient: r for r in message.done_recipients if r.verdict in SETTLED}
        try:
            mail, everybody = compose(message, connection)
        except ValueError as error:
            return Outcome(Verdict.PERMANENT, error=f"RENDER: {error}", reason="RENDER")
        waiting = [recipient for recipient in everybody if recipient not in done]
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                verdicts = await self._transmit(mail, waiting, connection)
        except BlockedAddress as error:
            return Outcome(Verdict.RETRY, error=f"BLOCKED_ADDRESS: {error}", recipients=tuple(done.values()))
        except aiosmtplib.SMTPResponseException as error:
            return _refused(error, tuple(done.values()))
        except TimeoutError:
            return Outcome(Verdict.RETRY, error="TIMEOUT: the server did not answer", recipients=tuple(done.values()))
        except (OSError, aiosmtplib.SMTPException) as error:
            return Outcome(Verdict.RETRY, error=f"CONNECTION: {error}"[:500], recipients=tuple(done.values()))
        return _joined([*done.values(), *verdicts])

    async def _transmit(
        self, mail: EmailMessage, recipients: Sequence[str], connection: Mapping[str, Any]
    ) -> list[RecipientVerdict]:
        security = connection.get("security") or "STARTTLS"
        if self._tls is None:
            # Reading the system's certificates takes tens of milliseconds: once, with the first mail, and not
            # on the event loop.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        client = aiosmtplib.SMTP(
            hostname=connection["host"],
            sock=await self._dial(connection["host"], connection.get("port") or (465 if security == "TLS" else 587)),
            use_tls=security == "TLS",
            start_tls=False,
            tls_context=self._tls,
            timeout=CONNECT_DEADLINE_S,
        )
        async with client:
            if security == "STARTTLS":
                await client.starttls(server_hostname=connection["host"])
            if connection.get("username"):
                await client.login(connection["username"], connection.get("password", ""))
            return await _hand_over(client, mail, recipients)

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
                return dialled
            except OSError as error:
                dialled.close()
                failure = error
        raise failure


async def _hand_over(client: aiosmtplib.SMTP, mail: EmailMessage, recipients: Sequence[str]) -> list[RecipientVerdict]:
    """Run one SMTP transaction; each recipient has the server's word."""
    try:
        refused, _ = await client.send_message(mail, recipients=list(recipients))
        refusals = {name: (answer.code, answer.message) for name, answer in refused.items()}
    except aiosmtplib.SMTPRecipientsRefused as error:
        refusals = {r.recipient: (r.code, r.message) for r in error.recipients}
    return [_verdict(recipient, *refusals.get(recipient, (250, ""))) for recipient in recipients]


def _verdict(recipient: str, code: int, text: str) -> RecipientVerdict:
    verdict = Verdict.DELIVERED if code < 400 else Verdict.RETRY if code < 500 else Verdict.PERMANENT
    return RecipientVerdict(recipient, verdict, code, text[:512])


def _refused(error: aiosmtplib.SMTPResponseException, done: tuple[RecipientVerdict, ...]) -> Outcome:
    # A refusal of the sender or of the login may be repaired by people, so it is tried again as well.
    permanent = error.code >= 500 and isinstance(error, aiosmtplib.SMTPDataError)
    verdict = Verdict.PERMANENT if permanent else Verdict.RETRY
    text = error.message[:EXCERPT_BYTES_MAX]
    return Outcome(verdict, error.code, text, f"the mail server refused: {error.code}", recipients=done)


def _joined(verdicts: Sequence[RecipientVerdict]) -> Outcome:
    """Join the recipients' verdicts: tried again as long as one may still get it."""
    worst = next((v for v in verdicts if v.verdict is Verdict.RETRY), None)
    worst = worst or next((v for v in verdicts if v.verdict is Verdict.PERMANENT), None)
    if worst is None:
        return Outcome(Verdict.DELIVERED, 250, recipients=tuple(verdicts))
    error = f"{worst.recipient} was refused: {worst.status_code}"
    return Outcome(worst.verdict, worst.status_code, worst.response_excerpt, error, recipients=tuple(verdicts))


def compose(message: Message, connection: Mapping[str, Any]) -> tuple[EmailMessage, list[str]]:
    """Write the mail and list its recipients; ValueError when an address or a header cannot be used."""
    params = message.params
    mail = EmailMessage()
    sender = _address(params.get("from") or connection["from_address"])
    named = {name: [_address(a) for a in _addresses(params.get(name))] for name in ("to", "cc", "bcc")}
    if not any(named.values()):
        named["to"] = [_address(a) for a in connection["recipients"]]
    mail["From"] = Address(addr_spec=sender)
    for header, name in (("To", "to"), ("Cc", "cc")):
        if named[name]:
            mail[header] = tuple(Address(addr_spec=a) for a in named[name])
    subject, body = _text(message)
    mail["Subject"] = _one_line(subject)
    mail["Date"] = format_datetime(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=message.sent_at))
    mail["Message-ID"] = f"<{message.delivery_id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(body)
    everybody = list(dict.fromkeys([*named["to"], *named["cc"], *named["bcc"]]))
    if len(everybody) > RECIPIENTS_MAX:
        raise ValueError(f"{len(everybody)} recipients, at most {RECIPIENTS_MAX} are allowed")
    return mail, everybody


def _text(message: Message) -> tuple[str, str]:
    params = message.params
    if message.event is not None:
        subject, body = event_text(message.event)
    elif message.events:
        subject, body = digest_text(message)
    elif message.subject.get("alert_id"):
        subject, body = f"Alert {message.subject['alert_id']}", json.dumps(dict(message.subject), indent=2)
    else:
        subject, body = "Test message of tocsin", "If you can read this, the configuration works.\n"
    subject, body = str(params.get("subject") or subject), str(params.get("body") or body)
    if message.ui_url:
        body = f"{body.rstrip()}\n\n{message.ui_url}\n"
    return subject, body


def digest_text(message: Message) -> tuple[str, str]:
    """Write subject and body about several events, for people: a line each, the newest first."""
    events, group = message.events, message.subject["digest"]["group"]
    errors = sum(event.level is Level.ERROR for event in events)
    common = ", ".join(f"{name} {value}" for name, value in group.items() if value)
    subject = f"[{'ERROR' if errors else 'INFO'}] {len(events)} events" + (f": {common}" if common else "")
    lines = [f"{len(events)} events, {errors} of them errors" + (f"; {common}" if common else "") + ":", ""]
    for event in reversed(events):
        about = event.resource["id"] or event.source["service"]
        lines.append(
            f"{time_text(event.timestamp)}  {event.level.name:<5}  {event.message or event.type}  {about}".rstrip()
        )
    return subject, "\n".join(lines) + "\n"


def event_text(event: Event) -> tuple[str, str]:
    """Write subject and body about an event, for people."""
    about = event.resource["id"] or event.source["service"]
    subject = f"[{event.level.name}] {event.message or event.type}" + (f": {about}" if about else "")
    lines = [
        event.message or event.type,
        "",
        f"Type:      {event.type}",
        f"Level:     {event.level.name}",
        f"Resource:  {event.resource['id']} ({event.resource['type'] or 'no type'})" if about else "Resource:  none",
        f"Source:    {event.source['service']} {event.source['host']}".rstrip(),
        f"Time:      {time_text(event.timestamp)}",
        f"Event:     {event.id} (position {event.position})",
    ]
    if event.details not in (None, "", {}):
        details = event.details if isinstance(event.details, str) else json.dumps(event.details, indent=2)
        lines += ["", "Details:", details]
    return subject, "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SUBJECT_MAX else line[: SUBJECT_MAX - 3] + "..."


def _addresses(value: object) -> list[str]:
    # One text is one address: what an event brings into a template cannot add receivers.
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    return [str(part) for part in value] if isinstance(value, list) else []


def _is_addresses(value: object) -> bool:
    parts = value if isinstance(value, list) else [value]
    return all(isinstance(part, str) and "," not in part for part in parts)


def _address(text: str) -> str:
    if ADDRESS.fullmatch(text) is None:
        raise ValueError(f"{text[:64]!r} is not one plain mail address")
    return text
