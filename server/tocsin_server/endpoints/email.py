"""Mail by SMTP: one message per delivery, every recipient with its own verdict.

How a mail gets to the server is in `smtp.py`. The `Message-ID` is the delivery's id, the same at every attempt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from tocsin_server.domain.answers import of_no_answer, of_smtp, unmade
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.event_log import Event, Level
from tocsin_server.domain.message_templates import Preview
from tocsin_server.domain.notifications import SEND_DEADLINE_S, Message, Outcome, RecipientVerdict
from tocsin_server.domain.templates import Escape
from tocsin_server.domain.variables import time_text
from tocsin_server.domain.verdicts import ErrorClass, MailStage, Verdict
from tocsin_server.endpoints.addresses import BlockedAddress, Egress
from tocsin_server.endpoints.http import HttpDoor, NoAnswer, trust
from tocsin_server.endpoints.payloads import payload_of
from tocsin_server.endpoints.smtp import Refused, Server, SmtpDoor

SUBJECT_MAX = 200
ADDRESS = re.compile(r'[^\s@<>(),;:"\\\x00-\x1f]+@[^\s@<>(),;:"\\\x00-\x1f]+')
RECIPIENTS_MAX = 50
WIRE = SMTP.clone(cte_type="7bit", max_line_length=998)  # servers need not take more than 7 bits
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
    default_escape = Escape.NONE
    refused_options: Mapping[str, str] = {}

    def __init__(self, egress: Egress, deadline_s: float = SEND_DEADLINE_S) -> None:
        self._egress = egress
        self._door = SmtpDoor(egress, deadline_s)

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
        if connection.get("ca_certificate"):
            try:
                trust(connection["ca_certificate"])
            except ValueError as error:
                found.append(Violation("ca_certificate", str(error)))
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

    def preview(self, message: Message, connection: Mapping[str, Any]) -> Preview:
        """Write the mail as it would be sent."""
        mail, everybody = compose(message, connection)
        text = mail.get_body(("plain",))
        body = text.get_content() if isinstance(text, EmailMessage) else ""
        return Preview(str(mail["Subject"]), body, "text/plain; charset=utf-8", tuple(everybody))

    async def send(self, message: Message, connection: Mapping[str, Any]) -> Outcome:
        """Send once to every recipient that has not got it yet."""
        try:
            mail, everybody = compose(message, connection)
        except ValueError as error:
            return unmade(str(error))
        told = {r.recipient: r for r in message.done_recipients if r.recipient in everybody or r.verdict in SETTLED}
        waiting = _waiting(everybody, told)
        if not waiting:
            return _joined({}, told)
        sender = mail["From"].addresses[0].addr_spec
        try:
            replies = await self._door.submit(_server(connection), sender, waiting, mail.as_bytes())
        except BlockedAddress as error:
            outcome = of_no_answer(ErrorClass.BLOCKED_ADDRESS, str(error))
        except NoAnswer as error:
            outcome = of_no_answer(error.error_class, str(error))
        except Refused as error:
            # A sender of the action's own is a part of this message, not of the configuration.
            own = error.stage is MailStage.SENDER and sender != connection["from_address"]
            outcome = of_smtp(MailStage.CONTENT if own else error.stage, error.code, error.text)
        else:
            outcomes = {recipient: of_smtp(r.stage, r.code, r.text) for recipient, r in replies.items()}
            return _joined(outcomes, told)
        if outcome.error_class is ErrorClass.INTERRUPTED:
            told |= {r: RecipientVerdict(r, Verdict.RETRY, 0, outcome.error) for r in waiting}
        return replace(outcome, recipients=tuple(told.values()))

    async def close(self) -> None:
        """Close all connections."""
        await self._door.close()


def _waiting(everybody: Sequence[str], told: Mapping[str, RecipientVerdict]) -> list[str]:
    """Choose who is sent to: never those that have got it, and those that were refused only if a person asks again."""
    open_ones = [r for r in everybody if r not in told or told[r].verdict not in SETTLED]
    return open_ones or [r for r in everybody if told[r].verdict is not Verdict.DELIVERED]


def _server(connection: Mapping[str, Any]) -> Server:
    security = connection.get("security") or "STARTTLS"
    return Server(
        connection["host"],
        connection.get("port") or (465 if security == "TLS" else 587),
        security,
        connection.get("username", ""),
        connection.get("password", ""),
        connection.get("ca_certificate", ""),
    )


def _joined(outcomes: Mapping[str, Outcome], told: Mapping[str, RecipientVerdict]) -> Outcome:
    """Join the recipients' verdicts with what is known: tried again as long as one may still get it."""
    verdicts = dict(told)
    for recipient, one in outcomes.items():
        verdicts[recipient] = RecipientVerdict(recipient, one.verdict, one.status_code, one.response_excerpt[:512])
    recipients = tuple(verdicts.values())
    for verdict in (Verdict.RETRY, Verdict.PERMANENT):
        worst = next((r for r in recipients if r.verdict is verdict), None)
        if worst is not None:
            known = outcomes.get(worst.recipient)
            error = f"{worst.recipient}: {known.error}" if known else f"{worst.recipient} was refused before"
            error_class = known.error_class if known else ErrorClass.REFUSED
            return Outcome(
                verdict, worst.status_code, worst.response_excerpt, error, recipients=recipients,
                error_class=error_class,
            )  # fmt: skip
    return Outcome(Verdict.DELIVERED, 250, recipients=recipients)


def compose(message: Message, connection: Mapping[str, Any]) -> tuple[EmailMessage, list[str]]:
    """Write the mail and list its recipients; ValueError when an address or a header cannot be used."""
    params = message.params
    mail = EmailMessage(WIRE)
    sender = _address(params.get("from") or connection["from_address"])
    named = {name: [_address(a) for a in _addresses(params.get(name))] for name in ("to", "cc", "bcc")}
    if not any(named.values()):
        named["to"] = [_address(a) for a in message.options.recipients or connection["recipients"]]
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
    if message.options.add_notification_payload:
        payload = json.dumps(payload_of(message), ensure_ascii=False, indent=2)
        body = f"{body.rstrip()}\n\nPayload:\n{payload}\n"
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
