"""The calls of the blocking client about durable consumers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Unpack, cast
from weakref import WeakSet

from tocsin import consumers, events, following
from tocsin.consumption import Consumption, Join
from tocsin.paging import pages
from tocsin.settings import Settings
from tocsin.subscription import OnDisconnect
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1.event_log_pb2_grpc import EventLogStub


class ConsumerCalls:
    """Creating, moving and sharing consumers; a part of `tocsin.Client`."""

    event_log: EventLogStub
    _settings: Settings
    _consumptions: WeakSet[Consumption]

    def create_consumer(
        self,
        name: str,
        filter: pb.EventFilter | None = None,
        *,
        start: following.Start = "new",
        lease_s: float | None = None,
        max_retries: int | None = None,
        max_in_flight: int | None = None,
        retry_delay_s: float | None = None,
        request_id: str | None = None,
        **criteria: Unpack[events.Criteria],
    ) -> pb.Consumer:
        """Create a durable consumer: a place in the log that many clients share. Raises NameTaken.

        Unset: 30 s to settle an event, 10 retries a second apart, 100 events in flight.
        """
        wanted = events.one_filter(filter, criteria)
        request = consumers.create_request(
            name, wanted, start, lease_s, max_retries, max_in_flight, retry_delay_s, request_id
        )
        return (self.event_log.CreateConsumer(request)).consumer

    def get_consumer(self, name: str) -> pb.GetConsumerResponse:
        """Answer a consumer and, as `status`, how far it is: lag, in flight, parked. Raises NotFound."""
        return self.event_log.GetConsumer(pb.GetConsumerRequest(name=name))

    def list_consumers(self) -> Iterator[pb.Consumer]:
        """Go through the consumers of the account by name."""
        found = pages(self.event_log.ListConsumers, pb.ListConsumersRequest())
        return (consumer for page in found for consumer in page.consumers)

    def update_consumer(
        self,
        name: str,
        *,
        lease_s: float | None = None,
        max_retries: int | None = None,
        max_in_flight: int | None = None,
        retry_delay_s: float | None = None,
    ) -> pb.Consumer:
        """Change what is given, also while clients share the consumer. Raises NotFound."""
        request = consumers.update_request(name, lease_s, max_retries, max_in_flight, retry_delay_s)
        return (self.event_log.UpdateConsumer(request)).consumer

    def seek_consumer(self, name: str, start: following.Start) -> int:
        """Have a consumer go on elsewhere; answers after which position. Raises NotFound, PositionAhead.

        What clients hold at this moment is forgotten; what is parked stays.
        """
        return (self.event_log.SeekConsumer(consumers.seek_request(name, start))).position

    def delete_consumer(self, name: str) -> None:
        """Delete a consumer with all that it knows; the events stay. Raises NotFound."""
        self.event_log.DeleteConsumer(pb.DeleteConsumerRequest(name=name))

    def list_parked(self, name: str) -> Iterator[pb.ParkedEvent]:
        """Go through the parked events of a consumer by position. Raises NotFound."""
        found = pages(self.event_log.ListParked, pb.ListParkedRequest(name=name))
        return (parked for page in found for parked in page.parked)

    def replay_parked(
        self, name: str, *, positions: Iterable[int] = (), event_ids: Iterable[str] = (), all: bool = False
    ) -> int:
        """Hand out parked events anew, as if never tried; answers how many. Raises NotFound."""
        request = consumers.choice(pb.ReplayParkedRequest, name, positions, event_ids, all)
        return (self.event_log.ReplayParked(cast(pb.ReplayParkedRequest, request))).replayed_count

    def purge_parked(
        self, name: str, *, positions: Iterable[int] = (), event_ids: Iterable[str] = (), all: bool = False
    ) -> int:
        """Forget parked events; answers how many. Raises NotFound."""
        request = consumers.choice(pb.PurgeParkedRequest, name, positions, event_ids, all)
        return (self.event_log.PurgeParked(cast(pb.PurgeParkedRequest, request))).purged_count

    def consume(
        self,
        name: str,
        *,
        max_in_flight: int = 0,
        heartbeat_s: float | None = None,
        on_disconnect: OnDisconnect | None = None,
    ) -> Consumption:
        """Share a consumer: hands out deliveries, each to be settled by `ack` or `nack`.

        It connects when it is first read, and again after every disconnect. `max_in_flight` is what
        this client may hold at once; 0 is a fair share of the consumer's.
        """
        start = consumers.start_request(name, max_in_flight, heartbeat_s)
        sharing = consumers.Sharing(start, self._settings.backoff)
        consumption = Consumption(cast(Join, self.event_log.Consume), sharing, on_disconnect)
        self._consumptions.add(consumption)
        return consumption
