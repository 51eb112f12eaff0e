"""Client of tocsin: append and follow events, configure notifications and alerts.

    import tocsin

    with tocsin.connect("127.0.0.1:50051") as client:
        client.append("image.analysis.failed", level="error", message="no such layer")

`connect` makes a blocking client, `connect_async` one for asyncio. The messages of the contract are in
`tocsin.v1`; the errors are drawn as a tree in `tocsin.errors`.

Each name is loaded with its first use: a program that only reads messages does not pay for what calls.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tocsin.aio import (
        AsyncClient,
        AsyncConsumption,
        AsyncDeliveryWatch,
        AsyncIngestion,
        AsyncSubscription,
        connect_async,
    )
    from tocsin.alerts import RECOVERED, action, alert
    from tocsin.catalogue import event_type
    from tocsin.client import Client, connect
    from tocsin.consumers import Delivery
    from tocsin.consumption import Consumption
    from tocsin.errors import (
        Aborted,
        AlertDisabled,
        AlertingOff,
        AlertTypeDisabled,
        AlertTypeNotRegistered,
        AlreadyExists,
        Cancelled,
        Conflict,
        DataLoss,
        DeadlineExceeded,
        DeliveryInState,
        EndpointDisabled,
        EventCorrupt,
        FailedPrecondition,
        IdReused,
        InternalError,
        InvalidField,
        InvalidMetadata,
        InvalidPageToken,
        InvalidRequest,
        InvalidTemplate,
        KeyMissing,
        LimitReached,
        LogChanged,
        NameTaken,
        NavigationNotRegistered,
        NavigationRegistered,
        NotFound,
        OutOfRange,
        Overloaded,
        PageTokenMismatch,
        PermissionDenied,
        PositionAhead,
        PositionExpired,
        ReadOnly,
        RenderFailed,
        RequestIdReused,
        ResourceExhausted,
        ServerDraining,
        ServerStarting,
        SilenceEnded,
        SlowConsumer,
        StorageFailed,
        StorageFull,
        TocsinError,
        TooManyPreviews,
        TooManyStreams,
        TooManyTests,
        Unauthenticated,
        Unavailable,
        Undecodable,
        Unimplemented,
        Violation,
    )
    from tocsin.events import Appended, Found, draft, event_filter
    from tocsin.following import After, CaughtUp
    from tocsin.ingesting import Outcome, Refused
    from tocsin.ingestion import Ingestion
    from tocsin.receivers import delivery_options, grouping, mailbox, new_webhook_secret, selector, webhook
    from tocsin.retries import Backoff
    from tocsin.settings import TLS
    from tocsin.signatures import WebhookRefused, verify_webhook
    from tocsin.subscription import Subscription
    from tocsin.v1.event_log_pb2 import Event
    from tocsin.values import to_datetime, to_python
    from tocsin.watching import DeliveryWatch

__all__ = [
    "RECOVERED",
    "TLS",
    "Aborted",
    "After",
    "AlertDisabled",
    "AlertTypeDisabled",
    "AlertTypeNotRegistered",
    "AlertingOff",
    "AlreadyExists",
    "Appended",
    "AsyncClient",
    "AsyncConsumption",
    "AsyncDeliveryWatch",
    "AsyncIngestion",
    "AsyncSubscription",
    "Backoff",
    "Cancelled",
    "CaughtUp",
    "Client",
    "Conflict",
    "Consumption",
    "DataLoss",
    "DeadlineExceeded",
    "Delivery",
    "DeliveryInState",
    "DeliveryWatch",
    "EndpointDisabled",
    "Event",
    "EventCorrupt",
    "FailedPrecondition",
    "Found",
    "IdReused",
    "Ingestion",
    "InternalError",
    "InvalidField",
    "InvalidMetadata",
    "InvalidPageToken",
    "InvalidRequest",
    "InvalidTemplate",
    "KeyMissing",
    "LimitReached",
    "LogChanged",
    "NameTaken",
    "NavigationNotRegistered",
    "NavigationRegistered",
    "NotFound",
    "OutOfRange",
    "Outcome",
    "Overloaded",
    "PageTokenMismatch",
    "PermissionDenied",
    "PositionAhead",
    "PositionExpired",
    "ReadOnly",
    "Refused",
    "RenderFailed",
    "RequestIdReused",
    "ResourceExhausted",
    "ServerDraining",
    "ServerStarting",
    "SilenceEnded",
    "SlowConsumer",
    "StorageFailed",
    "StorageFull",
    "Subscription",
    "TocsinError",
    "TooManyPreviews",
    "TooManyStreams",
    "TooManyTests",
    "Unauthenticated",
    "Unavailable",
    "Undecodable",
    "Unimplemented",
    "Violation",
    "WebhookRefused",
    "action",
    "alert",
    "connect",
    "connect_async",
    "delivery_options",
    "draft",
    "event_filter",
    "event_type",
    "grouping",
    "mailbox",
    "new_webhook_secret",
    "selector",
    "to_datetime",
    "to_python",
    "verify_webhook",
    "webhook",
]

# Where each name of `__all__` is at home, but for the errors, which are the others.
# `tests/client/test_package.py` holds this to the imports above.
_HOME_OF = {
    name: f"tocsin.{home}"
    for home, names in {
        "aio": "AsyncClient AsyncConsumption AsyncDeliveryWatch AsyncIngestion AsyncSubscription connect_async",
        "alerts": "RECOVERED action alert",
        "catalogue": "event_type",
        "client": "Client connect",
        "consumers": "Delivery",
        "consumption": "Consumption",
        "events": "Appended Found draft event_filter",
        "following": "After CaughtUp",
        "ingesting": "Outcome Refused",
        "ingestion": "Ingestion",
        "receivers": "delivery_options grouping mailbox new_webhook_secret selector webhook",
        "retries": "Backoff",
        "settings": "TLS",
        "signatures": "WebhookRefused verify_webhook",
        "subscription": "Subscription",
        "v1.event_log_pb2": "Event",
        "values": "to_datetime to_python",
        "watching": "DeliveryWatch",
    }.items()
    for name in names.split()
}
# Modules that can be named after `import tocsin` alone.
_MODULES = frozenset({
    "aio", "alert_calls", "alerts", "arguments", "catalogue", "channel", "client", "consumer_calls", "consumers",
    "consumption", "deliveries", "delivery_calls", "endpoint_calls", "error", "errors", "events", "failures",
    "following", "ingesting", "ingestion", "paging", "receivers", "retries", "settings", "signatures", "silence_calls",
    "silences", "subscription", "v1", "values", "violation", "watching",
})  # fmt: skip

if not TYPE_CHECKING:  # or type checkers would take any name for one that is there

    def __getattr__(name: str) -> object:
        """Load a name, or a module of this package, when it is first asked for."""
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF.get(name, "tocsin.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Answer every public name, loaded or not."""
    return sorted({*globals(), *__all__, *_MODULES})
