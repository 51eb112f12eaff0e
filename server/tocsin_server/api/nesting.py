"""Where an encoded request is nested too deeply to be decoded: the decoder itself stops and does not say where.

Walks the encoding beside the request's descriptor, without copying it, no deeper than the bound, and not for long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor

from tocsin_server.api.bounds import bound_of
from tocsin_server.domain.encoding import varint_at
from tocsin_server.domain.errors import Violation

FIELDS_MAX = 100_000  # looked at: some fifty milliseconds
DYNAMIC = ("google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue")
LENGTH_DELIMITED = 2
SKIPPED = {1: 8, 5: 4}  # bytes of values of a fixed size, by wire type
Span = tuple[int, int]


def too_deep(request_type: Descriptor, raw: bytes) -> list[Violation]:
    """Name the fields of a request whose data have more levels than they may; none of one that is broken otherwise."""
    found: list[Violation] = []
    try:
        found += _Walk(raw).found(request_type, (0, len(raw)), "")
    except (IndexError, ValueError):
        return []
    return found


class _Walk:
    """One walk through an encoded request."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._left = FIELDS_MAX

    def found(self, message: Descriptor, span: Span, path: str) -> Iterator[Violation]:
        counts: Counter[str] = Counter()
        for number, below in self._messages(span):
            field = message.fields_by_number.get(number)
            if field is None or field.message_type is None or field.message_type.GetOptions().map_entry:
                continue
            name = f"{path}{field.name}"
            if field.is_repeated:
                counts[field.name] += 1
                name += f"[{counts[field.name] - 1}]"
            if field.message_type.full_name not in DYNAMIC:
                yield from self.found(field.message_type, below, f"{name}.")
            elif self._is_deep(field.message_type, below, most := bound_of(field).max_depth):
                yield Violation(name, f"is nested more than {most} levels deep")

    def _is_deep(self, kind: Descriptor, span: Span, most: int) -> bool:
        """Tell whether plain data have more levels: of objects and lists, not of the messages that they are made of."""
        waiting = [(kind, span, 0)]
        while waiting:
            kind, span, levels = waiting.pop()
            levels += kind.full_name in DYNAMIC[1:]
            if levels > most:
                return True
            for number, below in self._messages(span):
                field = kind.fields_by_number.get(number)
                if field is not None and field.message_type is not None:
                    waiting.append((field.message_type, below, levels))
        return False

    def _messages(self, span: Span) -> Iterator[tuple[int, Span]]:
        """Give the fields of a message that have a length, with where they are."""
        at, end = span
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("there is more than is looked at")
            tag, at = varint_at(self._raw, at)
            kind = tag & 7
            if kind == LENGTH_DELIMITED:
                size, at = varint_at(self._raw, at)
                if at + size > end:
                    raise ValueError("a field is longer than its message")
                yield tag >> 3, (at, at + size)
                at += size
            elif kind == 0:
                _, at = varint_at(self._raw, at)
            elif kind in SKIPPED:
                at += SKIPPED[kind]
            else:
                raise ValueError("a group, which no request has")
