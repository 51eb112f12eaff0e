"""Replaces the secrets in an event that is to be stored, and tells where they were.

What names a secret is decided in `domain/redaction.py`. An event in whose encoding no key names one and no URL
has a user is not decoded for it.
"""

from __future__ import annotations

from google.protobuf.struct_pb2 import ListValue, Struct, Value
from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.details_look import DetailsLook
from tocsin_server.domain.redaction import MASK, SecretKeys, without_user


class EventRedaction:
    """Redacts events by the names of keys."""

    def __init__(self, keys: SecretKeys) -> None:
        self._keys = keys
        self.look = DetailsLook(keys).look

    def redact(self, event: pb.Event) -> list[str]:
        """Replace the secrets in an event, in place, and give their paths."""
        paths: list[str] = []
        message = without_user(event.message)
        if message != event.message:
            event.message = message
            paths.append("message")
        if event.HasField("details"):
            self._value(event.details, "details", paths)
        return paths

    def _value(self, value: Value, path: str, paths: list[str]) -> None:
        kind = value.WhichOneof("kind")
        if kind == "string_value":
            text = without_user(value.string_value)
            if text != value.string_value:
                value.string_value = text
                paths.append(path)
        elif kind == "struct_value":
            self._struct(value.struct_value, path, paths)
        elif kind == "list_value":
            self._list(value.list_value, path, paths)

    def _struct(self, struct: Struct, path: str, paths: list[str]) -> None:
        for key in struct.fields:
            value = struct.fields[key]
            if not self._keys.names(key):
                self._value(value, f"{path}.{key}", paths)
            elif not _is_blank(value):
                value.string_value = MASK
                paths.append(f"{path}.{key}")

    def _list(self, values: ListValue, path: str, paths: list[str]) -> None:
        for index, value in enumerate(values.values):
            self._value(value, f"{path}[{index}]", paths)


def _is_blank(value: Value) -> bool:
    """Tell whether there is nothing to hide."""
    kind = value.WhichOneof("kind")
    return kind in (None, "null_value") or (kind == "string_value" and value.string_value in ("", MASK))
