"""CEL: the environment of `where`, and how a condition is compiled and asked.

What a condition sees of an event is described here, apart from the generated code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cel_expr_python import cel
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tocsin_server.domain import where_cost
from tocsin_server.domain.encoding import wire_text
from tocsin_server.domain.event_log import Level
from tocsin_server.domain.where import WHERE_LENGTH_MAX, WhereError

TEXT, NUMBER = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_INT64
VALUE, TIMESTAMP = ".google.protobuf.Value", ".google.protobuf.Timestamp"
# The fields of tocsin.v1.Event, numbered as there (a test holds them equal); only the level is told as
# a word, under a number of its own.
LEVEL_NUMBER = 1000
PARTS: dict[str, dict[str, int]] = {
    "Resource": {"type": 1, "id": 2, "user_id": 3},
    "Source": {"service": 1, "host": 2, "base_url": 3, "request_id": 4},
}
TEXTS = {
    "id": 1, "account": 3, "type": 4, "subtype": 5, "message": 7, "category": 8, "correlation_id": 15,
    "traceparent": 16, "level": LEVEL_NUMBER,
}  # fmt: skip
MESSAGES = {
    "details": (9, VALUE), "resource": (10, ".tocsin.Resource"), "source": (11, ".tocsin.Source"),
    "timestamp": (13, TIMESTAMP), "created_at": (14, TIMESTAMP),
}  # fmt: skip
POSITION, LABELS = 2, 12
# Field 1 of a frame once more, with nothing but the word: both become one event when they are decoded.
LEVEL_TAG = b"\xc2\x3e"
LEVEL_WORDS = {Level.INFO: "info", Level.ERROR: "error"}
LEVEL_FRAMES = {
    int(level): b"\x0a" + bytes([len(field)]) + field
    for level, field in ((level, wire_text(LEVEL_TAG, word)) for level, word in LEVEL_WORDS.items())
}
_PLACE = re.compile(r"<input>:(\d+):(\d+): (.+)")
_COMPLAINTS = tuple(
    (re.compile(theirs, re.DOTALL), ours)
    for theirs, ours in (
        (r"Syntax error: (?:mismatched|extraneous) input ('.*') expecting .*", r"unexpected \1"),
        (r"Syntax error: no viable alternative at input ('.*')", r"unexpected \1"),
        (r"Syntax error: missing ('.+') at ('.*')", r"\1 is missing before \2"),
        (r"Syntax error: token recognition error at: '[\"'].*", r"the text that begins here has no end"),
        (r"Syntax error: token recognition error at: '= '", r"unexpected '=': equality is =="),
        (r"Syntax error: token recognition error at: ('.+?)\s*'?", r"unexpected \1'"),
        (r"Syntax error: token recognition error.*", r"unexpected character"),
        (r"Syntax error: (.*)", r"\1"),
        (r"(undeclared reference to '.*') \(in container ''\)", r"\1"),
        (r"(undefined field '.*') not found in struct 'tocsin\.(\w+)'", r"\1: \2 has none of that name"),
        (r"found no matching overload for '_?([^_']+|\w+?)_?' applied to '(.*)'", r"'\1' is not there for \2"),
        (r"found no matching overload for '(.*)' applied to '(.*)'", r"'\1' is not there for \2"),
    )
)
_STATUS = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")


class Where:
    """A compiled expression."""

    __slots__ = ("_expression",)

    def __init__(self, expression: cel.Expression) -> None:
        self._expression = expression

    def matches(self, frame: bytes, level: int) -> bool:
        """Tell whether a stored event meets the condition; one that it cannot be asked about does not."""
        try:
            event = _FRAME.FromString(frame + LEVEL_FRAMES.get(level, b"")).event  # type: ignore[attr-defined]
            return self._expression.eval(data={"event": event}).value() is True
        except (RuntimeError, DecodeError):
            return False  # the budget of iterations is spent


def condition(environment: cel.Env, text: str, about: str) -> cel.Expression:
    """Compile a condition about something; WhereError says what is wrong with it."""
    if len(text) > WHERE_LENGTH_MAX:
        raise WhereError(f"has {len(text)} characters, at most {WHERE_LENGTH_MAX} are allowed")
    try:
        expression = environment.compile(text)
    except RuntimeError as error:
        raise WhereError(_explained(str(error))) from None
    kind = expression.return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):
        raise WhereError(f"is true or false for {about}, and this gives {kind.name().lower()}")
    try:
        where_cost.check(expression.serialize())
    except where_cost.CostError as error:
        raise WhereError(str(error)) from None
    return expression


def _explained(text: str) -> str:
    """Say the library's first complaint in one line with its place."""
    found = _PLACE.search(text)
    if found is None:
        return _STATUS.sub("", text.splitlines()[0])[:300]
    line, column, what = found.groups()
    return f"line {line}, column {column}: {_in_our_words(what)}"[:300]


def _in_our_words(what: str) -> str:
    """Say a complaint of the parser or the checker without the parser's names and lists of tokens."""
    for theirs, ours in _COMPLAINTS:
        if found := theirs.fullmatch(what):
            return found.expand(ours).replace("unexpected '<EOF>'", "unexpected end").replace("'<EOF>'", "the end")
    return what


def _fields(message: DescriptorProto, names: dict[str, int], kind: FieldDescriptorProto.Type.ValueType) -> None:
    for name, number in names.items():
        message.field.add(name=name, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)


def _messages() -> Iterator[DescriptorProto]:
    for name, fields in PARTS.items():
        part = DescriptorProto(name=name)
        _fields(part, fields, TEXT)
        yield part
    event = DescriptorProto(name="Event")
    _fields(event, TEXTS, TEXT)
    _fields(event, {"position": POSITION}, NUMBER)
    for name, (number, kind) in MESSAGES.items():
        event.field.add(name=name, number=number, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=kind)
    entry = event.nested_type.add(name="LabelsEntry")
    entry.options.map_entry = True
    _fields(entry, {"key": 1, "value": 2}, TEXT)
    labels = event.field.add(name="labels", number=LABELS, type=FieldDescriptorProto.TYPE_MESSAGE)
    labels.type_name, labels.label = ".tocsin.Event.LabelsEntry", FieldDescriptorProto.LABEL_REPEATED
    yield event
    frame = DescriptorProto(name="Frame")
    frame.field.add(name="event", number=1, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=".tocsin.Event")
    yield frame


def pool_of(messages: Iterable[DescriptorProto], name: str) -> DescriptorPool:
    """Describe what a condition can be about, apart from the generated code: what it sees is not what is sent."""
    pool = DescriptorPool()
    for known in (struct_pb2, timestamp_pb2):
        file = FileDescriptorProto()
        known.DESCRIPTOR.CopyToProto(file)
        pool.Add(file)
    dependency = [struct_pb2.DESCRIPTOR.name, timestamp_pb2.DESCRIPTOR.name]
    file = FileDescriptorProto(name=name, package="tocsin", syntax="proto3", dependency=dependency)
    file.message_type.extend(messages)
    pool.Add(file)
    return pool


POOL = pool_of(_messages(), "where.proto")
_FRAME = GetMessageClass(POOL.FindMessageTypeByName("tocsin.Frame"))
ENVIRONMENT = cel.NewEnv(POOL, variables={"event": cel.Type("tocsin.Event")})
