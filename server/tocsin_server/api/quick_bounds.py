"""A quick yes to the usual request: the bounds of a message type compiled into one Python function.

`within` says True only when every bound holds; at a False `bounds.py` looks closely and names the
fields. Both are made from the same options of the protos, and a test holds them equal. Without this a
batch of events would spend more time on its bounds than on the disk.

An event to append is not even looked at here: `event_drafts.py` reads it with a function of
`reading`, which checks a field's bound where it takes its value, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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

EVENT = "tocsin.v1.Event"
APPENDS = ("tocsin.v1.AppendEventRequest", "tocsin.v1.AppendEventsRequest", "tocsin.v1.IngestRequest")
KNOWN_MAX = 4096  # values of one field that are remembered as good
REENCODING_BYTES = 256  # map entries without a value grow by two bytes each, and there are at most 64
Within = Callable[[Message, int], bool]
Reading = Callable[[Any], tuple[Any, ...] | None]
Names = dict[str, Any]


@cache
def within(message: Descriptor) -> Within:
    """Compile the bounds of a message type into a function of (message, bytes of the request)."""
    names: Names = {"is_suspect": is_suspect}
    body: list[str] = []
    for field in message.fields:
        if message.full_name in APPENDS and field.message_type is not None and field.message_type.full_name == EVENT:
            body += _presence(field, bound_of(field))
        else:
            body += _field(field, bound_of(field), names)
    for oneof in message.oneofs:
        if oneof.GetOptions().Extensions[annotations_pb2.one_required]:
            body.append(f"if m.WhichOneof({oneof.name!r}) is None: return False")
    compiled: Within = _compiled("within(m, size)", [*body, "return True"], f"bounds of {message.full_name}", names)
    return compiled


@cache
def reading(message: Descriptor, wanted: Sequence[str]) -> Reading:
    """Compile a function that gives the wanted fields of a message, or None when something has to be looked at.

    It takes each field of the message, and of the messages in it, once. Not looked at are the size of the
    message, dynamic data and times: the caller has the encoded message for these. Required strings
    that were good before are remembered.
    """
    names: Names = {}
    body = list(_reading_lines(message, "m", "", frozenset(wanted), names))
    values = ", ".join(_local(path) for path in wanted)
    lines = [*body, f"return ({values},)"]
    compiled: Reading = _compiled("reading(m)", lines, f"reading of {message.full_name}", names)
    return compiled


def _compiled(signature: str, lines: Sequence[str], what: str, names: Names) -> Any:
    source = f"def {signature}:\n" + "".join(f"    {line}\n" for line in lines)
    exec(compile(source, f"<{what}>", "exec"), names)
    return names[signature.partition("(")[0]]


def _local(path: str) -> str:
    return "v_" + path.replace(".", "_")


def _reading_lines(message: Descriptor, m: str, prefix: str, wanted: frozenset[str], names: Names) -> Iterator[str]:
    for field in message.fields:
        path, bound = prefix + field.name, bound_of(field)
        local = _local(path)
        if bound.output_only:
            there = f"{m}.HasField({field.name!r})" if field.message_type else f"{m}.{field.name}"
            yield f"if {there}: return None"
        elif is_map(field):
            yield f"{local} = {m}.{field.name}"
            yield f"if {local}:"
            yield f"    {local} = {{k: {local}[k] for k in {local}}}"  # its views are written in Python
            yield f"    if len({local}) > {bound.max_items}: return None"
            yield f"    for k, x in {local}.items():"
            yield f"        if not 0 < len(k) <= {bound.key_max_len} or len(x) > {bound.value_max_len}: return None"
            yield "        if '\\0' in k or '\\0' in x: return None"
            yield f"else: {local} = None"
        elif field.message_type is not None and not field.message_type.full_name.startswith("google."):
            below = [f"{prefix}{field.name}.{f.name}" for f in field.message_type.fields]
            yield f"if {m}.HasField({field.name!r}):"
            yield f"    {local} = {m}.{field.name}"
            for line in _reading_lines(field.message_type, local, f"{path}.", wanted, names):
                yield f"    {line}"
            if any(one in wanted for one in below):
                yield f"else: {' = '.join(_local(one) for one in below)} = ''"
        elif field.message_type is None:
            yield f"{local} = {m}.{field.name}"
            yield from _scalar_lines(local, field, bound, names)


def _scalar_lines(local: str, field: FieldDescriptor, bound: annotations_pb2.Bound, names: Names) -> Iterator[str]:
    if field.type == FieldDescriptor.TYPE_STRING and bound.pattern:
        match = f"match_{local}"
        names[match] = re.compile(bound.pattern).fullmatch
        bad = f"len({local}) > {bound.max_len} or {match}({local}) is None"
        if bound.required:  # a few values come again and again
            names[known := f"known_{local}"] = set()
            yield f"if {local} not in {known}:"
            yield f"    if {bad}: return None"
            yield f"    if len({known}) < {KNOWN_MAX}: {known}.add({local})"
        else:
            yield f"if {local} and ({bad}): return None"
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield f"if {local} and (len({local}) > {bound.max_len} or '\\0' in {local}): return None"
    elif field.type == FieldDescriptor.TYPE_ENUM:
        assert field.enum_type is not None
        known = f"known_{local}"
        names[known] = frozenset(v.number for v in field.enum_type.values)
        yield f"if {local} not in {known}: return None"


def _presence(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Iterator[str]:
    """Give the lines that refuse an append without events, or with too many."""
    if field.is_repeated:
        yield f"if not 0 < len(m.{field.name}) <= {bound.max_items}: return False"
    elif bound.required:
        yield f"if not m.HasField({field.name!r}): return False"


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
    elif field.has_presence:  # zero is a value where it can be told from nothing
        yield f"x = m.{name}"
        yield f"if m.HasField({name!r}):"
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
