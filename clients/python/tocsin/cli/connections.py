"""How a receiver is reached, as flags for the common cases and as a file for all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tocsin.cli import choices, documents
from tocsin.cli.flags import flag
from tocsin.cli.misuse import Misuse
from tocsin.cli.selection import Selection
from tocsin.cli.session import Session
from tocsin.v1 import notifications_pb2 as pb

FIELDS = ("name", "description", "enabled", "webhook", "email", "selectors", "options")
"""What an update can change."""

_PORT_MAX = 65_535


@dataclass(frozen=True)
class Receiver:
    """A configuration by a file, by flags, or by flags that stand over those of a file."""

    file: Annotated[
        str,
        flag(
            "-f",
            "TOCSIN_ENDPOINT_FILE",
            "the configuration in YAML or JSON, as -o json prints it; - reads standard input",
            "FILE",
            also=("--file",),
        ),
    ] = ""
    description: Annotated[str | None, flag("--description", "TOCSIN_ENDPOINT_DESCRIPTION", "free text")] = None
    url: Annotated[str, flag("--url", "TOCSIN_ENDPOINT_URL", "webhook: where to post", "URL")] = ""
    secret: Annotated[
        str,
        flag(
            "--secret",
            "TOCSIN_ENDPOINT_SECRET",
            "webhook: signing key, whsec_... (new: one is made)",
            "SECRET",
        ),
    ] = ""
    to: Annotated[
        list[str] | None, flag("--to", "TOCSIN_ENDPOINT_TO", "email: a receiver; may be given again", "ADDRESS")
    ] = None
    sender: Annotated[str, flag("--from", "TOCSIN_ENDPOINT_FROM", "email: the sender", "ADDRESS")] = ""
    smtp: Annotated[str, flag("--smtp", "TOCSIN_ENDPOINT_SMTP", "email: the mail server", "HOST[:PORT]")] = ""
    smtp_security: Annotated[
        str,
        flag(
            "--smtp-security",
            "TOCSIN_ENDPOINT_SMTP_SECURITY",
            "email: starttls (the default), tls or none",
            autocompletion=choices.completing(pb.EmailSecurity),
        ),
    ] = ""
    smtp_user: Annotated[str, flag("--smtp-user", "TOCSIN_ENDPOINT_SMTP_USER", "email: who sends", "NAME")] = ""
    smtp_password: Annotated[
        str, flag("--smtp-password", "TOCSIN_ENDPOINT_SMTP_PASSWORD", "email: the sender's password", "PASSWORD")
    ] = ""

    @property
    def _is_webhook(self) -> bool:
        return bool(self.url or self.secret)

    @property
    def _is_email(self) -> bool:
        return bool(self.to or self.sender or self.smtp or self.smtp_security or self.smtp_user or self.smtp_password)

    @property
    def connects(self) -> bool:
        """Whether a flag says how the receiver is reached."""
        return self._is_webhook or self._is_email

    def read(self) -> tuple[pb.EndpointConfiguration, list[str]]:
        """Answer the configuration of the file and which fields it has; nothing without a file. Raises Misuse."""
        if not self.file:
            return pb.EndpointConfiguration(), []
        data = documents.read("--file", self.file)
        made = documents.message("--file", pb.EndpointConfiguration, data)
        return made, [name for name in FIELDS if name in data]

    def put_onto(self, made: pb.EndpointConfiguration, name: str, selected: Sequence[pb.Selector]) -> list[str]:
        """Set what flags say; answers which fields. Raises Misuse."""
        if self._is_webhook and self._is_email:
            raise Misuse("--url", "a webhook does not go with --to, --from and --smtp of mail")
        changed = []
        if name:
            made.name = name
            changed.append("name")
        if self.description is not None:
            made.description = self.description
            changed.append("description")
        if self._is_webhook:
            self._put_webhook(made)
            changed.append("webhook")
        if self._is_email:
            self._put_email(made)
            changed.append("email")
        if selected:
            del made.selectors[:]
            made.selectors.extend(selected)
            changed.append("selectors")
        return changed

    def _put_webhook(self, made: pb.EndpointConfiguration) -> None:
        if made.WhichOneof("connection") == "email":
            raise Misuse("--url", "the configuration is one of mail")
        made.webhook.url = self.url or made.webhook.url
        made.webhook.secret = self.secret or made.webhook.secret

    def _put_email(self, made: pb.EndpointConfiguration) -> None:
        if made.WhichOneof("connection") == "webhook":
            raise Misuse("--to", "the configuration is one of a webhook")
        mail = made.email
        if self.to:
            del mail.recipients[:]
            mail.recipients.extend(self.to)
        mail.from_address = self.sender or mail.from_address
        if self.smtp:
            mail.host, mail.port = _host_and_port(self.smtp)
        if self.smtp_security:
            (security,) = choices.chosen("--smtp-security", pb.EmailSecurity, [self.smtp_security])
            mail.security = pb.EmailSecurity.Value(f"EMAIL_SECURITY_{security.upper()}")
        mail.username = self.smtp_user or mail.username
        mail.password = self.smtp_password or mail.password

    def configuration(self, session: Session, name: str, selection: Selection) -> pb.EndpointConfiguration:
        """Make a configuration that is not stored yet, of the file and of flags over it. Raises Misuse."""
        made, _ = self.read()
        made.ClearField("id")
        self.put_onto(made, name, selection.selectors(session))
        if made.WhichOneof("connection") is None:
            raise Misuse("--url", "give --url for a webhook, --to, --from and --smtp for mail, or -f FILE")
        return made


def _host_and_port(text: str) -> tuple[str, int]:
    host, sign, port = text.rpartition(":")
    if not sign or text.endswith("]"):
        return text.strip("[]"), 0
    if not (port.isdecimal() and 0 < int(port) <= _PORT_MAX) or not host:
        raise Misuse("--smtp", f"{text!r} is no mail server: give HOST or HOST:PORT")
    return host.strip("[]"), int(port)
