"""A quick yes to the usual request: the bounds of a message type compiled into one Python function.

`within` says True only when every bound holds; at a False `bounds.py` looks closely and names the
fields. Both are made from the same options of the protos, and a test holds them equal. Without this a
batch of events would spend more time on its bounds than on the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from tocsin.v1 import annotations_pb2

from tocsin_server.api.bounds import (
    DYNAMIC,
    TIMESTAMP,
    TIMESTAMP_SECONDS_MAX,
    bound_of,
    is_map,
    is_suspect,
)

REENCODING_BYTES = 256  # map entries without a value grow by two bytes each, and there are at most 64
Within = Callable[[Message, int], bool]
Names = dict[str, Any]


@cache
def within(message: Descriptor) -> Within:
    """Compile the bounds of a message type into a function of (message, bytes of the request)."""
    names: Names = {"is_suspect": is_suspect}
    body: list[str] = []
    for field in message.fields:
        body += _field(field, bound_of(field), names)
    for oneof in message.oneofs:
        if oneof.GetOptions().Extensions[annotations_pb2.one_required]:
            body.append(f"if m.WhichOneof({oneof.name!r}) is None: return False")
    source = "def within(m, size):\n" + "".join(f"    {line}\n" for line in [*body, "return True"])
    exec(compile(source, f"<bounds of {message.full_name}>", "exec"), names)
    compiled: Within = names["within"]
    return compiled


def _field(field: FieldDescriptor, bound: annotations_pb2.Bound, names: Names) -> Iterator[str]:
    name = field.name
    if bound.output_only:
        # Set by a client: the close look drops it.
        there = f"m.HasField({name!r})" if field.message_type and not field.is_repeated else f"m.{name}"
        yield f"if {there}: return False"
    elif is_map(field):
        yield f"v = m.{name}"
        yield f"if v and len(v) > {bound.max_items}: return False"
        yield "for k in v:"
        yield "    x = v[k]"
        yield f"    if not 0 < len(k) <= {bound.key_max_len} or len(x) > {bound.value_max_len}: return False"
        yield "    if '\\0' in k or '\\0' in x: return False"
    elif field.is_repeated:
        yield f"v = m.{name}"
        yield "if v:"
        yield f"    if len(v) > {bound.max_items}: return False"
        yield "    for x in v:"
        yield from (f"        {line}" for line in _value("x", field, bound, names))
        if bound.required:
            yield "else: return False"
    else:
        yield from _single(field, bound, names)


def _single(field: FieldDescriptor, bound: annotations_pb2.Bound, names: Names) -> Iterator[str]:
    name = field.name
    if field.message_type is not None:
        yield f"if m.HasField({name!r}):"
        yield f"    x = m.{name}"
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield f"x = m.{name}"
        yield "if x:"
    else:
        yield f"x = m.{name}"
        yield "if x:" if not bound.required else "if True:"
    yield from (f"    {line}" for line in _value("x", field, bound, names))
    if bound.required:
        yield "else: return False"


def _value(x: str, field: FieldDescriptor, bound: annotations_pb2.Bound, names: Names) -> Iterator[str]:
    """Give the lines that refuse one value; `pass` where any value will do."""
    if field.message_type is not None:
        yield from _message(x, field.message_type, bound, names)
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield f"if not {bound.min_len} <= len({x}) <= {bound.max_len} or '\\0' in {x}: return False"
        if bound.pattern:
            match = f"match_{field.name}"
            names[match] = re.compile(bound.pattern).fullmatch
            yield f"if {match}({x}) is None: return False"
    elif field.type == FieldDescriptor.TYPE_ENUM:
        assert field.enum_type is not None
        known = f"known_{field.name}"
        names[known] = frozenset(v.number for v in field.enum_type.values if v.number or not field.is_repeated)
        yield f"if {x} not in {known}: return False"
    elif field.type == FieldDescriptor.TYPE_BOOL:
        yield "pass"
    else:
        if bound.HasField("min"):
            yield f"if {x} < {bound.min}: return False"
        if bound.HasField("max"):
            yield f"if {x} > {bound.max}: return False"


def _message(x: str, message: Descriptor, bound: annotations_pb2.Bound, names: Names) -> Iterator[str]:
    if bound.max_bytes:
        # No part of a request is larger than the whole, but for what encoding it anew can add.
        yield f"if size + {REENCODING_BYTES} > {bound.max_bytes} and {x}.ByteSize() > {bound.max_bytes}: return False"
    if message.full_name in DYNAMIC:
        yield f"if is_suspect({x}, {bound.max_depth}): return False"
    elif message.full_name == TIMESTAMP:
        yield f"if not 0 <= {x}.seconds < {TIMESTAMP_SECONDS_MAX} or not 0 <= {x}.nanos < 1000000000: return False"
    elif message.full_name.startswith("google.protobuf."):
        yield "return False"  # durations and masks are rare: look closely
    else:
        below = f"within_{message.name}"
        names[below] = within(message)
        yield f"if not {below}({x}, size): return False"
