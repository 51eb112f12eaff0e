"""Silences on the wire."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from tocsin.v1 import notifications_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.event_filters import event_filter, filter_message, micros, refuse_times
from tocsin_server.api.paging import PageTokens, fitting, page_size
from tocsin_server.api.server import Service
from tocsin_server.api.timestamps import timestamp
from tocsin_server.domain.errors import Violation, invalid_field, invalid_fields
from tocsin_server.domain.ports import Runtime
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.silence_ports import SilenceStore
from tocsin_server.domain.silences import SILENCE_LENGTH_MAX_US, Silence, SilenceState

MUTABLE = ("filter", "start_time", "end_time", "author", "comment")


class SilenceService(Service):
    """The calls of Notifications about silences."""

    descriptor = pb.DESCRIPTOR.services_by_name["Notifications"]

    def __init__(self, store: SilenceStore, tokens: PageTokens, digest_key: bytes, runtime: Runtime) -> None:
        self._store = store
        self._tokens = tokens
        self._digest_key = digest_key
        self._now = runtime.now

    async def create_silence(self, request: pb.CreateSilenceRequest, caller: Caller) -> pb.CreateSilenceResponse:
        """Create a silence; the same request id again answers the first."""
        as_sent = request.SerializeToString(deterministic=True)
        digest = hashlib.blake2b(as_sent, key=self._digest_key, digest_size=16).digest()
        wanted = draft(request, caller, self._now())
        end = "duration" if request.HasField("duration") else "silence.end_time"
        created = await self._store.create(wanted, lambda now: _judge(wanted, now, end), request.request_id, digest)
        return pb.CreateSilenceResponse(silence=self._message(created))

    async def get_silence(self, request: pb.GetSilenceRequest, caller: Caller) -> pb.GetSilenceResponse:
        """Answer one silence."""
        return pb.GetSilenceResponse(silence=self._message(await self._store.get(caller.account, request.id)))

    async def list_silences(self, request: pb.ListSilencesRequest, caller: Caller) -> pb.ListSilencesResponse:
        """Answer a page of silences, the latest start first."""
        after = None
        if request.page_token:
            starts_at, silence_id = self._tokens.read(caller.account, request, request.page_token)
            after = (int(starts_at), str(silence_id))
        states = [SilenceState(pb.SilenceState.Name(s).removeprefix("SILENCE_STATE_")) for s in request.states]
        size = page_size(request.page_size)
        found = await self._store.page(caller.account, states, self._now(), after, size + 1)
        shown = fitting(self._message(silence) for silence in found[:size])
        token = ""
        if len(found) > len(shown):
            last = found[len(shown) - 1]
            token = self._tokens.make(caller.account, request, [last.starts_at, last.id])
        return pb.ListSilencesResponse(silences=shown, next_page_token=token)

    async def update_silence(self, request: pb.UpdateSilenceRequest, caller: Caller) -> pb.UpdateSilenceResponse:
        """Change the fields that the mask names."""
        sent, now = request.silence, self._now()
        if not sent.id:
            raise invalid_field("silence.id", "is required")
        updated = await self._store.update(
            caller.account, sent.id, lambda old: changed(old, sent, list(request.update_mask.paths), caller, now)
        )
        return pb.UpdateSilenceResponse(silence=self._message(updated))

    async def delete_silence(self, request: pb.DeleteSilenceRequest, caller: Caller) -> pb.DeleteSilenceResponse:
        """End a silence and delete it."""
        await self._store.delete(caller.account, request.id)
        return pb.DeleteSilenceResponse(id=request.id)

    def _message(self, silence: Silence) -> pb.Silence:
        return pb.Silence(
            id=silence.id,
            account=silence.account,
            filter=filter_message(silence.filter),
            start_time=timestamp(silence.starts_at),
            end_time=timestamp(silence.ends_at),
            author=silence.author,
            comment=silence.comment,
            state=pb.SilenceState.Value(f"SILENCE_STATE_{silence.state(self._now())}"),
            create_time=timestamp(silence.created_at),
            update_time=timestamp(silence.updated_at),
        )


def draft(request: pb.CreateSilenceRequest, caller: Caller, now: int) -> Silence:
    """Make a whole silence of what a client sent; its times are yet to be judged."""
    sent, lasts = request.silence, request.HasField("duration")
    if sent.id:
        raise invalid_field("silence.id", "is made by the server: leave it empty")
    missing = [
        Violation(f"silence.{name}", "is required")
        for name, there in (
            ("filter", sent.HasField("filter")),
            ("end_time", lasts or sent.HasField("end_time")),
            ("comment", sent.comment),
        )
        if not there
    ]
    if missing:
        raise invalid_fields(missing)
    if lasts and sent.HasField("end_time"):
        raise invalid_field("duration", "cannot be joined with silence.end_time: leave one of them out")
    starts_at = micros(sent.start_time) if sent.HasField("start_time") else 0
    return Silence(
        account=caller.account,
        id="",
        filter=_filter(sent, caller),
        starts_at=starts_at,
        ends_at=(starts_at or now) + request.duration.ToMicroseconds() if lasts else micros(sent.end_time),
        author=sent.author or caller.user,
        comment=sent.comment,
    )


def changed(old: Silence, sent: pb.Silence, paths: list[str], caller: Caller, now: int) -> Silence:
    """Give a silence after an update of the fields that the mask names; none names those that are set."""
    unknown = set(paths) - set(MUTABLE)
    if unknown:
        text = f"{', '.join(sorted(unknown))} cannot be changed; these can: {', '.join(MUTABLE)}"
        raise invalid_field("update_mask", text)
    wanted = set(paths) or {field.name for field, _ in sent.ListFields()} & set(MUTABLE)
    empty = [name for name in wanted if not _is_set(sent, name)]
    if empty:
        raise invalid_fields([Violation(f"silence.{name}", "is required") for name in sorted(empty)])
    changes: dict[str, Any] = {name: getattr(sent, name) for name in ("author", "comment") if name in wanted}
    if "filter" in wanted:
        changes["filter"] = _filter(sent, caller)
    if "end_time" in wanted:
        changes["ends_at"] = micros(sent.end_time)
    if "start_time" in wanted:
        changes["starts_at"] = micros(sent.start_time)
        if old.state(now) is not SilenceState.PENDING and changes["starts_at"] != old.starts_at:
            raise invalid_field("silence.start_time", "cannot change: the silence has started")
    new = replace(old, **changes)
    _judge(new, now, "silence.end_time", "; to end a silence at once, delete it")
    return new


def _is_set(sent: pb.Silence, name: str) -> bool:
    return bool(getattr(sent, name)) if name in ("author", "comment") else sent.HasField(name)  # type: ignore[arg-type]


def _filter(sent: pb.Silence, caller: Caller) -> EventFilter:
    refuse_times(sent.filter, "silence.filter")
    wanted = event_filter(sent.filter, caller, "silence.filter")
    if replace(wanted, account="") == EventFilter(""):
        raise invalid_field("silence.filter", "needs at least one criterion: to hold everything, switch endpoints off")
    return wanted


def _judge(silence: Silence, now: int, end: str, advice: str = "") -> None:
    """Refuse times that make no sense; `end` is the field that says when the silence ends."""
    start = silence.starts_at or now
    if silence.ends_at <= now:
        raise invalid_field(end, f"has passed{advice}" if end == "silence.end_time" else "puts the end into the past")
    if silence.ends_at <= start:
        raise invalid_field(end, "is not after the start")
    if silence.ends_at - start > SILENCE_LENGTH_MAX_US:
        raise invalid_field(end, "is more than 366 days after the start")
