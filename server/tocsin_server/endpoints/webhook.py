"""Webhooks: a signed POST as Standard Webhooks describes, `webhook-id` = delivery id.

The body is `{type, timestamp, data}` with the whole event in `data`. Source: the Standard Webhooks
specification 1.0.0.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from tocsin_server import __version__
from tocsin_server.domain.answers import of_http, of_no_answer
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.event_log import Event
from tocsin_server.domain.notifications import Message, Outcome
from tocsin_server.domain.variables import time_text
from tocsin_server.domain.verdicts import ErrorClass
from tocsin_server.endpoints.addresses import BlockedAddress
from tocsin_server.endpoints.http import HttpDoor, NoAnswer

SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)  # as the specification has it
DIGEST_TYPE = "system.notifications.digest"
DIGEST_BYTES_MAX = 1024 * 1024  # of whole events in one body
TEST_TYPE = "system.notifications.test"
USER_AGENT = f"tocsin/{__version__}"
# What some resolvers read as an address: 2130706433, 0x7f.1, 127.1.
NUMERIC_HOST = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)(\.(0[xX][0-9a-fA-F]*|[0-9]+))*\.?")
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
    secret_fields: tuple[str, ...] = ("secret", "password")
    # The password is sent there; the secret signs and is never sent.
    secrets_bound_to: Mapping[str, tuple[str, ...]] = {"password": ("url", "username")}
    action_params: tuple[str, ...] = ("body", "headers")

    def __init__(self, door: HttpDoor) -> None:
        self._door = door

    def check(self, connection: Mapping[str, Any]) -> list[Violation]:
        """Judge URL and secret."""
        found = [Violation("url", problem)] if (problem := self._url_problem(connection["url"])) else []
        try:
            signing_key(connection["secret"])
        except ValueError as error:
            found.append(Violation("secret", str(error)))
        return found

    def _url_problem(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
            httpx.URL(url)
            (host or "").encode("idna")
        except (ValueError, httpx.InvalidURL) as error:
            return f"is not a URL: {error}"
        if parts.scheme not in ("http", "https"):
            return "is neither http nor https"
        if not host:
            return "has no host"
        if NUMERIC_HOST.fullmatch(host) and not _is_address(host):
            return f"the host {host!r} is neither a name nor an address in its usual form"
        if parts.username is not None or parts.password is not None:
            return "holds a user name or password: these would be logged by others"
        try:
            self._door.egress.vet_literal(host)
        except BlockedAddress as error:
            return str(error)
        return ""

    def check_action(self, params: Mapping[str, Any]) -> list[Violation]:
        """Judge an action's body and headers."""
        headers = params.get("headers", {})
        if not isinstance(headers, dict):
            return [Violation("headers", "is not an object of names and values")]
        return [
            Violation(f"headers.{name}", problem)
            for name, value in headers.items()
            if (problem := _header_problem(name, value))
        ]

    async def send(self, message: Message, connection: Mapping[str, Any]) -> Outcome:
        """Post once and judge the answer."""
        body = _body(message)
        headers = _headers(message, connection["secret"], body) | _credentials(connection)
        try:
            answer = await self._door.post(connection["url"], headers, body)
        except BlockedAddress as error:
            return of_no_answer(ErrorClass.BLOCKED_ADDRESS, str(error))
        except TimeoutError:
            return of_no_answer(ErrorClass.TIMEOUT, "no complete answer within the deadline")
        except NoAnswer as error:
            return of_no_answer(error.error_class, str(error))
        return of_http(answer.status, answer.headers, answer.excerpt, message.sent_at)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def signing_key(secret: str) -> bytes:
    """Read a secret; ValueError says what is wrong with it."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"has to begin with {SECRET_PREFIX}, then the base64 of 24 to 64 random bytes")
    try:
        key = base64.b64decode(secret[len(SECRET_PREFIX) :], validate=True)
    except binascii.Error as error:
        raise ValueError(f"is not base64 after {SECRET_PREFIX}") from error
    if len(key) not in SECRET_BYTES:
        raise ValueError(f"holds {len(key)} bytes, 24 to 64 are allowed")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Sign as Standard Webhooks `v1`: HMAC-SHA256 over id, Unix seconds of the attempt, and body."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(signing_key(secret), signed, "sha256")).decode()


def _headers(message: Message, secret: str, body: bytes) -> dict[str, str]:
    seconds = message.sent_at // 1_000_000
    own = message.params.get("headers", {})
    return {
        **{name: str(value) for name, value in own.items()},
        "content-type": "application/json" if _is_json(body) else "text/plain; charset=utf-8",
        "user-agent": USER_AGENT,
        "accept-encoding": "identity",
        "webhook-id": message.delivery_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature(secret, message.delivery_id, seconds, body),
    }


def _credentials(connection: Mapping[str, Any]) -> dict[str, str]:
    if not connection.get("username"):
        return {}
    pair = f"{connection['username']}:{connection.get('password', '')}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _header_problem(name: str, value: object) -> str:
    lower = name.lower()
    if HEADER_NAME.fullmatch(name) is None:
        return "is not a header name"
    if lower in RESERVED_HEADERS or lower.startswith(RESERVED_PREFIXES):
        return "is reserved"
    if not isinstance(value, str) or HEADER_VALUE.fullmatch(value) is None:
        return "is not one line of printable ASCII"
    return ""


def _body(message: Message) -> bytes:
    if "body" in message.params:
        body = message.params["body"]
        return (body if isinstance(body, str) else json.dumps(body)).encode()
    if message.event is not None:
        event = message.event
        payload = {"type": event.type, "timestamp": time_text(event.timestamp), "data": event_data(event)}
    elif message.events:
        payload = {"type": DIGEST_TYPE, "timestamp": time_text(message.sent_at), "data": _digest(message)}
    else:
        kind = "system.alerting.action" if message.subject.get("alert_id") else TEST_TYPE
        payload = {"type": kind, "timestamp": time_text(message.sent_at), "data": dict(message.subject)}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _digest(message: Message) -> dict[str, object]:
    """Give several events, whole as long as they fit; of the others what names them."""
    events: list[dict[str, object]] = []
    size = 0
    for event in message.events:
        whole = event_data(event)
        size += len(json.dumps(whole, ensure_ascii=False))
        brief = {name: whole[name] for name in ("id", "position", "type", "level", "message", "timestamp")}
        events.append(whole if size <= DIGEST_BYTES_MAX else {**brief, "truncated": True})
    return {**message.subject["digest"], "count": len(events), "events": events}


def event_data(event: Event) -> dict[str, object]:
    """Give the whole event as plain JSON data; enum words bare, times as ISO 8601 UTC."""
    return {
        "id": event.id,
        "position": event.position,
        "account": event.account,
        "type": event.type,
        "subtype": event.subtype,
        "level": event.level.name,
        "message": event.message,
        "category": event.category,
        "details": event.details,
        "resource": dict(event.resource),
        "source": dict(event.source),
        "labels": dict(event.labels),
        "timestamp": time_text(event.timestamp),
        "created_at": time_text(event.created_at),
        "correlation_id": event.correlation_id,
        "traceparent": event.traceparent,
    }
