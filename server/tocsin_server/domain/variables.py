"""What templates can use: plain JSON, copied once, with nothing in it that could be called.

Also how a value is written where text is wanted. Nothing here knows what the values mean.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

from tocsin_server.domain.event_log import Event

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

JSON_DEPTH_MAX = 64  # keeps the encoder of JSON far from the end of the stack
PATH_PARTS_MAX = 16  # of a key with dots that is made reachable

_EXPONENT = re.compile(r"e([+-])0+(?=\d)")


def text_of(value: Json) -> str:
    """Write a value as JSON would: 80 and not 80.0, true, objects as JSON text; nothing for null."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return _EXPONENT.sub(r"e\1", str(_number(value)))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def plain(value: object, depth: int = JSON_DEPTH_MAX) -> Json:
    """Copy plain JSON, with whole numbers as integers; TypeError or ValueError for anything else."""
    if depth == 0:
        raise ValueError(f"more than {JSON_DEPTH_MAX} levels of JSON")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("not a finite number")
        return _number(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, depth - 1) for entry in value]
    raise TypeError(f"{type(value).__name__} is not JSON")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError("the keys of an object are strings")
    return key


def _expanded(value: Json) -> Json:
    """Make keys with dots reachable: `{"a.b": 1}` becomes `{"a": {"b": 1}}`. What is there wins."""
    if isinstance(value, Mapping):
        nested: dict[str, Any] = {k: _expanded(v) for k, v in value.items() if not _is_path(k)}
        for key, entry in value.items():
            if _is_path(key):
                _place(nested, key.split("."), _expanded(entry))
        return nested
    if isinstance(value, list):
        return [_expanded(entry) for entry in value]
    return value


def _is_path(key: str) -> bool:
    return 0 < key.count(".") < PATH_PARTS_MAX and all(key.split("."))


def _place(target: dict[str, Any], path: list[str], entry: Json) -> None:
    for part in path[:-1]:
        below = target.setdefault(part, {})
        if not isinstance(below, dict):
            return
        target = below
    target.setdefault(path[-1], entry)


def time_text(time: int) -> str:
    """Write microseconds since 1970 UTC as RFC 3339, always with six digits."""
    seconds, micros = divmod(time, 1_000_000)
    return f"{_second_text(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=1024)
def _second_text(seconds: int) -> str:
    """Write a second without its zone: the times of events that come together share it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


def event_data(event: Event) -> dict[str, object]:
    """Give the whole event as plain JSON data; enum words bare, times as ISO 8601 UTC."""
    return {
        "id": event.id,
        "position": event.position,
        "account": event.account,
        "type": event.type,
        "subtype": event.subtype,
        "level": event.level.name,
        "message": event.message,
        "category": event.category,
        "details": event.details,
        "resource": dict(event.resource),
        "source": dict(event.source),
        "labels": dict(event.labels),
        "timestamp": time_text(event.timestamp),
        "created_at": time_text(event.created_at),
        "correlation_id": event.correlation_id,
        "traceparent": event.traceparent,
    }


class Variables:
    """What templates can use: a copy of plain JSON, made once and rendered many times."""

    __slots__ = ("values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = _expanded(plain(values))
