"""More reads of the service EventLog on the wire: events by their ids, the log's status, summaries."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.event_filters import event_filter
from tocsin_server.api.server import Service
from tocsin_server.domain.encoding import SECOND_US
from tocsin_server.domain.errors import invalid_field
from tocsin_server.domain.ports import EventLogStore
from tocsin_server.domain.summary import Bucket, Summary, SummaryQuery


class EventLookupService(Service):
    """Reading events by id, and counting them."""

    descriptor = pb.DESCRIPTOR.services_by_name["EventLog"]

    def __init__(self, log: EventLogStore) -> None:
        self._log = log

    async def batch_get_events(self, request: pb.BatchGetEventsRequest, caller: Caller) -> bytes:
        """Answer the frames of several events, joined, and the ids that have none here."""
        found = await self._log.batch(caller.account, request.ids)
        rest = pb.BatchGetEventsResponse(missing_ids=found.missing, remaining_ids=found.remaining)
        return b"".join((*found.frames, rest.SerializeToString()))

    async def get_log_status(self, request: pb.GetLogStatusRequest, caller: Caller) -> pb.GetLogStatusResponse:
        """Answer identity and reach of the log, and how many events can be read."""
        everybody = request.scope == pb.SCOPE_GLOBAL
        if everybody:
            caller.require_admin("scope SCOPE_GLOBAL")
        account = None if everybody else caller.account
        status = await self._log.status(account)
        standing = await self._log.standing(account)
        return pb.GetLogStatusResponse(
            log_id=status.log_id,
            head=status.head,
            oldest=status.oldest,
            event_count=standing.count,
            event_count_capped=standing.capped,
        )

    async def summarize_events(self, request: pb.SummarizeEventsRequest, caller: Caller) -> pb.SummarizeEventsResponse:
        """Answer counts per bucket of time and per value of a field."""
        wanted = event_filter(request.filter, caller)
        kind = request.WhichOneof("buckets")
        width = request.bucket_width
        if kind == "bucket_width" and width.nanos:
            raise invalid_field("bucket_width", "is not whole seconds")
        query = SummaryQuery(
            wanted,
            request.group_by,
            request.top,
            width.seconds * SECOND_US if kind == "bucket_width" else None,
            request.bucket_count if kind == "bucket_count" else None,
        )
        return _answer(await self._log.summarize(query))


def _answer(summary: Summary) -> pb.SummarizeEventsResponse:
    answer = pb.SummarizeEventsResponse(
        total_count=summary.total,
        groups=[pb.SummarizeEventsResponse.Group(value=value, count=count) for value, count in summary.groups],
        others_count=summary.others,
        buckets=[_bucket(bucket) for bucket in summary.buckets],
        truncated=summary.counted_since is not None,
    )
    if summary.width_us is not None and summary.buckets:
        answer.bucket_width.CopyFrom(Duration(seconds=summary.width_us // SECOND_US))
    if summary.counted_since is not None:
        answer.counted_since.CopyFrom(_timestamp(summary.counted_since))
    return answer


def _bucket(bucket: Bucket) -> pb.SummarizeEventsResponse.Bucket:
    return pb.SummarizeEventsResponse.Bucket(
        start=_timestamp(bucket.start), count=bucket.count, group_counts=bucket.group_counts
    )


def _timestamp(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // SECOND_US, nanos=micros % SECOND_US * 1000)
