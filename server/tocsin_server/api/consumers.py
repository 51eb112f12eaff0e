"""Durable consumers on the wire: a part of the service EventLog."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api import consumer_messages as messages
from tocsin_server.api.auth import Caller
from tocsin_server.api.paging import PageTokens, fitting, page_size
from tocsin_server.api.server import Receive, Send, Service
from tocsin_server.api.starts import start_position
from tocsin_server.domain.consumer_ports import ConsumerStore, ConsumerStream
from tocsin_server.domain.consumers import Consumer, Nack
from tocsin_server.domain.errors import Reason, TocsinError, invalid_field
from tocsin_server.domain.ports import EventLogStore

START_S = 30.0  # a stream that does not say what it wants holds a place for nothing
HEARTBEAT_S = 15.0


class ConsumersService(Service):
    """Creating, reading, moving and sharing consumers."""

    descriptor = pb.DESCRIPTOR.services_by_name["EventLog"]

    def __init__(
        self, store: ConsumerStore, log: EventLogStore, tokens: PageTokens, log_id: str, digest_key: bytes
    ) -> None:
        self._store = store
        self._log = log
        self._tokens = tokens
        self._log_id = log_id
        self._digest_key = digest_key

    async def create_consumer(self, request: pb.CreateConsumerRequest, caller: Caller) -> pb.CreateConsumerResponse:
        """Create a consumer; the same request id again answers the first."""
        draft = messages.draft(request.consumer, caller)
        position = await start_position(self._log, self._log_id, request) or 0
        as_sent = request.SerializeToString(deterministic=True)
        digest = hashlib.blake2b(as_sent, key=self._digest_key, digest_size=16).digest()
        created = await self._store.create(draft, position, request.request_id, digest)
        return pb.CreateConsumerResponse(consumer=messages.consumer(created))

    async def get_consumer(self, request: pb.GetConsumerRequest, caller: Caller) -> pb.GetConsumerResponse:
        """Answer one consumer and how far it is."""
        found, status = await self._store.status(caller.account, request.name)
        return pb.GetConsumerResponse(consumer=messages.consumer(found), status=messages.status(status))

    async def list_consumers(self, request: pb.ListConsumersRequest, caller: Caller) -> pb.ListConsumersResponse:
        """Answer a page of consumers, by name."""
        after = ""
        if request.page_token:
            (place,) = self._tokens.read(caller.account, request, request.page_token)
            after = str(place)
        size = page_size(request.page_size)
        found = await self._store.page(caller.account, after, size + 1)
        shown = fitting(messages.consumer(one) for one in found[:size])
        token = self._tokens.make(caller.account, request, [shown[-1].name]) if len(found) > len(shown) else ""
        return pb.ListConsumersResponse(consumers=shown, next_page_token=token)

    async def update_consumer(self, request: pb.UpdateConsumerRequest, caller: Caller) -> pb.UpdateConsumerResponse:
        """Change the settings that the mask names."""
        sent = request.consumer

        def change(old: Consumer) -> Consumer:
            return messages.changed(old, sent, request.update_mask.paths)

        updated = await self._store.update(caller.account, sent.name, change)
        return pb.UpdateConsumerResponse(consumer=messages.consumer(updated))

    async def seek_consumer(self, request: pb.SeekConsumerRequest, caller: Caller) -> pb.SeekConsumerResponse:
        """Move a consumer to another place."""
        position = await start_position(self._log, self._log_id, request) or 0
        await self._store.seek(caller.account, request.name, position)
        return pb.SeekConsumerResponse(position=position)

    async def delete_consumer(self, request: pb.DeleteConsumerRequest, caller: Caller) -> pb.DeleteConsumerResponse:
        """Delete a consumer and end its streams."""
        await self._store.delete(caller.account, request.name)
        return pb.DeleteConsumerResponse(name=request.name)

    async def list_parked(self, request: pb.ListParkedRequest, caller: Caller) -> pb.ListParkedResponse:
        """Answer a page of parked events, by position."""
        after = 0
        if request.page_token:
            (place,) = self._tokens.read(caller.account, request, request.page_token)
            after = int(place)
        size = page_size(request.page_size)
        found = await self._store.parked(caller.account, request.name, after, size + 1)
        shown = fitting(messages.parked(one) for one in found[:size])
        token = self._tokens.make(caller.account, request, [shown[-1].position]) if len(found) > len(shown) else ""
        return pb.ListParkedResponse(parked=shown, next_page_token=token)

    async def replay_parked(self, request: pb.ReplayParkedRequest, caller: Caller) -> pb.ReplayParkedResponse:
        """Hand out parked events anew."""
        count = await self._store.replay(caller.account, request.name, messages.choice(request))
        return pb.ReplayParkedResponse(replayed_count=count)

    async def purge_parked(self, request: pb.PurgeParkedRequest, caller: Caller) -> pb.PurgeParkedResponse:
        """Forget parked events."""
        count = await self._store.purge(caller.account, request.name, messages.choice(request))
        return pb.PurgeParkedResponse(purged_count=count)

    async def consume(self, receive: Receive, caller: Caller, send: Send) -> None:
        """Hand out events and take what became of them, until the client ends its side."""
        start = await _start(receive)
        stream = await self._store.open(caller.account, start.name, start.max_in_flight, caller.user)
        heartbeat = start.heartbeat_interval
        heartbeat_s = heartbeat.seconds + heartbeat.nanos / 1e9 if start.HasField("heartbeat_interval") else HEARTBEAT_S
        try:
            started = pb.ConsumeResponse.Started(
                log_id=self._log_id, consumer=messages.consumer(stream.consumer), floor=stream.floor
            )
            await send(pb.ConsumeResponse(started=started).SerializeToString())
            await _until_first(_settle(receive, stream), _hand_out(stream, send, heartbeat_s))
            done = pb.ConsumeResponse.Done(returned_count=await stream.finish())
            # A connection that is lost looks like the end of the client's side: this cannot be sent then.
            await send(pb.ConsumeResponse(done=done).SerializeToString())
            stream.close(broken=False)
        finally:
            stream.close(broken=True)


async def _start(receive: Receive) -> pb.ConsumeRequest.Start:
    """Read the first message: it names the consumer."""
    try:
        async with asyncio.timeout(START_S):
            first: pb.ConsumeRequest | None = await receive()
    except TimeoutError:
        raise TocsinError(Reason.DEADLINE_EXCEEDED, f"no start came within {START_S:g} s") from None
    if first is None or first.WhichOneof("message") != "start":
        raise invalid_field("start", "is required: the first message names the consumer")
    return first.start


async def _settle(receive: Receive, stream: ConsumerStream) -> None:
    """Take what a client says until it ends its side."""
    while (request := await receive()) is not None:
        kind = request.WhichOneof("message")
        if kind == "start":
            raise invalid_field("start", "came before: only the first message names the consumer")
        if kind == "ack":
            stream.ack(request.ack.lease_ids)
        elif kind == "nack":
            stream.nack(request.nack.lease_ids, Nack(request.nack.action or Nack.RETRY), request.nack.reason)


async def _hand_out(stream: ConsumerStream, send: Send, heartbeat_s: float) -> None:
    """Send events as they can be leased, and a heartbeat when there was nothing to say."""
    while True:
        handed = await stream.next(heartbeat_s)
        if handed:
            await _whole(send(messages.batch(handed)))
        else:
            heartbeat = pb.ConsumeResponse.Heartbeat(floor=stream.floor)
            await _whole(send(pb.ConsumeResponse(heartbeat=heartbeat).SerializeToString()))


async def _whole(sending: Awaitable[None]) -> None:
    """Let a message that is being sent be sent, also when the other side has ended: `done` follows it."""
    task = asyncio.ensure_future(sending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _until_first(first: Awaitable[None], other: Awaitable[None]) -> None:
    """Run both until the first one ends or either fails; raise what failed."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
