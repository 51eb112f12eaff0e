"""Where in the log a reader begins: the `start` of subscriptions and consumers."""

from __future__ import annotations

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.event_filters import micros
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.ports import EventLogStore

Starting = pb.SubscribeRequest | pb.CreateConsumerRequest | pb.SeekConsumerRequest


async def start_position(log: EventLogStore, log_id: str, request: Starting, oldest: int = 1) -> int | None:
    """Find the position after which events are told, None for the beginning; `oldest` can still be read."""
    kind = request.WhichOneof("start")
    if kind == "beginning":
        return None
    if kind == "start_time":
        return max(await log.position_before(micros(request.start_time)), oldest - 1)
    if kind is None:
        return log.head
    if request.after.log_id and request.after.log_id != log_id:
        raise TocsinError(
            Reason.LOG_CHANGED,
            "the position belongs to another log (the store was restored): start anew",
            metadata={"log_id": log_id},
        )
    if request.after.position > log.head:
        raise TocsinError(
            Reason.POSITION_AHEAD,
            f"position {request.after.position} is ahead of the head {log.head}",
            metadata={"head": str(log.head)},
        )
    return request.after.position
