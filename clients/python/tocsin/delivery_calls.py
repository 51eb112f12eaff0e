"""The calls of the blocking client about deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Unpack, cast
from weakref import WeakSet

from tocsin import deliveries
from tocsin.channel import Streaming, until
from tocsin.paging import pages
from tocsin.settings import Settings
from tocsin.subscription import OnDisconnect
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.notifications_pb2_grpc import NotificationsStub
from tocsin.watching import DeliveryWatch

_POLL_S = 0.1
_Watch = Streaming[pb.WatchDeliveriesRequest, pb.WatchDeliveriesResponse]


class DeliveryCalls:
    """Finding, following and repeating deliveries; a part of `tocsin.Client`."""

    notifications: NotificationsStub
    _settings: Settings
    _watches: WeakSet[DeliveryWatch]

    def list_deliveries(
        self,
        states: Iterable[str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 0,
        **criteria: Unpack[deliveries.DeliveryCriteria],
    ) -> Iterator[pb.Delivery]:
        """Go through the deliveries, newest first, without their attempts; routed in [since, until).

        States are words: "pending", "sending", "retrying", "delivered", "exhausted", "cancelled", "paused",
        "silenced", "grouped".
        """
        request = deliveries.deliveries_request(states, since=since, until=until, page_size=page_size, **criteria)
        found = pages(self.notifications.ListDeliveries, request)
        return (delivery for page in found for delivery in page.deliveries)

    def get_delivery(self, id: str) -> pb.Delivery:
        """Answer one delivery with every attempt. Raises NotFound."""
        return self.notifications.GetDelivery(pb.GetDeliveryRequest(id=id)).delivery

    def watch_deliveries(
        self,
        states: Iterable[str] = (),
        *,
        on_disconnect: OnDisconnect | None = None,
        **criteria: Unpack[deliveries.DeliveryCriteria],
    ) -> DeliveryWatch:
        """Be told of deliveries as they change, without end; to be left through its `with` block.

        The first message is empty: nothing is missed from then on. After a disconnect it connects again, and such an
        empty message says that what changed meanwhile is to be listed.
        """
        request = deliveries.watch_request(states, **criteria)
        connect = cast(_Watch, self.notifications.WatchDeliveries)
        watch = DeliveryWatch(connect, request, self._settings.backoff, on_disconnect)
        self._watches.add(watch)
        return watch

    def retry_delivery(self, id: str) -> pb.Delivery:
        """Have a delivery tried as soon as may be; one that was given up begins anew. Raises DeliveryInState."""
        return self.notifications.RetryDelivery(pb.RetryDeliveryRequest(id=id)).delivery

    def cancel_delivery(self, id: str) -> pb.Delivery:
        """Cancel a delivery that waits. Raises NotFound, DeliveryInState."""
        return self.notifications.CancelDelivery(pb.CancelDeliveryRequest(id=id)).delivery

    def recover_deliveries(
        self, configuration_id: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> int:
        """Have what was given up or cancelled in [since, until) begin anew; answers how many do. Raises NotFound."""
        request = deliveries.recover_request(configuration_id, since, until)
        count = 0
        while True:
            answer = self.notifications.RecoverDeliveries(request)
            count += answer.recovered_count
            if not answer.more:
                return count

    def delivery_statistics(self, *, all_accounts: bool = False) -> pb.GetDeliveryStatisticsResponse:
        """Answer what became of all deliveries that were ever made: `routed` is the sum of the others."""
        request = pb.GetDeliveryStatisticsRequest(all_accounts=all_accounts)
        return self.notifications.GetDeliveryStatistics(request)

    def wait_for_delivery(
        self,
        *,
        configuration_id: str = "",
        event_id: str = "",
        alert_id: str = "",
        timeout_s: float = 30.0,
    ) -> pb.Delivery:
        """Wait until such a delivery has ended, well or not. Raises TimeoutError."""

        def look() -> pb.Delivery | None:
            found = self.list_deliveries(
                deliveries.ENDED, configuration_id=configuration_id, event_id=event_id, alert_id=alert_id
            )
            return next(found, None)

        return until(look, "a delivery", timeout_s, _POLL_S)
