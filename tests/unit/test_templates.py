"""Templates: what they render, what is refused and where, and that no template costs much."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import pytest
from tocsin_server.domain.templates import (
    RENDER_CHARACTERS_MAX,
    TEMPLATE_CHARACTERS_MAX,
    Escape,
    RenderError,
    TemplateError,
    parse,
    render,
    render_params,
    strings,
)
from tocsin_server.domain.variables import Json, Variables, plain, text_of

BOMB_S = 0.05
DEEP: object = 1
for _ in range(60):
    DEEP = {"b": DEEP}
WIDE: object = 1
for _ in range(14):
    WIDE = {"b": [WIDE] * 2}


def shown(source: str, values: dict[str, object], escape: Escape = Escape.HTML) -> str:
    return render(source, Variables(values), escape)


def cpu_seconds(work: Callable[[], object]) -> float:
    """The quickest of three: another process may hold the processor during one of them."""
    taken = []
    for _ in range(3):
        parse.cache_clear()
        begun = time.thread_time()
        work()
        taken.append(time.thread_time() - begun)
    return min(taken)


def test_the_sources_example_renders_to_the_letter() -> None:
    """KM10: the cpu alert of the source, subject, body and recipients."""
    params = {
        "from": "example@elastic.co",
        "to": ["destination@elastic.co"],
        "subject": "A notification about {{context.server}}",
        "body": "The server {{context.server}} has a CPU usage of {{state.cpuUsage}}%. This message for "
        "{{alertInstanceId}} was created by the alert {{alertId}} {{alertName}}.",
    }
    variables = Variables(
        {
            "context": {"server": "server_1"},
            "state": {"cpuUsage": 80.0},
            "alertInstanceId": "server_1",
            "alertId": "123",
            "alertName": "cpu alert",
        }
    )
    assert render_params(params, variables) == {
        "from": "example@elastic.co",
        "to": ["destination@elastic.co"],
        "subject": "A notification about server_1",
        "body": "The server server_1 has a CPU usage of 80%. This message for server_1 was created by the "
        "alert 123 cpu alert.",
    }


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("{{a}}", {"a": "<b>&\"'"}, "&lt;b&gt;&amp;&quot;&#x27;"),
        ("{{{a}}}{{&a}}{{& a }}", {"a": "<&>"}, "<&><&><&>"),
        ("{{a}} {{ b }}", {"a": 1}, "1 "),
        ("{{a}}", {"a": None}, ""),
        ("{{a}}", {"a": True}, "true"),
        ("{{a}} {{b}} {{c}}", {"a": 80.0, "b": 1.210, "c": 1e-7}, "80 1.21 1e-7"),
        ("{{a}} {{b}}", {"a": 1e21, "b": 2**53 + 1}, "1e+21 9007199254740993"),
        ("{{{a}}}", {"a": {"x": [1.0, None, "é"]}}, '{"x":[1,null,"é"]}'),
        ("{{a.b.c}}", {"a": {"b": {"c": "deep"}}}, "deep"),
        ("{{a.b.c}}|{{a.x}}|{{a.b.c.d}}", {"a": {"b": {"c": 1}}}, "1||"),
        ("{{#a}}{{b}}{{/a}}", {"a": [{"b": 1}, {"b": 2}]}, "12"),
        ("{{#a}}{{.}},{{/a}}", {"a": ["x", "y"]}, "x,y,"),
        ("{{#a}}yes{{/a}}{{^a}}no{{/a}}", {"a": []}, "no"),
        ("{{#a}}{{b}}{{/a}}", {"a": {"x": 1}, "b": "outer"}, "outer"),
        ("{{^a}}none{{/a}}", {}, "none"),
        ("a{{! a comment with {braces} }}b", {}, "ab"),
        ("{{a}}", {"a": "{{b}}", "b": "never"}, "{{b}}"),
        ('{"n":{{a}},"o":{"p":{{{b}}}}}', {"a": 1, "b": 2}, '{"n":1,"o":{"p":2}}'),
        ("}} { {a}", {}, "}} { {a}"),
    ],
)
def test_renders_as_mustache_does(source: str, values: dict[str, object], expected: str) -> None:
    assert shown(source, values) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("| a\n{{#s}}\nx\n{{/s}}\n| b", "| a\nx\n| b"),
        ("  {{#s}}\r\nx\r\n  {{/s}}  \r\nend", "x\r\nend"),
        (" {{! gone }}\nb", "b"),
        ("a {{! stays }}\nb", "a \nb"),
        ("{{#s}}{{/s}}\nb", "\nb"),
        ("  {{v}}\nb", "  1\nb"),
        ("x\n  {{#s}}", None),
        ("{{#s}}\n{{/s}}", ""),
        ("{{^s}}\nhidden\n{{/s}}\n  tail", "  tail"),
    ],
)
def test_a_tag_alone_on_its_line_takes_the_line(source: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(TemplateError, match="not closed"):
            parse(source)
    else:
        assert shown(source, {"s": True, "v": 1}) == expected


@pytest.mark.parametrize(
    ("source", "line", "column", "words"),
    [
        ("a\nb {{c", 2, 3, "not closed"),
        ("{{{a}}", 1, 1, "not closed by }}}"),
        ("{{#a}}", 1, 1, "section 'a' is not closed"),
        ("x{{/a}}", 1, 2, "not open here"),
        ("{{#a}}{{#b}}{{/a}}{{/b}}", 1, 13, "'b' is"),
        ("{{}}", 1, 1, "needs a name"),
        ("{{ {{a}} }}", 1, 1, "needs a name"),
        ("{{>../../etc/passwd}}", 1, 1, "partials"),
        ("{{=<% %>=}}", 1, 1, "delimiters"),
        ("{{<layout}}{{/layout}}", 1, 1, "parents"),
        ("{{#a}}" * 17 + "{{/a}}" * 17, 1, 97, "16 sections"),
        ("{{a}}" * 2001, 1, 10001, "2000 tags"),
        ("x" * (TEMPLATE_CHARACTERS_MAX + 1), 1, 1, "longer than"),
    ],
)
def test_refuses_with_line_and_column(source: str, line: int, column: int, words: str) -> None:
    """XE11: what cannot be used is refused when it is saved, and the place is named."""
    with pytest.raises(TemplateError, match=words) as refused:
        parse(source)
    assert (refused.value.line, refused.value.column) == (line, column)


@pytest.mark.parametrize(
    "source",
    [
        "{{" * 8000,
        "{{" * 4000,
        "{{#a}}" * 2700,
        "{{a" + " " * 16000 + "b}}",
        " " * 16000,
        "{{!" + " " * 16000 + "}}",
        (" " * 14 + "{{a}}") * 800,
        "{{#" + "a." * 8000 + "}}",
        "\n" * 16000,
        "{{a}}" * 2000,
    ],
    ids=lambda source: source[:8] + "..",
)
def test_reading_a_bomb_takes_no_time(source: str) -> None:
    """Trap 14, XE11: refused or read within 50 ms."""

    def read() -> None:
        with contextlib.suppress(TemplateError):
            parse(source)

    assert cpu_seconds(read) < BOMB_S


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("{{#a}}" * 6 + "x" + "{{/a}}" * 6, {"a": list(range(15))}),
        ("{{#a}}" * 16 + "x" * 1000 + "{{/a}}" * 16, {"a": list(range(15))}),
        ("{{#a}}{{/a}}", {"a": [1] * 1_000_000}),
        ("{{a}}" * 2000, {"a": "<" * 64_000}),
        ("{{{a}}}" * 2000, {"a": {"b": "x" * 60_000}}),
        ("{{#a}}" + "x" * 10_000 + "{{/a}}", {"a": list(range(10_000))}),
        ("{{#a}}{{" + "b." * 60 + "b}}{{/a}}", {"a": list(range(10_000)), "b": DEEP}),
        ("{{#b}}" * 15 + "{{nothing}}" * 1000 + "{{/b}}" * 15, {"b": [WIDE] * 3}),
    ],
    ids=[
        "loops",
        "loops with text",
        "a long list",
        "a long text",
        "objects",
        "text in a loop",
        "long names",
        "misses",
    ],
)
def test_rendering_a_bomb_is_stopped(source: str, values: dict[str, object]) -> None:
    """Trap 14, XE11: the budget of steps or characters stops it within 50 ms."""
    variables = Variables(values)

    def attempt() -> None:
        with pytest.raises(RenderError):
            render(source, variables)

    assert cpu_seconds(attempt) < BOMB_S


def test_a_value_of_a_megabyte_is_stopped() -> None:
    """XE11: a value of 1 MB does not become a message."""
    with pytest.raises(RenderError, match=str(RENDER_CHARACTERS_MAX)):
        shown("{{a}}", {"a": "x" * 1_000_000})


def test_all_strings_of_a_message_share_one_budget() -> None:
    params = {"lines": ["{{a}}"] * 100}
    with pytest.raises(RenderError):
        render_params(params, Variables({"a": "x" * 1000}))


class Leaky:
    secret = "s3cret"

    def __call__(self) -> str:
        return "called"


@pytest.mark.parametrize("value", [Leaky(), Leaky, len, b"bytes", {1: 2}, {"a": {3}}, float("nan")])
def test_only_plain_json_becomes_a_variable(value: object) -> None:
    """XE11: no attribute, no callable, no foreign object reaches a template."""
    with pytest.raises((TypeError, ValueError)):
        Variables({"a": value})


def test_attributes_of_plain_values_are_not_looked_up() -> None:
    source = "{{s.__class__}}{{s.upper}}{{d.keys}}{{d.items.__self__}}{{n.real}}"
    assert shown(source, {"s": "x", "d": {}, "n": 1}) == ""


def test_keys_with_dots_are_reachable() -> None:
    values: dict[str, object] = {"a.b": 1, "a": {"c": 2}, "x": {"y.z": [{"p.q": 3}]}}
    assert shown("{{a.b}} {{a.c}} {{#x.y.z}}{{p.q}}{{/x.y.z}}", values) == "1 2 3"
    assert shown("{{a}}|{{a.b}}", {"a": "kept", "a.b": 1}) == "kept|"
    assert shown("{{a.b}}", {"a": {"b": "first"}, "a.b": "second"}) == "first"


def test_deep_json_is_refused() -> None:
    value: object = 1
    for _ in range(70):
        value = [value]
    with pytest.raises(ValueError, match="levels"):
        plain(value)
    assert shown("{{a}}", {".".join("a" * 500): 1}) == ""


@pytest.mark.parametrize(
    ("escape", "value", "expected"),
    [
        (Escape.NONE, '<"&>', '<"&>'),
        (Escape.JSON, 'a "quoted"\nline \\ é', 'a \\"quoted\\"\\nline \\\\ é'),
        (Escape.URL, "a b/c?d=é&", "a%20b%2Fc%3Fd%3D%C3%A9%26"),
        (Escape.SLACK, "a <b> & `c`", "a &lt;b&gt; &amp; 'c'"),
        (Escape.SLACK, "snake_case `x`", "`snake_case 'x'`"),
        (Escape.MARKDOWN, "a*b_[c](d)", "a\\*b\\_\\[c\\]\\(d\\)"),
    ],
)
def test_escapes_for_the_channel(escape: Escape, value: str, expected: str) -> None:
    """XE12: a value cannot break out of the text around it."""
    assert shown("{{a}}", {"a": value}, escape) == expected
    assert shown("{{{a}}}", {"a": value}, escape) == value


def test_json_stays_json() -> None:
    """XE12: quotes and newlines in a value leave a JSON body valid."""
    body = shown('{"text": "{{a}}"}', {"a": 'x" , "y": "\n'}, Escape.JSON)
    assert json.loads(body) == {"text": 'x" , "y": "\n'}


def test_a_string_that_is_one_triple_tag_keeps_the_type() -> None:
    """KM1, KC6: arrays and objects reach an action; everything else stays a string."""
    variables = Variables({"list": ["a", 1.0], "object": {"k": True}, "number": 5, "text": "t"})
    params = {
        "array": "{{{list}}}",
        "object": "{{{ object }}}",
        "number": "{{{number}}}",
        "text": "{{{text}}}",
        "around": " {{{list}}}",
        "escaped": "{{list}}",
        "untouched": [1, 2.5, None, True],
        "missing": "{{{nothing}}}",
    }
    assert render_params(params, variables) == {
        "array": ["a", 1],
        "object": {"k": True},
        "number": "5",
        "text": "t",
        "around": ' ["a",1]',
        "escaped": "[&quot;a&quot;,1]",
        "untouched": [1, 2.5, None, True],
        "missing": "",
    }


def test_strings_are_walked_with_their_paths() -> None:
    """KM1."""
    params: Json = {"a": "x", "b": ["y", {"c": "z"}], "n": 1, "o": None}
    assert list(strings(params, "p")) == [("p.a", "x"), ("p.b[0]", "y"), ("p.b[1].c", "z")]


@pytest.mark.parametrize(("value", "text"), [(1e300, "1e+300"), (-0.5, "-0.5"), ([], "[]"), (False, "false")])
def test_values_are_written_as_json_would(value: object, text: str) -> None:
    assert text_of(plain(value)) == text
