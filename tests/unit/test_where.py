"""Conditions over events: what they mean, what is refused, what they cost."""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain import conditions
from tocsin_server.domain.where import WhereError, compiled


def frame(details: Any = None, **fields: Any) -> bytes:
    event = pb.Event(type="user.image.analysis_failed", **fields)
    if isinstance(details, dict):
        event.details.struct_value.update(details)
    elif details is not None:
        event.details.string_value = details
    return pb.GetEventResponse(event=event).SerializeToString()


def asked(text: str, details: Any = None, level: int = 1, **fields: Any) -> bool:
    return compiled(text).matches(frame(details, level=level, **fields), level)


def test_the_fields_are_those_of_an_event() -> None:
    """A field that is added to the contract has to be told to `where` too."""

    def fields(message: Descriptor) -> dict[str, tuple[int, Any, str]]:
        return {
            f.name: (f.number, f.type, f.message_type.name if f.message_type is not None else "")
            for f in message.fields
        }

    told = fields(conditions.POOL.FindMessageTypeByName("tocsin.Event"))
    sent = fields(pb.Event.DESCRIPTOR)
    assert told.pop("level")[0] == conditions.LEVEL_NUMBER
    sent.pop("level")
    assert {n: (i, t, m.removeprefix("Event")) for n, (i, t, m) in sent.items()} == told
    for part, of in (("Resource", pb.EventResource), ("Source", pb.EventSource)):
        assert fields(conditions.POOL.FindMessageTypeByName(f"tocsin.{part}")) == fields(of.DESCRIPTOR)


DETAILS = {
    "exitcode": 1,
    "ratio": 0.5,
    "stderr": "no space left",
    "nothing": None,
    "items": [{"name": "x", "count": 3, "tags": ["p"]}, {"name": "y", "count": 4, "tags": []}],
}


@pytest.mark.parametrize(
    "text",
    [
        'event.type == "user.image.analysis_failed"',
        'event.level == "error"',
        "event.details.exitcode == 1",
        "event.details.exitcode == 1.0",
        "event.details.exitcode > 0 && event.details.ratio < 1",
        "event.details.exitcode + 1.0 == 2.0",
        "int(event.details.exitcode) + 1 == 2",
        "event.details.exitcode in [1, 2]",
        "event.details.nothing == null",
        "has(event.details.exitcode) && !has(event.details.other)",
        'event.details.stderr.contains("space") && event.details.stderr.matches("^no .*left$")',
        'event.details.items.exists(i, i.name == "y")',
        'event.details.items.exists(i, i.tags.exists(t, t == "p"))',
        "event.details.items.all(i, double(i.count) + 1.0 > 3.0)",
        'event.details.items.filter(i, i.name != "x").size() == 1',
        'event.details.items.exists_one(i, i.name == "x")',
        'event.labels["region"] == "eu" && "region" in event.labels && !("zone" in event.labels)',
        'event.resource.id == "nginx" && event.source.host == ""',
        'event.timestamp > timestamp("2026-01-01T00:00:00Z") && event.timestamp < timestamp("2026-12-31T00:00:00Z")',
        'event.timestamp.getFullYear() == 2026 || event.details.nope == "short of it"',
        "event.position == 7",
        'event.type.startsWith("user.") ? event.category == "" : false',
    ],
)
def test_an_expression_says_what_an_event_is(text: str) -> None:
    event: dict[str, Any] = {"labels": {"region": "eu"}, "resource": pb.EventResource(id="nginx"), "position": 7}
    event["timestamp"] = {"seconds": 1_780_000_000}
    assert asked(text, DETAILS, 2, **event)
    assert not asked(f"!({text})", DETAILS, 2, **event)


@pytest.mark.parametrize(
    "text",
    [
        "event.details.missing == 1",
        "event.details.missing != 1",
        'event.labels["missing"] == ""',
        "event.details.stderr + 1.0 == 2.0",
        "event.details.stderr.exists(x, true)",
        "event.details.items[7].name == 'x'",
        "event.details.items.exists(i, i.other == 1)",
        "event.details.stderr",
        "1 / (1 - int(event.details.exitcode)) == 1",
    ],
)
def test_what_cannot_be_evaluated_does_not_match(text: str) -> None:
    """A missing key, another type, an index that is not there: neither the condition nor its opposite."""
    assert not asked(text, DETAILS)
    if text != "event.details.stderr":
        assert not asked(f"!({text})", DETAILS)


def test_details_may_be_a_sentence_or_nothing() -> None:
    assert asked('event.details == "no layer"', "no layer")
    assert not asked("event.details.exitcode == 1", "no layer")
    assert not asked("event.details.exitcode == 1")


