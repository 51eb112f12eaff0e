"""Mail by SMTP: one message per delivery, every recipient with its own verdict.

What it says is in `_mail.py`, how it gets to the server in `_smtp.py`. The `Message-ID` is the delivery's
id, the same at every attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tocsin_server.domain.answers import of_no_answer, of_smtp, unmade
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.message_templates import Preview
from tocsin_server.domain.notifications import SEND_DEADLINE_S, Message, Outcome, RecipientVerdict
from tocsin_server.domain.templates import Escape
from tocsin_server.domain.verdicts import ErrorClass, MailStage, Verdict
from tocsin_server.endpoints.addresses import BlockedAddress, Egress
from tocsin_server.endpoints.http import HttpDoor, NoAnswer, trust

if TYPE_CHECKING:
    from tocsin_server.endpoints._smtp import Server, SmtpDoor

# `_mail` and `_smtp` are imported where they are used: a server that starts does not wait for their libraries.
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
    attempt_max_s = 40.0  # with the wait for a connection to its server
    refused_options: Mapping[str, str] = {}

    def __init__(self, egress: Egress, deadline_s: float = SEND_DEADLINE_S) -> None:
        self._egress = egress
        self._deadline_s = deadline_s

    @cached_property
    def _door(self) -> SmtpDoor:
        from tocsin_server.endpoints._smtp import SmtpDoor  # noqa: PLC0415

        return SmtpDoor(self._egress, self._deadline_s)

    def check(self, connection: Mapping[str, Any]) -> list[Violation]:
        """Judge host, protection of a password, and repeated recipients."""
        from tocsin_server.endpoints._mail import address  # noqa: PLC0415

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
        named = {"from_address": connection["from_address"]}
        named |= {f"recipients[{index}]": recipient for index, recipient in enumerate(recipients)}
        for path, given in named.items():
            try:
                address(given)
            except ValueError as error:
                found.append(Violation(path, str(error)))
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
        from email.message import EmailMessage  # noqa: PLC0415

        from tocsin_server.endpoints._mail import compose  # noqa: PLC0415

        mail, everybody = compose(message, connection)
        text = mail.get_body(("plain",))
        body = text.get_content() if isinstance(text, EmailMessage) else ""
        return Preview(str(mail["Subject"]), body, "text/plain; charset=utf-8", tuple(everybody))

    async def send(self, message: Message, connection: Mapping[str, Any]) -> Outcome:
        """Send once to every recipient that has not got it yet."""
        from tocsin_server.endpoints._mail import compose  # noqa: PLC0415
        from tocsin_server.endpoints._smtp import Refused  # noqa: PLC0415

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
        return outcome._replace(recipients=tuple(told.values()))

    async def close(self) -> None:
        """Close all connections."""
        if "_door" in vars(self):
            await self._door.close()


def _waiting(everybody: Sequence[str], told: Mapping[str, RecipientVerdict]) -> list[str]:
    """Choose who is sent to: never those that have got it, and those that were refused only if a person asks again."""
    open_ones = [r for r in everybody if r not in told or told[r].verdict not in SETTLED]
    return open_ones or [r for r in everybody if told[r].verdict is not Verdict.DELIVERED]


def _server(connection: Mapping[str, Any]) -> Server:
    from tocsin_server.endpoints._smtp import Server  # noqa: PLC0415

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


def _is_addresses(value: object) -> bool:
    parts = value if isinstance(value, list) else [value]
    return all(isinstance(part, str) and "," not in part for part in parts)
