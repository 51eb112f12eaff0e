"""Events to append, made from flags or from lines of JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from tocsin.cli.times import NoTime, time_of
from tocsin.events import draft
from tocsin.ingesting import EVENT_BYTES_MAX
from tocsin.v1.event_log_pb2 import Event

# What a server adds: a listed event can be appended to another log as it was printed.
_ADDED = ("position", "account", "created_at")


class Unreadable(ValueError):
    """A line is no event; the message names the field."""


def event_of_line(line: bytes, default_id: str = "") -> Event:
    """Make an event of a line of JSON, as `-o json` prints it; `default_id` is for one without an id."""
    try:
        data = json.loads(line.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise Unreadable("details: nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"it is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Unreadable("it is not a JSON object")
    return event_of_data({"id": default_id, **data} if default_id else data)


def event_of_data(data: Mapping[str, Any]) -> Event:
    """Make an event of what `-o json` prints of one; what the server has added is passed over."""
    return event_of_fields({name: value for name, value in data.items() if name not in _ADDED})


def event_of_fields(fields: Mapping[str, Any]) -> Event:
    """Make an event of its fields; a time is text, a level a bare word or that of the contract."""
    given = dict(fields)
    event_type = given.pop("type", None)
    if not isinstance(event_type, str):
        raise Unreadable("type: is missing" if event_type is None else f"type: is a string, not {event_type!r}")
    if isinstance(level := given.get("level"), str):
        given["level"] = level.upper().removeprefix("LEVEL_")
    if isinstance(moment := given.get("timestamp"), str):
        try:
            given["timestamp"] = time_of(moment)
        except NoTime as error:
            raise Unreadable(f"timestamp: {moment!r} is {str(error) or 'no ISO 8601 time'}") from None
    try:
        event = draft(event_type, **given)
    except RecursionError:
        raise Unreadable("details: nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise Unreadable(str(error)) from None
    if event.ByteSize() > EVENT_BYTES_MAX:
        raise Unreadable(f"it has {event.ByteSize()} bytes encoded, at most {EVENT_BYTES_MAX} are allowed")
    return event


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
