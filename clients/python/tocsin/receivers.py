"""Requests of the notifications service, made from plain Python: receivers and what they are told."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from datetime import timedelta

from tocsin import arguments
from tocsin.v1.event_log_pb2 import Event
from tocsin.v1.notifications_pb2 import (
    DeliveryOptions,
    EmailConnection,
    EmailSecurity,
    Endpoint,
    EndpointConfiguration,
    Escape,
    ExplainEventRequest,
    Grouping,
    PreviewNotificationRequest,
    Rate,
    Selector,
    Template,
    TestEndpointConfigurationRequest,
    UpdateEndpointConfigurationRequest,
    UpdateEndpointRequest,
    WebhookConnection,
)


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


def grouping(
    by: Iterable[str] = (),
    *,
    wait: timedelta | None = None,
    interval: timedelta | None = None,
    max_items: int = 0,
) -> Grouping:
    """Tell events together, in digests of what has the same `by` ("type", "resource.id", "labels.team" ...)."""
    made = Grouping(by=arguments.strings("by", by), max_items=max_items)
    if wait is not None:
        made.wait.FromTimedelta(wait)
    if interval is not None:
        made.interval.FromTimedelta(interval)
    return made


def delivery_options(
    *,
    retry_schedule_s: Iterable[int] = (),
    per_second: float | None = None,
    subject: str = "",
    body: str = "",
    escape: str = "unspecified",
    recipients: Iterable[str] = (),
    add_notification_payload: bool = False,
    grouping: Grouping | None = None,
) -> DeliveryOptions:
    """Say how deliveries are made and sent; what is not given is as the server does it.

    `subject` and `body` are mustache templates, `escape` is "html", "json", "markdown", "slack", "url" or "none".
    """
    return DeliveryOptions(
        retry_schedule=retry_schedule_s,
        rate=None if per_second is None else Rate(per_second=per_second),
        add_notification_payload=add_notification_payload,
        template=Template(subject=subject, body=body) if subject or body else None,
        escape=arguments.member("escape", Escape, escape),
        recipients=arguments.strings("recipients", recipients),
        grouping=grouping,
    )


def webhook(
    name: str,
    url: str,
    secret: str,
    selectors: Iterable[Selector] = (),
    *,
    description: str = "",
    enabled: bool | None = None,
    options: DeliveryOptions | None = None,
) -> EndpointConfiguration:
    """Describe a receiver of signed HTTP posts. `secret` is `new_webhook_secret()` or one of its form."""
    return EndpointConfiguration(
        name=name,
        description=description,
        enabled=enabled,
        webhook=WebhookConnection(url=url, secret=secret),
        selectors=selectors,
        options=options,
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
    options: DeliveryOptions | None = None,
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
        options=options,
    )


def test_request(target: str | EndpointConfiguration) -> TestEndpointConfigurationRequest:
    """Ask for a test of a stored configuration, by its id, or of an unsaved one."""
    if isinstance(target, str):
        return TestEndpointConfigurationRequest(id=target)
    return TestEndpointConfigurationRequest(configuration=target)


def switch_request(kind: str, enabled: bool) -> UpdateEndpointRequest:
    """Ask to switch a kind of endpoint."""
    request = UpdateEndpointRequest(endpoint=Endpoint(kind=arguments.text("kind", kind), enabled=enabled))
    request.update_mask.paths.append("enabled")
    return request


def update_request(configuration: EndpointConfiguration, fields: Iterable[str]) -> UpdateEndpointConfigurationRequest:
    """Ask to change some fields of a configuration, or all where none is named."""
    request = UpdateEndpointConfigurationRequest(configuration=configuration)
    if paths := arguments.strings("fields", fields):
        request.update_mask.paths.extend(paths)
    return request


def explain_request(event: str | Event, configuration_id: str) -> ExplainEventRequest:
    """Ask about a stored event, by its id, or about a made-up one."""
    if isinstance(event, str):
        return ExplainEventRequest(event_id=event, configuration_id=configuration_id)
    return ExplainEventRequest(event=event, configuration_id=configuration_id)


def preview_request(target: str | EndpointConfiguration, event: str | Event) -> PreviewNotificationRequest:
    """Ask what a configuration, stored (by its id) or not, would send about an event, stored or made-up."""
    request = PreviewNotificationRequest()
    if isinstance(target, str):
        request.id = target
    else:
        request.configuration.CopyFrom(target)
    if isinstance(event, str):
        request.event_id = event
    else:
        request.event.CopyFrom(event)
    return request
