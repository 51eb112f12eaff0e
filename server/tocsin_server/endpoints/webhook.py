"""Webhooks: a signed POST as Standard Webhooks describes, `webhook-id` = delivery id.

What is posted is in `payloads.py`, how it is signed in `signatures.py`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from tocsin_server import __version__
from tocsin_server.domain.answers import of_http, of_no_answer, unmade
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.message_templates import Preview, is_json
from tocsin_server.domain.notifications import SEND_DEADLINE_S, Message, Outcome
from tocsin_server.domain.templates import Escape
from tocsin_server.domain.verdicts import ErrorClass
from tocsin_server.endpoints.addresses import BlockedAddress
from tocsin_server.endpoints.http import HttpDoor, NoAnswer, trust
from tocsin_server.endpoints.payloads import (
    CLOUD_EVENT_TYPE,
    CLOUD_EVENTS,
    JSON_TYPE,
    cloud_event_of,
    encoded,
    payload_of,
)
from tocsin_server.endpoints.signatures import asymmetric_signature, private_key, signature, signing_key

OVERLAP_DEFAULT_US = 24 * 3600 * 1_000_000  # how long the secret before still signs
PREVIOUS = ("previous_secret", "previous_secret_expire_time")
CHECKED: Mapping[str, Callable[[str], object]] = {
    "secret": signing_key,
    "private_key": private_key,
    "ca_certificate": trust,
}
USER_AGENT = f"tocsin/{__version__}"
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]{0,1024}")
# Headers that frame or sign the request, or that belong to the connection: never the user's.
RESERVED_HEADERS = frozenset(
    ("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "te",
     "trailer", "upgrade", "keep-alive", "expect", "proxy-authorization", "proxy-connection", "cookie",
     "user-agent", "authorization", "accept-encoding")
)  # fmt: skip
RESERVED_PREFIXES = ("webhook-", "svix-", "proxy-", "sec-", "x-forwarded-")


def make(door: HttpDoor) -> Webhook:
    """Make the kind."""
    return Webhook(door)


class Webhook:
    """A signed HTTP POST; see the module's docstring."""

    kind = "webhook"
    description = "A signed HTTP POST of the whole event as JSON (Standard Webhooks)."
    required_fields: tuple[str, ...] = ("url", "secret")
    secret_fields: tuple[str, ...] = ("secret", "password", "bearer_token", "private_key", "previous_secret")
    # Passwords and tokens are sent there; keys sign and are never sent.
    secrets_bound_to: Mapping[str, tuple[str, ...]] = {"password": ("url", "username"), "bearer_token": ("url",)}
    action_params: tuple[str, ...] = ("body", "headers")
    default_escape = Escape.JSON
    attempt_max_s = SEND_DEADLINE_S + 5.0  # with the beginning of the answer's body
    refused_options: Mapping[str, str] = {
        "template.subject": "a webhook has no subject",
        "add_notification_payload": "a webhook has the whole payload as it is; a template can use any part of it",
        "recipients": "a webhook has one receiver, its url",
    }

    def __init__(self, door: HttpDoor) -> None:
        self._door = door

    def check(self, connection: Mapping[str, Any]) -> list[Violation]:
        """Judge URL and secret."""
        found = [Violation("url", problem)] if (problem := self._url_problem(connection["url"])) else []
        for name, read in CHECKED.items():
            if connection.get(name) or name in self.required_fields:
                try:
                    read(connection[name])
                except ValueError as error:
                    found.append(Violation(name, str(error)))
        if connection.get("bearer_token") and connection.get("username"):
            found.append(Violation("bearer_token", "cannot be joined with username: leave one of them out"))
        if connection.get("password") and not connection.get("username"):
            found.append(Violation("username", "is required where there is a password"))
        return found + _header_problems(connection.get("headers", {}))

    def succeed(self, old: Mapping[str, Any], new: Mapping[str, Any], now: int) -> dict[str, Any]:
        """Let the secret that is changed hold beside the new one for a while, so that receivers can follow."""
        connection = dict(new)
        kept = {name: old[name] for name in PREVIOUS if old.get(name)}
        if new["secret"] != old.get("secret"):
            overlap = new.get("secret_overlap")
            until = now + (OVERLAP_DEFAULT_US if overlap is None else overlap)
            kept = (
                {"previous_secret": old.get("secret", ""), "previous_secret_expire_time": until} if until > now else {}
            )
        return connection | kept

    def _url_problem(self, url: str) -> str:
        import httpx  # noqa: PLC0415 - a tenth of the time that a server needs to start

        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
            as_sent = httpx.URL(url).host
            (host or "").encode("idna")
        except (ValueError, httpx.InvalidURL) as error:
            return f"is not a URL: {error}"
        if parts.scheme not in ("http", "https"):
            return "is neither http nor https"
        if not host:
            return "has no host"
        if "\\" in url or "%" in parts.netloc:
            return "has characters in its host that are read in more than one way"
        if parts.username is not None or parts.password is not None:
            return "holds a user name or password: these would be logged by others"
        try:
            self._door.egress.vet_literal(host)
            self._door.egress.vet_literal(as_sent)
        except BlockedAddress as error:
            return str(error)
        return ""

    def check_action(self, params: Mapping[str, Any]) -> list[Violation]:
        """Judge an action's body and headers."""
        headers = params.get("headers", {})
        if not isinstance(headers, dict):
            return [Violation("headers", "is not an object of names and values")]
        return _header_problems(headers)

    def preview(self, message: Message, connection: Mapping[str, Any]) -> Preview:
        """Write the body as it would be posted."""
        body, content_type = _written(message, connection)
        return Preview("", body.decode(), content_type)

    async def send(self, message: Message, connection: Mapping[str, Any]) -> Outcome:
        """Post once and judge the answer; headers whose values no header can have are a message that cannot be made."""
        if wrong := _header_problems(message.params.get("headers", {})):
            return unmade("; ".join(f"{problem.path}: {problem.description}" for problem in wrong[:3]))
        body, content_type = _written(message, connection)
        headers = _headers(message, connection, body, content_type)
        try:
            answer = await self._door.post(connection["url"], headers, body, connection.get("ca_certificate", ""))
        except BlockedAddress as error:
            return of_no_answer(ErrorClass.BLOCKED_ADDRESS, str(error))
        except TimeoutError:
            return of_no_answer(ErrorClass.TIMEOUT, "no complete answer within the deadline")
        except NoAnswer as error:
            return of_no_answer(error.error_class, str(error))
        return of_http(answer.status, answer.headers, answer.excerpt, message.sent_at)

    async def close(self) -> None:
        """Nothing is held: the connections are the door's."""


