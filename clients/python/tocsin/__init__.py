"""Client of tocsin: append and follow events, configure notifications and alerts.

    import tocsin

    with tocsin.connect("127.0.0.1:50051") as client:
        client.append("image.analysis.failed", level="error", message="no such layer")

`connect` makes a blocking client, `connect_async` one for asyncio. The messages of the contract are in
`tocsin.v1`; the errors are drawn as a tree in `tocsin.errors`.
"""

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
    "AlertTypeDisabled",
    "AlertTypeNotRegistered",
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
