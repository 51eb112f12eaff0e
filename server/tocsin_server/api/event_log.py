"""Reading, deleting and following events: requests to the store, frames to answers. Appending is in `appends.py`."""

from __future__ import annotations

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.event_filters import event_filter, refuse_times
from tocsin_server.api.paging import PageTokens, page_size
from tocsin_server.api.server import Send, Service
from tocsin_server.api.starts import start_position
from tocsin_server.domain.encoding import varint
from tocsin_server.domain.errors import TocsinError, invalid_field
from tocsin_server.domain.event_log import (
    SUBSCRIBE_BATCH_EVENTS,
    Batch,
    CaughtUp,
    Key,
    Step,
)
from tocsin_server.domain.ports import EventLogStore
from tocsin_server.domain.selection import EventFilter

DELETE_STEP_EVENTS = 500  # one short transaction, one message of at most 32 KB of ids
PREVIEW_EVENTS = 100
BATCH_TAG = b"\x12"  # SubscribeResponse.batch: field 2, length-delimited
HEARTBEAT_S = 15.0


class EventLogService(Service):
    """Reading, deleting and following events."""

    descriptor = pb.DESCRIPTOR.services_by_name["EventLog"]

    def __init__(self, log: EventLogStore, tokens: PageTokens, log_id: str) -> None:
        self._log = log
        self._tokens = tokens
        self._log_id = log_id
        self._told: tuple[Step | None, bytes] = (None, b"")

    async def get_event(self, request: pb.GetEventRequest, caller: Caller) -> bytes:
        """Answer one event's frame."""
        return await self._log.get(caller.account, request.id)

    async def list_events(self, request: pb.ListEventsRequest, caller: Caller) -> bytes:
        """Answer a page of frames, joined."""
        wanted = event_filter(request.filter, caller)
        after = None
        if request.page_token:
            timestamp, position = self._tokens.read(caller.account, request, request.page_token)
            after = Key(int(timestamp), int(position))
        newest_first = request.order != pb.ORDER_OLDEST_FIRST
        page = await self._log.page(wanted, newest_first, after, page_size(request.page_size))
        tail = pb.ListEventsResponse()
        if request.with_total_size:
            total = await self._log.total(wanted)
            tail.total_size, tail.total_size_capped = total.count, total.capped
        if page.next_key is not None:
            place = (page.next_key.timestamp, page.next_key.position)
            tail.next_page_token = self._tokens.make(caller.account, request, place)
        return b"".join((*page.frames, tail.SerializeToString()))

    async def delete_event(self, request: pb.DeleteEventRequest, caller: Caller) -> pb.DeleteEventResponse:
        """Delete one event, once the router has seen it."""
        head = self._log.head
        await self._log.routed(head)
        await self._log.delete(caller.account, request.id, head)
        return pb.DeleteEventResponse(id=request.id)

    async def delete_events(self, request: pb.DeleteEventsRequest, caller: Caller, send: Send) -> None:
        """Delete what matches and stood when this began, in steps; or say what would be deleted."""
        wanted = event_filter(request.filter, caller)
        if request.all and not wanted.is_empty():
            raise invalid_field("all", "cannot be joined with a filter: leave one of them out")
        if not request.all and wanted.is_empty():
            raise invalid_field("filter", "needs at least one criterion, or set all = true")
        if request.validate_only:
            await send(await self._preview(wanted))
            return
        head = self._log.head
        await self._log.routed(head)
        deleted, reached = 0, 0
        while reached < head:
            ids, reached = await self._log.delete_step(wanted, reached, head, DELETE_STEP_EVENTS)
            deleted += len(ids)
            if ids:
                progress = pb.DeleteEventsResponse.Progress(ids=ids, deleted_count=deleted)
                await send(pb.DeleteEventsResponse(progress=progress).SerializeToString())
        done = pb.DeleteEventsResponse.Done(deleted_count=deleted)
        await send(pb.DeleteEventsResponse(done=done).SerializeToString())

    async def _preview(self, wanted: EventFilter) -> bytes:
        count = await self._log.count(wanted)
        page = await self._log.page(wanted, True, None, PREVIEW_EVENTS)
        sample = pb.ListEventsResponse.FromString(b"".join(page.frames)).events
        preview = pb.DeleteEventsResponse.Preview(matching_count=count, sample=sample)
        return pb.DeleteEventsResponse(preview=preview).SerializeToString()

    async def subscribe(self, request: pb.SubscribeRequest, caller: Caller, send: Send) -> None:
        """Tell what stands after the start, then what comes, until the client leaves."""
        wanted = event_filter(request.filter, caller)
        refuse_times(request.filter)
        status = await self._log.status(wanted.account)
        start = await start_position(self._log, self._log_id, request, status.oldest)
        position = status.oldest - 1 if start is None else start
        started = pb.SubscribeResponse.Started(
            log_id=status.log_id, head=status.head, oldest=status.oldest, position=position
        )
        await send(pb.SubscribeResponse(started=started).SerializeToString())
        heartbeat_s, ends = _heartbeat_s(request), request.stop_when_caught_up
        steps = self._log.follow(wanted, start, request.batch_max or SUBSCRIBE_BATCH_EVENTS, heartbeat_s)
        # There are thousands of subscribers: while they wait they keep only what they need.
        del request, wanted, status, started
        async for step in steps:
            try:
                await send(self._message(step))
            except TocsinError as error:
                error.metadata["position"] = str(position)
                raise
            position = step.position
            if ends and isinstance(step, CaughtUp):
                return

    def _message(self, step: Step) -> bytes:
        """Encode a step; followers that are told the same one share what is sent."""
        last, message = self._told
        if step is not last:
            message = encoded_step(step)
            self._told = (step, message)
        return message


def _heartbeat_s(request: pb.SubscribeRequest) -> float:
    if not request.HasField("heartbeat_interval"):
        return HEARTBEAT_S
    return float(request.heartbeat_interval.seconds + request.heartbeat_interval.nanos / 1e9)


def encoded_step(step: Step) -> bytes:
    """Encode one message of a subscription; the frames of a batch are its field 1 already."""
    if isinstance(step, Batch):
        place = pb.SubscribeResponse.Batch(position=step.position).SerializeToString()
        return b"".join((BATCH_TAG, varint(len(step.frames) + len(place)), step.frames, place))
    if isinstance(step, CaughtUp):
        return pb.SubscribeResponse(caught_up=pb.SubscribeResponse.CaughtUp(position=step.position)).SerializeToString()
    return pb.SubscribeResponse(checkpoint=pb.SubscribeResponse.Checkpoint(position=step.position)).SerializeToString()
