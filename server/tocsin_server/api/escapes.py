"""How templates escape, on the wire: a word in the domain, empty where it is not said."""

from __future__ import annotations

from tocsin.v1 import notifications_pb2 as pb


def escape_of(sent: pb.Escape.ValueType) -> str:
    """Read an escape."""
    return pb.Escape.Name(sent).removeprefix("ESCAPE_") if sent else ""


def escape_message(escape: str) -> pb.Escape.ValueType:
    """Write an escape."""
    return pb.Escape.Value(f"ESCAPE_{escape or 'UNSPECIFIED'}")
