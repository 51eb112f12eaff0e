"""Requests about silences, made from plain Python."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from tocsin import arguments
from tocsin.v1.event_log_pb2 import EventFilter
from tocsin.v1.notifications_pb2 import (
    CreateSilenceRequest,
    ListSilencesRequest,
    Silence,
    SilenceState,
    UpdateSilenceRequest,
)


def create_request(
    wanted: EventFilter | None,
    comment: str,
    start: datetime | None,
    end: datetime | None,
    duration: timedelta | None,
    author: str,
    request_id: str,
) -> CreateSilenceRequest:
    """Ask for a silence. Raises TypeError unless it has either an end or a duration."""
    if (end is None) is (duration is None):
        raise TypeError("give an end or a duration")
    silence = Silence(comment=arguments.text("comment", comment), author=arguments.text("author", author))
    if wanted is not None:
        silence.filter.CopyFrom(wanted)
    _bound(silence, start, end)
    request = CreateSilenceRequest(silence=silence, request_id=request_id)
    if duration is not None:
        request.duration.FromTimedelta(duration)
    return request


def update_request(
    id: str,
    wanted: EventFilter | None,
    comment: str | None,
    start: datetime | None,
    end: datetime | None,
    author: str | None,
) -> UpdateSilenceRequest:
    """Ask for a change of what is given. Raises TypeError when nothing is."""
    given = {"filter": wanted, "comment": comment, "start_time": start, "end_time": end, "author": author}
    paths = [name for name, value in given.items() if value is not None]
    if not paths:
        raise TypeError("give what is to change: a filter, comment, start, end or author")
    request = UpdateSilenceRequest(silence=Silence(id=id, comment=comment or "", author=author or ""))
    if wanted is not None:
        request.silence.filter.CopyFrom(wanted)
    _bound(request.silence, start, end)
    request.update_mask.paths.extend(paths)
    return request


def list_request(states: Iterable[str]) -> ListSilencesRequest:
    """Ask for silences; states are "pending", "active" or "ended". Raises ValueError for others."""
    words = arguments.strings("states", states)
    return ListSilencesRequest(states=[arguments.member("each of states", SilenceState, word) for word in words])


def _bound(silence: Silence, start: datetime | None, end: datetime | None) -> None:
    if start is not None:
        silence.start_time.CopyFrom(arguments.moment("start", start))
    if end is not None:
        silence.end_time.CopyFrom(arguments.moment("end", end))