BROKEN = [
    "event.(",
    "1 +",
    "[1,2",
    "{",
    "true ? 1",
    "a b",
    "",
    "'",
    "event..x",
    "f(",
    "1 2 3",
    "\0",
    "a[",
    "event.type[0]",
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_complaint_names_no_tokens_of_the_parser(text: str) -> None:
    with pytest.raises(WhereError) as caught:
        compiled(text)
    for foreign in (
        "expecting",
        "EOF",
        "IDENTIFIER",
        "token recognition",
        "viable",
        "Syntax error",
        "overload",
        "INVALID_ARGUMENT",
    ):
        assert foreign not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("event.type ==", "line 1, column 14: unexpected end"),
        ("event.(", "line 1, column 7: unexpected '.('"),
        ("event.type = 'x'", "line 1, column 12: unexpected '=': equality is =="),
        ("event.type ~ 'x'", "line 1, column 12: unexpected '~'"),
        ("event.type == 'a' 'b'", "line 1, column 19: unexpected ''b''"),
        ("(event.type", "line 1, column 12: ')' is missing before the end"),
        ("foo(event.type)", "line 1, column 4: undeclared reference to 'foo'"),
        ("event.type == 'a' &&\n  event.nope == 1", "line 2, column 8: undefined field 'nope'"),
        ("event.resource.nope == 1", "line 1, column 15: undefined field 'nope'"),
        ("nope == 1", "line 1, column 1: undeclared reference to 'nope'"),
        ("event.nope(1)", "undeclared reference to 'nope'"),
        ("event.type == 1", "line 1, column 12: '==' is not there for (string, int)"),
        ("event.type", "gives string"),
        ("1 + 1", "gives int"),
        ("' OR 1=1--", "line 1, column 1: the text that begins here has no end"),
        ("'a' == 'a'; DROP TABLE events", "line 1, column 11: unexpected ';'"),
        ("(" * 10_000 + "true" + ")" * 10_000, "has 20004 characters, at most 1024"),
        ("(" * 400 + "true" + ")" * 400, "recursion limit exceeded. limit: 32"),
        ("[" * 400 + "]" * 400 + " == []", "recursion limit exceeded. limit: 32"),
        ("event.details.exitcode + 1 == 2", "say 1.0 in place of 1"),
    ],
)
def test_what_is_no_condition_over_an_event_is_refused(text: str, says: str) -> None:
    """XB19: injection, ten thousand parentheses, an unknown field."""
    with pytest.raises(WhereError) as refusal:
        compiled(text)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("event.details.l.exists(x, event.details.l.exists(y, y == x))", "goes through parts of 'x' only"),
        ("event.details.l.exists(x, event.details.s.contains('z'))", "contains() within a macro"),
        ("event.details.l.exists(x, event.details.s.size() > 3)", "size() within a macro"),
        ("event.details.l.exists(x, event.details.s == event.message)", "a comparison within a macro"),
        ("event.details.l.exists(x, x in event.details.l)", "`in` within a macro"),
        ("event.details.l.exists(x, event.details.m[event.message] == 1)", "a key within a macro"),
        ("event.details.l.exists(x, x + x == x)", "`+` within a macro is for numbers"),
        ("event.details.l.exists(x, string(event.details.l).size() > x)", "within a macro"),
        ("[event.message].map(a, a + a).size() > 1", "map() makes lists of any size"),
        ("event.details.l.map(a, event) == []", "map() makes lists of any size"),
        ("[1].exists(a, [2].exists(b, [3].exists(c, [4].exists(d, true))))", "at most 3 deep"),
        ("event.details.l.filter(a, true).exists(x, event.details.l.filter(b, true).size() > 1)", "within a macro"),
    ],
)
def test_what_could_cost_more_than_one_look_is_refused(text: str, says: str) -> None:
    with pytest.raises(WhereError) as refusal:
        compiled(text)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(?=a)b", "is no RE2"),
        (r"(a)\\1", "is no RE2"),
        ("a{1000}{1000}", "is no RE2"),
        (r"\\pL{900}", "is no RE2"),
        ("[", "is no RE2: missing ]: ["),
        (")", "is no RE2: unexpected ): )"),
        ("a{500}", "instructions, at most 400"),
    ],
)
def test_a_regular_expression_is_a_small_re2(pattern: str, says: str) -> None:
    """XE13: what only backtracking can do, and what takes long to compile, is refused."""
    with pytest.raises(WhereError) as refusal:
        compiled(f'event.message.matches("{pattern}")')
    assert says in str(refusal.value)
    with pytest.raises(WhereError, match="is a literal"):
        compiled("event.message.matches(event.type)")


def test_a_regular_expression_takes_time_by_the_length_of_the_text() -> None:
    """XE13: an expression that doubles the time of a backtracking engine with each character."""
    began = time.perf_counter()
    assert not asked('event.details.s.matches("(a+)+$b")', {"s": "a" * 100_000})
    assert time.perf_counter() - began < 0.5


def test_the_dearest_expressions_end_soon_and_a_long_list_does_not_match() -> None:
    """A macro over a list of 256 KiB: 10,000 entries are looked at, then the event does not match."""
    began = time.perf_counter()
    assert asked("event.details.l.all(x, x == 0.0)", {"l": [0] * 9_000})
    assert not asked("event.details.l.all(x, x == 0.0)", {"l": [0] * 20_000})
    several = " || ".join(['event.details.s.contains("zz")'] * 30)
    assert not asked(several, {"s": "a" * 250_000})
    assert time.perf_counter() - began < 2


def test_a_damaged_frame_does_not_match() -> None:
    assert not compiled('event.type == ""').matches(b"\x0a\x05ab", 1)
