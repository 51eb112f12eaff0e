"""The calls of the blocking client about silences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Unpack

from tocsin import events, silences
from tocsin.paging import pages
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2 import EventFilter
from tocsin.v1.notifications_pb2_grpc import NotificationsStub


class SilenceCalls:
    """Keeping events from being told for a while; a part of `tocsin.Client`."""

    notifications: NotificationsStub

    def create_silence(
        self,
        filter: EventFilter | None = None,
        *,
        comment: str,
        start: datetime | None = None,
        end: datetime | None = None,
        duration: timedelta | None = None,
        author: str = "",
        request_id: str | None = None,
        **criteria: Unpack[events.Criteria],
    ) -> pb.Silence:
        """Keep what matches from being told, from `start` (now) for a `duration` or until an `end`."""
        wanted = events.one_filter(filter, criteria)
        fresh = request_id or events.fresh_request_id()
        request = silences.create_request(wanted, comment, start, end, duration, author, fresh)
        return self.notifications.CreateSilence(request).silence

    def get_silence(self, id: str) -> pb.Silence:
        """Answer one silence. Raises NotFound."""
        return self.notifications.GetSilence(pb.GetSilenceRequest(id=id)).silence

    def list_silences(self, states: Iterable[str] = ()) -> Iterator[pb.Silence]:
        """Go through the silences, the latest start first; states are "pending", "active" and "ended"."""
        found = pages(self.notifications.ListSilences, silences.list_request(states))
        return (silence for page in found for silence in page.silences)

    def update_silence(
        self,
        id: str,
        filter: EventFilter | None = None,
        *,
        comment: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        author: str | None = None,
        **criteria: Unpack[events.Criteria],
    ) -> pb.Silence:
        """Change what is given of a silence that has not ended. Raises NotFound, SilenceEnded."""
        wanted = events.one_filter(filter, criteria)
        request = silences.update_request(id, wanted, comment, start, end, author)
        return self.notifications.UpdateSilence(request).silence

    def delete_silence(self, id: str) -> None:
        """End a silence at once, and delete it. Raises NotFound."""
        self.notifications.DeleteSilence(pb.DeleteSilenceRequest(id=id))
