"""Appending: one event, or a batch. Streams of batches are in `ingest.py`."""

from __future__ import annotations

from collections.abc import Sequence

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.event_drafts import Drafts
from tocsin_server.api.payload_checks import warnings_of
from tocsin_server.api.server import Service
from tocsin_server.domain.encoding import varint, wire_bytes, wire_text
from tocsin_server.domain.errors import Reason, TocsinError, invalid_field, invalid_fields
from tocsin_server.domain.event_log import BATCH_BYTES_MAX, Append, Appended
from tocsin_server.domain.ports import EventLogStore

# AppendResult, and the field of the answers that has them.
RESULT_ID_TAG = b"\x0a"
RESULT_POSITION_TAG = b"\x10"
RESULT_DELETED = b"\x18\x01"
RESULT_REDACTED_TAG = b"\x22"
RESULTS_TAG = b"\x0a"  # AppendEventsResponse.results


class AppendService(Service):
    """The calls of EventLog that store events and answer once."""

    descriptor = pb.DESCRIPTOR.services_by_name["EventLog"]

    def __init__(self, log: EventLogStore, drafts: Drafts, log_id: str) -> None:
        self._log = log
        self._drafts = drafts
        self._log_id = log_id
        # What every answer ends with.
        self._event_end = pb.AppendEventResponse(log_id=log_id).SerializeToString()
        self._events_end = pb.AppendEventsResponse(log_id=log_id).SerializeToString()

    async def append_event(self, request: pb.AppendEventRequest, caller: Caller) -> pb.AppendEventResponse | bytes:
        """Append one event and answer it as it is stored."""
        append = self._drafts.append(caller, request)
        (appended,) = await self._log.append(append)
        paths = append.redacted.get(0, ())
        if appended.deleted:
            gone = pb.Event(id=appended.id, position=appended.position)
            return pb.AppendEventResponse(event=gone, log_id=self._log_id, deleted=True, redacted_paths=paths)
        frame = appended.frame or await self._log.get_at(appended.position)
        if paths or append.warned:
            warnings = warnings_of(append.warned.get(0, ()))
            told = pb.AppendEventResponse(redacted_paths=paths, warnings=warnings)
            return frame + self._event_end + told.SerializeToString()
        return frame + self._event_end

    async def append_events(self, request: pb.AppendEventsRequest, caller: Caller) -> bytes:
        """Append a batch, all or none, and answer where each event is."""
        self._log.refuse(refuse_large(request))
        append = await drafted(self._log, self._drafts, caller, request)
        return encoded_results(await self._log.append(append), append, RESULTS_TAG) + self._events_end


async def drafted(
    log: EventLogStore, drafts: Drafts, caller: Caller, request: pb.AppendEventsRequest | pb.IngestRequest
) -> Append:
    """Make an append of a batch; one with bad events is refused with all of them, those with a reused id too."""
    try:
        return drafts.append(caller, request)
    except TocsinError as error:
        if error.reason is not Reason.INVALID_FIELD:
            raise
        reused = await log.reused(caller.account, drafts.identities(request))
        raise invalid_fields([*error.violations, *reused]) from None


def refuse_large(request: pb.AppendEventsRequest | pb.IngestRequest) -> int:
    """Refuse a batch that is larger than one message should be; give its size."""
    size = request.ByteSize()
    if size > BATCH_BYTES_MAX:
        raise invalid_field("events", f"have {size} bytes, at most {BATCH_BYTES_MAX} are allowed")
    return size


def encoded_results(appended: Sequence[Appended], append: Append, tag: bytes) -> bytes:
    """Encode a field of type `repeated AppendResult` with the given tag."""
    parts: list[bytes] = []
    redacted, warned = append.redacted, append.warned
    for index, (event_id, position, deleted, _) in enumerate(appended):
        result = wire_text(RESULT_ID_TAG, event_id) + RESULT_POSITION_TAG + varint(position)
        if deleted:
            result += RESULT_DELETED
        for path in redacted.get(index, ()) if redacted else ():
            result += wire_text(RESULT_REDACTED_TAG, path)
        if warned:
            result += pb.AppendResult(warnings=warnings_of(warned.get(index, ()))).SerializeToString()
        parts.append(wire_bytes(tag, result))
    return b"".join(parts)
