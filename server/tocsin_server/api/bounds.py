"""Checks requests against the bounds that the protos state (`tocsin.v1.bound`).

The checks of a message type are compiled once from its descriptor; a field of a request without a
bound does not start (a test walks all of them). Violations carry the field's path as a client writes
it: `events[3].labels["zone"]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from tocsin.v1 import annotations_pb2

from tocsin_server.domain.errors import Violation, invalid_fields

Report = Callable[[str, str], None]
Check = Callable[[Any, str, Report], None]

VIOLATIONS_MAX = 10_000  # a batch of 1000 bad events is reported whole, a hostile request is not
DYNAMIC = ("google.protobuf.Value", "google.protobuf.Struct")
TIMESTAMP = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"
FIELD_MASK = "google.protobuf.FieldMask"
DAY_MS = 24 * 3600 * 1000
TIMESTAMP_SECONDS_MAX = 253_402_300_800  # year 10000


_NO_KIND = re.compile(r"values? \{\s*\}")


class _Full(Exception):
    """Enough violations are found."""


def check(request: Message) -> None:
    """Refuse a request that is outside its bounds, naming every field that is."""
    violations = violations_of(request)
    if violations:
        raise invalid_fields(violations)


def violations_of(request: Message) -> list[Violation]:
    """Name every field of a request that is outside its bounds, and drop what only the server sets."""
    violations: list[Violation] = []

    def report(path: str, description: str) -> None:
        violations.append(Violation(path, description))
        if len(violations) >= VIOLATIONS_MAX:
            raise _Full

    try:
        for check_field in checks_of(request.DESCRIPTOR):
            check_field(request, "", report)
    except _Full:
        pass
    return violations


def bound_of(field: FieldDescriptor) -> annotations_pb2.Bound:
    """Give the bound that a field states; every field of a request states one."""
    options = field.GetOptions()
    if not options.HasExtension(annotations_pb2.bound):
        raise RuntimeError(f"{field.full_name} is part of a request and states no bound")
    bound: annotations_pb2.Bound = options.Extensions[annotations_pb2.bound]
    return bound


@cache
def checks_of(message: Descriptor) -> tuple[Check, ...]:
    """Compile the checks of a message type."""
    checks = [_field_check(field, bound_of(field)) for field in message.fields]
    for oneof in message.oneofs:
        if oneof.GetOptions().Extensions[annotations_pb2.one_required]:
            checks.append(_one_required(oneof.name, [field.name for field in oneof.fields]))
    return tuple(c for c in checks if c is not None)


def is_map(field: FieldDescriptor) -> bool:
    """Tell whether a field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _field_check(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Check | None:
    if bound.output_only:
        return _clear(field.name)
    if is_map(field):
        return _map_check(field, bound)
    single = _value_check(field, bound)
    if field.is_repeated:
        return _list_check(field, bound, single)
    if single is None:
        return None
    get, name = attrgetter(field.name), field.name
    if field.message_type is not None:
        return _message_check(name, get, bound.required, single)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _string_field_check(name, get, bound.required, single)
    if field.has_presence:
        return lambda message, path, report: (
            single(get(message), path + name, report) if message.HasField(name) else None
        )
    return lambda message, path, report: single(get(message), path + name, report)


def _clear(name: str) -> Check:
    # What only the server sets is dropped, so that an object that was read can be sent back.
    return lambda message, path, report: message.ClearField(name)


def _one_required(name: str, members: Sequence[str]) -> Check:
    def check_oneof(message: Message, path: str, report: Report) -> None:
        if message.WhichOneof(name) is None:
            report(path + name, f"set one of {', '.join(members)}")

    return check_oneof


def _string_field_check(name: str, get: Callable[[Any], str], required: bool, single: Check) -> Check:
    def check_string(message: Message, path: str, report: Report) -> None:
        text = get(message)
        if text:
            single(text, path + name, report)
        elif required:
            report(path + name, "is required")

    return check_string


def _message_check(name: str, get: Callable[[Any], Message], required: bool, single: Check) -> Check:
    def check_message(message: Message, path: str, report: Report) -> None:
        if message.HasField(name):
            single(get(message), path + name, report)
        elif required:
            report(path + name, "is required")

    return check_message


def _list_check(field: FieldDescriptor, bound: annotations_pb2.Bound, single: Check | None) -> Check:
    name, get, most, required = field.name, attrgetter(field.name), bound.max_items, bound.required
    if not most:
        raise RuntimeError(f"{field.full_name} is a list and states no max_items")

    def check_list(message: Message, path: str, report: Report) -> None:
        entries = get(message)
        if len(entries) > most:
            report(path + name, f"has {len(entries)} entries, at most {most} are allowed")
        elif not entries:
            if required:
                report(path + name, "is required")
        elif single is not None:
            for index, entry in enumerate(entries):
                single(entry, f"{path}{name}[{index}]", report)

    return check_list


def _map_check(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Check:
    name, get = field.name, attrgetter(field.name)
    most, keys, values = bound.max_items, bound.key_max_len, bound.value_max_len

    def check_map(message: Message, path: str, report: Report) -> None:
        entries = get(message)
        if not entries:
            return
        if len(entries) > most:
            report(path + name, f"has {len(entries)} entries, at most {most} are allowed")
            return
        for key, value in entries.items():
            if not 0 < len(key) <= keys or "\0" in key:
                report(f'{path}{name}["{key[:64]}"]', f"the key needs 1 to {keys} characters, none of them NUL")
            if len(value) > values or "\0" in value:
                report(f'{path}{name}["{key[:64]}"]', f"the value has more than {values} characters, or a NUL")

    return check_map


def _value_check(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Check | None:
    if field.message_type is not None:
        return _sub_message_check(field.message_type, bound)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _string_check(bound)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return _enum_check(field, in_list=field.is_repeated)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return None
    return _number_check(field, bound)


def _string_check(bound: annotations_pb2.Bound) -> Check:
    least, most = bound.min_len, bound.max_len
    pattern = re.compile(bound.pattern).fullmatch if bound.pattern else None
    if not most:
        raise RuntimeError("a string states no max_len")

    def check_text(text: str, path: str, report: Report) -> None:
        if len(text) > most:
            report(path, f"has {len(text)} characters, at most {most} are allowed")
        elif len(text) < least:
            report(path, f"needs at least {least} characters")
        elif "\0" in text:
            report(path, "contains a NUL character")
        elif pattern is not None and pattern(text) is None:
            wanted = f"is not {bound.expected}" if bound.expected else f"does not match {bound.pattern}"
            report(path, f"{text[:64]!r} {wanted}")

    return check_text


def _enum_check(field: FieldDescriptor, in_list: bool) -> Check:
    assert field.enum_type is not None
    known = frozenset(v.number for v in field.enum_type.values if v.number or not in_list)
    names = ", ".join(v.name for v in field.enum_type.values if v.number)

    def check_enum(number: int, path: str, report: Report) -> None:
        if number not in known:
            report(path, f"{number} is not one of {names}")

    return check_enum


def _number_check(field: FieldDescriptor, bound: annotations_pb2.Bound) -> Check:
    least = bound.min if bound.HasField("min") else None
    most = bound.max if bound.HasField("max") else None
    if least is None and most is None:
        raise RuntimeError(f"{field.full_name} is a number and states neither min nor max")

    def check_number(number: float, path: str, report: Report) -> None:
        if least is not None and number < least:
            report(path, f"{number} is less than {least}")
        elif most is not None and number > most:
            report(path, f"{number} is more than {most}")

    return check_number


def _sub_message_check(message: Descriptor, bound: annotations_pb2.Bound) -> Check:
    if message.full_name in DYNAMIC:
        return _dynamic_check(bound)
    if message.full_name == TIMESTAMP:
        return _timestamp_check
    if message.full_name == DURATION:
        return _duration_check(bound)
    if message.full_name == FIELD_MASK:
        return _mask_check(bound)
    most = bound.max_bytes

    def check_message(value: Message, path: str, report: Report) -> None:
        if most and value.ByteSize() > most:
            report(path, f"has {value.ByteSize()} bytes, at most {most} are allowed")
            return
        prefix = path + "."
        for check_field in checks_of(message):
            check_field(value, prefix, report)

    return check_message


def _mask_check(bound: annotations_pb2.Bound) -> Check:
    def check_mask(value: Any, path: str, report: Report) -> None:
        if len(value.paths) > bound.max_items:
            report(path, f"has {len(value.paths)} paths, at most {bound.max_items} are allowed")

    return check_mask


def _timestamp_check(value: Any, path: str, report: Report) -> None:
    if not 0 <= value.seconds < TIMESTAMP_SECONDS_MAX:
        report(path, "is outside 1970-01-01 to 9999-12-31")
    elif not 0 <= value.nanos < 1_000_000_000:
        report(path, "nanos are outside 0 to 999999999")


def _duration_check(bound: annotations_pb2.Bound) -> Check:
    def check_duration(value: Any, path: str, report: Report) -> None:
        millis = value.seconds * 1000 + value.nanos / 1_000_000
        if not bound.min <= millis <= bound.max:
            report(path, f"is outside {_length(bound.min)} to {_length(bound.max)}")

    return check_duration


def _length(millis: int) -> str:
    """Write the bound of a duration for people: in days where it is whole days."""
    if millis and millis % DAY_MS == 0:
        return f"{millis // DAY_MS} days"
    return f"{millis // 1000} s" if millis % 1000 == 0 else f"{millis} ms"


def _dynamic_check(bound: annotations_pb2.Bound) -> Check:
    def check_dynamic(value: Message, path: str, report: Report) -> None:
        if bound.max_bytes and value.ByteSize() > bound.max_bytes:
            report(path, f"has {value.ByteSize()} bytes, at most {bound.max_bytes} are allowed")
        elif is_suspect(value, bound.max_depth):
            walk(value, path, bound.max_depth, report)

    return check_dynamic


def is_suspect(value: Message, depth_max: int) -> bool:
    """Tell from its text form, which the library writes fast, whether dynamic data has to be walked.

    Never misses: there a NUL is `\\000`, a number that is not finite is a word, each level has its name, and a
    value of no kind is a name without content. Text that happens to look so is walked in vain.
    """
    text = str(value)
    if _NO_KIND.search(text) is not None or (not text and isinstance(value, Value)):
        return True
    if "\\000" in text or "_value: nan" in text or "_value: inf" in text or "_value: -inf" in text:
        return True
    return text.count("struct_value {") + text.count("list_value {") >= depth_max - 1


def walk(value: Message, path: str, depth_left: int, report: Report) -> None:
    """Find what cannot be stored in dynamic data, naming it by its path."""
    if depth_left <= 0:
        report(path, "is nested too deeply")
    elif isinstance(value, Struct):
        for key, below in value.fields.items():
            if "\0" in key:
                report(f"{path}.{key!r}", "the key contains a NUL character")
            walk(below, f"{path}.{key}", depth_left - 1, report)
    elif isinstance(value, ListValue):
        for index, below in enumerate(value.values):
            walk(below, f"{path}[{index}]", depth_left - 1, report)
    elif isinstance(value, Value):
        _walk_value(value, path, depth_left, report)


def _walk_value(value: Value, path: str, depth_left: int, report: Report) -> None:
    kind = value.WhichOneof("kind")
    if kind is None:
        value.null_value = NULL_VALUE  # many clients cannot show a value of no kind
    elif kind == "struct_value":
        walk(value.struct_value, path, depth_left, report)
    elif kind == "list_value":
        walk(value.list_value, path, depth_left, report)
    elif kind == "string_value" and "\0" in value.string_value:
        report(path, "contains a NUL character")
    elif kind == "number_value" and not -1.8e308 < value.number_value < 1.8e308:
        report(path, "is not a finite number")
