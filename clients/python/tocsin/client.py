"""The blocking client. `tocsin.aio.client` is its asyncio twin; what both know is in the pure modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Self, Unpack, cast
from weakref import WeakSet

import grpc

from tocsin import catalogue, events, following, ingesting
from tocsin.alert_calls import AlertCalls
from tocsin.channel import Channel, Streaming, dial
from tocsin.consumer_calls import ConsumerCalls
from tocsin.consumption import Consumption
from tocsin.delivery_calls import DeliveryCalls
from tocsin.endpoint_calls import EndpointCalls
from tocsin.ingestion import Ingestion, Pour
from tocsin.paging import pages
from tocsin.settings import DEFAULT_ADDRESS, Options, Settings
from tocsin.silence_calls import SilenceCalls
from tocsin.subscription import OnDisconnect, Subscription
from tocsin.v1 import event_log_pb2 as event_log
from tocsin.v1 import system_pb2 as system
from tocsin.v1.alerting_pb2_grpc import AlertingStub
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub
from tocsin.v1.system_pb2_grpc import SystemStub
from tocsin.watching import DeliveryWatch

# Deletions of many events go on for as long as they need; this ends one that hangs.
_DELETION_TIMEOUT_S = 600.0
_Follow = Streaming[event_log.SubscribeRequest, event_log.SubscribeResponse]


def connect(address: str = DEFAULT_ADDRESS, **options: Unpack[Options]) -> Client:
    """Make a client; it connects with its first call. Raises ValueError."""
    settings = Settings.of(address, options)
    return Client(dial(settings), settings)


class Client(AlertCalls, ConsumerCalls, DeliveryCalls, EndpointCalls, SilenceCalls):
    """A connection to a server, to be used as a context manager. Threads may share it.

    `event_log`, `notifications`, `alerting` and `system` are the stubs with every RPC of the protos;
    they too have deadlines, safe retries and the errors of `tocsin.errors`. The methods are the same
    calls with plain arguments. All raise TocsinError.
    """

    def __init__(self, channel: grpc.Channel, settings: Settings, *, owner: bool = True) -> None:
        self._grpc_channel = channel
        self._settings = settings
        self._owner = owner
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self._consumptions: WeakSet[Consumption] = WeakSet()
        self._watches: WeakSet[DeliveryWatch] = WeakSet()
        self._ingestions: WeakSet[Ingestion] = WeakSet()
        ours = cast(grpc.Channel, Channel(channel, settings))
        self.event_log = EventLogStub(ours)
        self._follow = cast(_Follow, self.event_log.Subscribe)
        self.notifications = NotificationsStub(ours)
        self.alerting = AlertingStub(ours)
        self.system = SystemStub(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave all streams, end the connection. A client of `in_context` has nothing to close."""
        if not self._owner:
            return
        for subscription in list(self._subscriptions):
            subscription.close()
        for watch in list(self._watches):
            watch.close()
        for consumption in list(self._consumptions):
            consumption.close()
        for ingestion in list(self._ingestions):
            ingestion.close()
        self._grpc_channel.close()

    def in_context(
        self,
        *,
        request_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        account: str | None = None,
    ) -> Client:
        """Answer a client on the same connection whose calls carry these headers.

        What is not given stays as it is here. The server echoes the ids and keeps them on events and
        deliveries.
        """
        given = {
            "request_id": request_id,
            "correlation_id": correlation_id,
            "traceparent": traceparent,
            "account": account,
        }
        settings = self._settings.in_context(**{name: value for name, value in given.items() if value})
        client = Client(self._grpc_channel, settings, owner=False)
        client._subscriptions, client._consumptions = self._subscriptions, self._consumptions
        client._ingestions, client._watches = self._ingestions, self._watches
        return client

    def info(self) -> system.GetInfoResponse:
        """Answer version, store, log and limits of the server."""
        return self.system.GetInfo(system.GetInfoRequest())

    # The event log

    def append(
        self,
        event: str | event_log.Event,
        *,
        request_id: str | None = None,
        **fields: Unpack[events.EventFields],
    ) -> events.Appended:
        """Append an event, given by its type and fields or ready-made. It is durable when this returns.

        Without an id of its own it gets a request id, so that retries store it once.
        """
        request = events.append_request(event, request_id, fields)
        return events.appended(self.event_log.AppendEvent(request))

    def append_many(self, batch: Iterable[event_log.Event], *, request_id: str | None = None) -> list[events.Appended]:
        """Append up to 1000 events of `draft`, all or none; answers in their order."""
        request = events.append_many_request(batch, request_id)
        return events.appended_many(self.event_log.AppendEvents(request))

    def ingest(
        self,
        drafts: Iterable[event_log.Event],
        *,
        batch_size: int = ingesting.BATCH_SIZE,
        window: int = ingesting.WINDOW,
        on_disconnect: OnDisconnect | None = None,
    ) -> Ingestion:
        """Store any number of events of `draft`, the fast way; answers an iterator over what became of each.

        Events travel in batches of up to `batch_size` (1000 at most), of which up to `window` (256 at most) are
        unacknowledged at once. A refused event is refused alone. After a disconnect, what was not acknowledged
        is sent again and stored once. Raises ValueError.
        """
        flow = ingesting.Flow(batch_size, window, self._settings.backoff)
        ingestion = Ingestion(cast(Pour, self.event_log.Ingest), flow, drafts, on_disconnect)
        self._ingestions.add(ingestion)
        return ingestion

    def get_event(self, id: str) -> event_log.Event:
        """Answer one event. Raises NotFound."""
        return self.event_log.GetEvent(event_log.GetEventRequest(id=id)).event

    def list_events(
        self,
        filter: event_log.EventFilter | None = None,
        *,
        oldest_first: bool = False,
        page_size: int = 0,
        **criteria: Unpack[events.Criteria],
    ) -> Iterator[event_log.Event]:
        """Go through all matching events by time of occurrence, page after page."""
        request = events.list_request(events.one_filter(filter, criteria), oldest_first, page_size)
        return (event for page in pages(self.event_log.ListEvents, request) for event in page.events)

    def get_many(self, ids: Iterable[str]) -> events.Found:
        """Answer several events by their ids, in their order, with as many calls as that takes."""
        found = events.Found([], [])
        for asked in events.batches(ids):
            rest = asked
            while rest:
                answer = self.event_log.BatchGetEvents(event_log.BatchGetEventsRequest(ids=rest))
                found.events.extend(answer.events)
                found.missing.extend(answer.missing_ids)
                rest = list(answer.remaining_ids)
        return found

    def log_status(self, *, all_accounts: bool = False) -> event_log.GetLogStatusResponse:
        """Answer identity and reach of the log, and how many events can be read."""
        return self.event_log.GetLogStatus(events.status_request(all_accounts))

    def summarize(
        self,
        filter: event_log.EventFilter | None = None,
        *,
        bucket_width: timedelta | None = None,
        bucket_count: int | None = None,
        group_by: str = "",
        top: int = 0,
        **criteria: Unpack[events.Criteria],
    ) -> event_log.SummarizeEventsResponse:
        """Count events per bucket of time and per value of a field ("type", "host", "labels.region" ...)."""
        wanted = events.one_filter(filter, criteria)
        request = events.summary_request(wanted, bucket_width, bucket_count, group_by, top)
        return self.event_log.SummarizeEvents(request)

    def delete_event(self, id: str) -> None:
        """Delete one event. Raises NotFound."""
        self.event_log.DeleteEvent(event_log.DeleteEventRequest(id=id))

    def delete_events(
        self,
        filter: event_log.EventFilter | None = None,
        *,
        all: bool = False,
        timeout_s: float = _DELETION_TIMEOUT_S,
        **criteria: Unpack[events.Criteria],
    ) -> list[str]:
        """Delete what matches, or everything of the account; answers the ids."""
        request = events.delete_request(events.one_filter(filter, criteria), all, validate_only=False)
        steps = self.event_log.DeleteEvents(request, timeout=timeout_s)
        return [id for step in steps for id in step.progress.ids]

    def preview_deletion(
        self,
        filter: event_log.EventFilter | None = None,
        *,
        all: bool = False,
        **criteria: Unpack[events.Criteria],
    ) -> event_log.DeleteEventsResponse.Preview:
        """Answer how many events `delete_events` would delete, and up to 100 of them."""
        request = events.delete_request(events.one_filter(filter, criteria), all, validate_only=True)
        steps = self.event_log.DeleteEvents(request, timeout=_DELETION_TIMEOUT_S)
        found = event_log.DeleteEventsResponse.Preview()
        for step in steps:
            found.MergeFrom(step.preview)
        return found

    def subscribe(
        self,
        filter: event_log.EventFilter | None = None,
        *,
        start: following.Start = "new",
        batch_max: int = 0,
        heartbeat_s: float | None = None,
        stop_when_caught_up: bool = False,
        on_disconnect: OnDisconnect | None = None,
        **criteria: Unpack[events.Criteria],
    ) -> Subscription:
        """Follow the log. It connects when it is first read, and again after every disconnect."""
        wanted = events.one_filter(filter, criteria)
        request = following.subscribe_request(wanted, start, batch_max, heartbeat_s, stop_when_caught_up)
        progress = following.Progress(request, self._settings.backoff)

        subscription = Subscription(self._follow, progress, on_disconnect)
        self._subscriptions.add(subscription)
        return subscription

    # The catalogue of event types

    def register_event_types(self, event_types: Iterable[event_log.EventType]) -> list[event_log.EventType]:
        """Write entries of `event_type(...)` into the account's catalogue, all or none. Up to 100."""
        request = catalogue.register_request(event_types)
        return list(self.event_log.RegisterEventTypes(request).event_types)

    def unregister_event_types(self, names: Iterable[str | tuple[str, str]]) -> int:
        """Remove entries by type, or by (type, subtype); answers how many there were."""
        request = catalogue.unregister_request(names)
        return self.event_log.UnregisterEventTypes(request).removed_count

    def list_event_types(self, type: str = "") -> Iterator[event_log.EventType]:
        """Go through the catalogue, what is built in and what is the account's. `type` may be a glob."""
        found = pages(self.event_log.ListEventTypes, catalogue.list_request(type))
        return (entry for page in found for entry in catalogue.entries(page))