def _headers(message: Message, connection: Mapping[str, Any], body: bytes, content_type: str) -> dict[str, str]:
    own = {**connection.get("headers", {}), **message.params.get("headers", {})}
    seconds = message.sent_at // 1_000_000
    return {
        **own,
        **_credentials(connection),
        "content-type": content_type,
        "user-agent": USER_AGENT,
        "accept-encoding": "identity",
        "webhook-id": message.delivery_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(_signatures(message, connection, seconds, body)),
    }


def _signatures(message: Message, connection: Mapping[str, Any], seconds: int, body: bytes) -> Iterator[str]:
    """Sign with the secret, with the one before it as long as both hold, and with the private key if there is one."""
    yield signature(connection["secret"], message.delivery_id, seconds, body)
    if connection.get("previous_secret") and message.sent_at < connection["previous_secret_expire_time"]:
        yield signature(connection["previous_secret"], message.delivery_id, seconds, body)
    if connection.get("private_key"):
        yield asymmetric_signature(connection["private_key"], message.delivery_id, seconds, body)


def _credentials(connection: Mapping[str, Any]) -> dict[str, str]:
    if connection.get("bearer_token"):
        return {"authorization": f"Bearer {connection['bearer_token']}"}
    if not connection.get("username"):
        return {}
    pair = f"{connection['username']}:{connection.get('password', '')}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _header_problems(headers: Mapping[str, object]) -> list[Violation]:
    return [
        Violation(f"headers.{name}", problem)
        for name, value in headers.items()
        if (problem := _header_problem(name, value))
    ]


def _header_problem(name: str, value: object) -> str:
    lower = name.lower()
    if HEADER_NAME.fullmatch(name) is None:
        return "is not a header name"
    if lower == "authorization":
        return "is made of bearer_token, or of username and password: set those instead"
    if lower in RESERVED_HEADERS or lower.startswith(RESERVED_PREFIXES):
        return "is reserved"
    if not isinstance(value, str) or HEADER_VALUE.fullmatch(value) is None:
        return "is not one line of printable ASCII"
    return ""


def _written(message: Message, connection: Mapping[str, Any]) -> tuple[bytes, str]:
    """Write the body, and say of which type it is."""
    if "body" in message.params:
        body = message.params["body"]
        own = (body if isinstance(body, str) else json.dumps(body)).encode()
        return own, JSON_TYPE if is_json(own) else "text/plain; charset=utf-8"
    if connection.get("format") == CLOUD_EVENTS:
        return encoded(cloud_event_of(message)), CLOUD_EVENT_TYPE
    return encoded(payload_of(message)), JSON_TYPE
