"""Secrets never leave: what the protos mark `debug_redact` is masked in every answer."""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from tocsin_server.domain.notifications import masked


@cache
def secret_fields(message: Descriptor) -> tuple[str, ...]:
    """Give the names of a message's secret fields."""
    return tuple(field.name for field in message.fields if field.GetOptions().debug_redact)


def mask(message: Message) -> None:
    """Mask the secret fields of a message and of all below it, in place."""
    for name in secret_fields(message.DESCRIPTOR):
        setattr(message, name, masked(getattr(message, name)))
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for below in value if field.is_repeated else (value,):
            mask(below)
