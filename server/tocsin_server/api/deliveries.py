"""The part of the service Notifications that asks about deliveries and acts on them by hand."""

from __future__ import annotations

from tocsin.v1 import notifications_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.delivery_messages import attempt_message, delivery_message, micros, query_of
from tocsin_server.api.paging import PageTokens, fitting, page_size
from tocsin_server.api.server import Send, Service
from tocsin_server.domain.deliveries import DeliveryQuery
from tocsin_server.domain.delivery_ports import DeliveryStore
from tocsin_server.domain.ports import NotificationStore


class DeliveryService(Service):
    """Deliveries."""

    descriptor = pb.DESCRIPTOR.services_by_name["Notifications"]

    def __init__(self, store: DeliveryStore, configurations: NotificationStore, tokens: PageTokens) -> None:
        self._store = store
        self._configurations = configurations
        self._tokens = tokens

    async def list_deliveries(self, request: pb.ListDeliveriesRequest, caller: Caller) -> pb.ListDeliveriesResponse:
        """Answer a page of deliveries, newest first."""
        after = None
        if request.page_token:
            created_at, delivery_id = self._tokens.read(caller.account, request, request.page_token)
            after = (int(created_at), str(delivery_id))
        size = page_size(request.page_size)
        page = await self._store.page(query_of(caller.account, request), after, size + 1)
        shown = fitting(delivery_message(d) for d in page.deliveries[:size])
        token = ""
        if len(page.deliveries) > len(shown):
            last = page.deliveries[len(shown) - 1]
            token = self._tokens.make(caller.account, request, [last.created_at, last.id])
        elif page.scanned_to is not None:
            token = self._tokens.make(caller.account, request, page.scanned_to)
        return pb.ListDeliveriesResponse(deliveries=shown, next_page_token=token)

    async def get_delivery(self, request: pb.GetDeliveryRequest, caller: Caller) -> pb.GetDeliveryResponse:
        """Answer one delivery with every attempt."""
        delivery, attempts = await self._store.get(caller.account, request.id)
        message = delivery_message(delivery)
        message.attempts.extend(attempt_message(attempt) for attempt in attempts)
        return pb.GetDeliveryResponse(delivery=message)

    async def watch_deliveries(self, request: pb.WatchDeliveriesRequest, caller: Caller, send: Send) -> None:
        """Tell of deliveries as they change."""
        changes = self._store.follow(query_of(caller.account, request))
        try:
            async for deliveries in changes:
                answer = pb.WatchDeliveriesResponse(deliveries=[delivery_message(d) for d in deliveries])
                await send(answer.SerializeToString())
        finally:
            await changes.aclose()

    async def retry_delivery(self, request: pb.RetryDeliveryRequest, caller: Caller) -> pb.RetryDeliveryResponse:
        """Have a delivery tried now."""
        return pb.RetryDeliveryResponse(delivery=delivery_message(await self._store.retry(caller.account, request.id)))

    async def cancel_delivery(self, request: pb.CancelDeliveryRequest, caller: Caller) -> pb.CancelDeliveryResponse:
        """Cancel a delivery that waits."""
        cancelled = await self._store.cancel(caller.account, request.id)
        return pb.CancelDeliveryResponse(delivery=delivery_message(cancelled))

    async def recover_deliveries(
        self, request: pb.RecoverDeliveriesRequest, caller: Caller
    ) -> pb.RecoverDeliveriesResponse:
        """Have deliveries that ended undelivered begin anew."""
        found = await self._configurations.get(caller.account, request.configuration_id)
        query = DeliveryQuery(
            caller.account, configuration_id=found.id, since=micros(request.since), until=micros(request.until)
        )
        recovered = await self._store.recover(query)
        return pb.RecoverDeliveriesResponse(recovered_count=recovered.count, more=recovered.more)

    async def get_delivery_statistics(
        self, request: pb.GetDeliveryStatisticsRequest, caller: Caller
    ) -> pb.GetDeliveryStatisticsResponse:
        """Answer what became of all deliveries."""
        if request.all_accounts:
            caller.require_admin("all_accounts")
        sums = await self._store.sums(None if request.all_accounts else caller.account)
        return pb.GetDeliveryStatisticsResponse(
            routed=sums.routed,
            delivered=sums.delivered,
            exhausted=sums.exhausted,
            cancelled=sums.cancelled,
            silenced=sums.silenced,
            open=sums.open,
        )
