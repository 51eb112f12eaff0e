"""Requests of the notifications service, made from plain Python: receivers and what they are told."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable

from tocsin import arguments
from tocsin.v1.notifications_pb2 import (
    DeliveryState,
    EmailConnection,
    EmailSecurity,
    EndpointConfiguration,
    ListDeliveriesRequest,
    Selector,
    TestEndpointConfigurationRequest,
    WebhookConnection,
)

ENDED = ("delivered", "exhausted", "cancelled")
"""The states in which a delivery stays."""


def new_webhook_secret() -> str:
    """Make a signing key of 32 random bytes, in the form that Standard Webhooks names."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def selector(
    type: str = "*",
    *,
    level: str = "*",
    resource_type: str = "*",
    scope: str = "account",
    subtype: str = "",
    service: str = "",
    where: str = "",
) -> Selector:
    """Choose events. `type` is exact or a glob, `level` is "info", "error" or "*", `where` a condition in CEL."""
    return Selector(
        scope=scope, level=level, type=type, resource_type=resource_type, subtype=subtype, service=service, where=where
    )


def webhook(
    name: str,
    url: str,
    secret: str,
    selectors: Iterable[Selector] = (),
    *,
    description: str = "",
    enabled: bool | None = None,
) -> EndpointConfiguration:
    """Describe a receiver of signed HTTP posts. `secret` is `new_webhook_secret()` or one of its form."""
    return EndpointConfiguration(
        name=name,
        description=description,
        enabled=enabled,
        webhook=WebhookConnection(url=url, secret=secret),
        selectors=selectors,
    )


def mailbox(
    name: str,
    host: str,
    *,
    from_address: str,
    recipients: Iterable[str],
    selectors: Iterable[Selector] = (),
    port: int = 0,
    security: str = "starttls",
    username: str = "",
    password: str = "",
    description: str = "",
    enabled: bool | None = None,
) -> EndpointConfiguration:
    """Describe receivers of mail. `security` is "starttls", "tls" or "none"; port 0 is its usual one."""
    return EndpointConfiguration(
        name=name,
        description=description,
        enabled=enabled,
        email=EmailConnection(
            host=host,
            port=port,
            security=arguments.member("security", EmailSecurity, security),
            username=username,
            password=password,
            from_address=from_address,
            recipients=arguments.strings("recipients", recipients),
        ),
        selectors=selectors,
    )


def deliveries_request(
    states: Iterable[str] = (), *, configuration_id: str = "", event_id: str = "", alert_id: str = ""
) -> ListDeliveriesRequest:
    """Ask for deliveries; states are words such as "delivered". Raises ValueError for others."""
    return ListDeliveriesRequest(
        states=[
            arguments.member("each of states", DeliveryState, state) for state in arguments.strings("states", states)
        ],
        configuration_id=configuration_id,
        event_id=event_id,
        alert_id=alert_id,
    )


def test_request(target: str | EndpointConfiguration) -> TestEndpointConfigurationRequest:
    """Ask for a test of a stored configuration, by its id, or of an unsaved one."""
    if isinstance(target, str):
        return TestEndpointConfigurationRequest(id=target)
    return TestEndpointConfigurationRequest(configuration=target)
