"""Mustache templates that users write: read once with care, rendered with a budget.

pystache renders; this module reads the template, gives pystache the nodes and looks names up. The reading is one
linear scan, because pystache's own takes seconds over a few kilobytes of open braces. A template
that is refused says where, by line and column. What is rendered is plain JSON only: nothing is ever
called, no attribute is looked up, no file is opened, and what a value holds is never a template.

    {{name}}   the value, escaped for its channel     {{#name}} .. {{/name}}   once, or for each entry
    {{{name}}} the value as it is; {{&name}} too      {{^name}} .. {{/name}}   when there is none
    {{! words }} nothing                              {{.}}                    the entry itself

Refused: partials, other delimiters, what is not closed, and whatever breaks a limit below.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import quote

from pystache.parsed import ParsedTemplate
from pystache.renderengine import RenderEngine

from tocsin_server.domain.variables import Json, Variables, text_of

TEMPLATE_CHARACTERS_MAX = 16 * 1024  # a long mail; longer ones are documents
TEMPLATE_TAGS_MAX = 2000
TEMPLATE_DEPTH_MAX = 16  # keeps the recursion of rendering shallow
RENDER_CHARACTERS_MAX = 64 * 1024  # of all strings of one message together
RENDER_STEPS_MAX = 10_000  # nodes that one message renders: stops loops in loops

_OPEN, _CLOSE = "{{", "}}"
_REST_OF_LINE = re.compile(r"[ \t]*(?:\r?\n|\r|\Z)")
_REFUSED_KINDS = {
    ">": "partials are not supported",
    "<": "parents are not supported",
    "=": "delimiters are fixed",
}


class TemplateError(ValueError):
    """A template that cannot be used: why, and where (both counted from 1)."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"{message} (line {line}, column {column})")
        self.line = line
        self.column = column


class RenderError(ValueError):
    """A template that could not be rendered with these variables: a budget is used up."""


class Escape(StrEnum):
    """How a value is made harmless for the text around it."""

    HTML = "HTML"
    JSON = "JSON"
    MARKDOWN = "MARKDOWN"
    SLACK = "SLACK"
    URL = "URL"
    NONE = "NONE"


def _slack(text: str) -> str:
    if "_" in text or "*" in text:
        return "`" + text.replace("`", "'") + "`"
    return html.escape(text, quote=False).replace("`", "'")


_MARKDOWN = re.compile(r"([\\|`*_{}\[\]()#+\-.!])")
_ESCAPES: Mapping[Escape, Callable[[str], str]] = {
    Escape.HTML: html.escape,
    Escape.JSON: lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    Escape.MARKDOWN: lambda text: _MARKDOWN.sub(r"\\\1", text),
    Escape.SLACK: _slack,
    Escape.URL: lambda text: quote(text, safe=""),
    Escape.NONE: lambda text: text,
}


# --- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tag:
    """One tag: its kind (`""`, `&`, `#`, `^`, `/`, `!`), its name, and where it begins and ends."""

    kind: str
    name: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Template:
    """A template that has been read: what pystache renders, and the name if it is one `{{{name}}}`."""

    parsed: ParsedTemplate
    only_name: str | None


@lru_cache(maxsize=1024)
def parse(source: str) -> Template:
    """Read a template; TemplateError says where it cannot be used."""
    if len(source) > TEMPLATE_CHARACTERS_MAX:
        raise TemplateError(f"longer than {TEMPLATE_CHARACTERS_MAX} characters")
    tags = list(_tags(source))
    whole = len(tags) == 1 and tags[0].kind == "&" and (tags[0].begin, tags[0].end) == (0, len(source))
    return Template(_tree(source, tags), tags[0].name if whole else None)


def _error(source: str, position: int, message: str) -> TemplateError:
    line = source.count("\n", 0, position) + 1
    return TemplateError(message, line, position - (source.rfind("\n", 0, position) + 1) + 1)


def _tags(source: str) -> Iterator[_Tag]:
    count, position = 0, source.find(_OPEN)
    while position >= 0:
        tag = _tag_at(source, position)
        count += 1
        if count > TEMPLATE_TAGS_MAX:
            raise _error(source, position, f"more than {TEMPLATE_TAGS_MAX} tags")
        yield tag
        position = source.find(_OPEN, tag.end)


def _tag_at(source: str, begin: int) -> _Tag:
    triple = source.startswith("{{{", begin)
    close = "}}}" if triple else _CLOSE
    inner = begin + (3 if triple else 2)
    stop = source.find(close, inner)
    if stop < 0:
        raise _error(source, begin, f"this tag is not closed by {close}")
    content = source[inner:stop].strip()
    kind = "&" if triple else content[:1] if content[:1] in ("&", "#", "^", "/", "!", ">", "<", "=") else ""
    name = content if triple else content[len(kind) :].strip()
    if kind in _REFUSED_KINDS:
        raise _error(source, begin, _REFUSED_KINDS[kind])
    if kind != "!" and (not name or any(c in name for c in "{}\r\n")):
        raise _error(source, begin, "a tag needs a name, and this is none")
    return _Tag(kind, name, begin, stop + len(close))


def _tree(source: str, tags: Sequence[_Tag]) -> ParsedTemplate:
    """Arrange text and tags as nodes; a section, its end or a comment alone on a line takes the line."""
    stack: list[tuple[_Tag | None, ParsedTemplate]] = [(None, ParsedTemplate())]
    position = 0
    for tag in tags:
        text, position = _text_before(source, position, tag)
        if text:
            stack[-1][1].add(_Text(text))
        if tag.kind in ("", "&"):
            stack[-1][1].add(_Variable(tag.name, tag.kind == ""))
        elif tag.kind in ("#", "^"):
            if len(stack) > TEMPLATE_DEPTH_MAX:
                raise _error(source, tag.begin, f"more than {TEMPLATE_DEPTH_MAX} sections in each other")
            stack.append((tag, ParsedTemplate()))
        elif tag.kind == "/":
            _close_section(source, stack, tag)
    opened = stack[-1][0]
    if opened is not None:
        raise _error(source, opened.begin, f"section {opened.name!r} is not closed")
    if position < len(source):
        stack[-1][1].add(_Text(source[position:]))
    return stack[0][1]


def _close_section(source: str, stack: list[tuple[_Tag | None, ParsedTemplate]], tag: _Tag) -> None:
    opened, body = stack[-1]
    if opened is None or opened.name != tag.name:
        wanted = f", {opened.name!r} is" if opened else ""
        raise _error(source, tag.begin, f"section {tag.name!r} is not open here{wanted}")
    stack.pop()
    stack[-1][1].add(_Section(opened.name, body, inverted=opened.kind == "^"))


def _text_before(source: str, position: int, tag: _Tag) -> tuple[str, int]:
    """Give the text between `position` and the tag, and where the text after the tag begins."""
    text = source[position : tag.begin]
    if tag.kind in ("", "&"):
        return text, tag.end
    line_begin = max(text.rfind("\n"), text.rfind("\r")) + 1
    starts_line = line_begin > 0 or position == 0 or source[position - 1] in "\r\n"
    rest = _REST_OF_LINE.match(source, tag.end)
    if starts_line and rest and not text[line_begin:].strip(" \t"):
        return text[:line_begin], rest.end()
    return text, tag.end


def tags_of(source: str) -> Iterator[tuple[str, str]]:
    """Give kind and name of each tag of a template that can be read, in order: a section ends with `/`."""
    return ((tag.kind, tag.name) for tag in _tags(source))


# --- rendering ---------------------------------------------------------------------------------


class _Engine(RenderEngine):  # type: ignore[misc]  # pystache has no types
    """pystache's engine with a budget: every node is a step, every piece of text counts."""

    def __init__(self, escape: Escape) -> None:
        super().__init__(escape=_ESCAPES[escape], literal=str, resolve_context=_Scope.get, to_str=text_of)
        self.steps_left = RENDER_STEPS_MAX
        self.characters_left = RENDER_CHARACTERS_MAX
        self.missed: dict[str, None] = {}

    def step(self, count: int = 1) -> None:
        self.steps_left -= count
        if self.steps_left < 0:
            raise RenderError(f"more than {RENDER_STEPS_MAX} steps to render")

    def take(self, text: str) -> str:
        self.characters_left -= len(text)
        if self.characters_left < 0:
            raise RenderError(f"more than {RENDER_CHARACTERS_MAX} characters when rendered")
        return text


class _Scope:
    """The values that names are looked up in, the innermost last; misses are common and cost little."""

    def __init__(self, values: Json) -> None:
        self._values: list[Json] = [values]

    def push(self, value: Json) -> None:
        self._values.append(value)

    def pop(self) -> None:
        self._values.pop()

    def get(self, name: str) -> Json:
        """Give what a name stands for: its first part from any scope, the others inside of that."""
        if name == ".":
            return self._values[-1]
        first, *rest = name.split(".")
        found: Json = None
        for value in reversed(self._values):
            if isinstance(value, dict) and first in value:
                found = value[first]
                break
        for part in rest:
            if not isinstance(found, dict):
                return None
            found = found.get(part)
        return found


def _steps(name: str) -> int:
    """Say what looking a name up costs: each part of it is a step."""
    return 1 + name.count(".")


class _Text:
    """A node: text outside of tags."""

    def __init__(self, text: str) -> None:
        self._text = text

    def render(self, engine: _Engine, context: _Scope) -> str:
        engine.step()
        return engine.take(self._text)


class _Variable:
    """A node: the value of a name."""

    def __init__(self, name: str, escaped: bool) -> None:
        self._name = name
        self._escaped = escaped
        self._steps = _steps(name)

    def render(self, engine: _Engine, context: _Scope) -> str:
        engine.step(self._steps)
        value = context.get(self._name)
        if value is None:
            engine.missed[self._name] = None
            return ""
        text = text_of(value)
        if len(text) > engine.characters_left:
            return engine.take(text)
        return engine.take(engine.escape(text) if self._escaped else text)


class _Section:
    """A node: a part that is rendered for each entry of a value, or when there is none."""

    def __init__(self, name: str, body: ParsedTemplate, *, inverted: bool) -> None:
        self._name = name
        self._body = body
        self._inverted = inverted
        self._steps = _steps(name)

    def render(self, engine: _Engine, context: _Scope) -> str:
        engine.step(self._steps)
        entries = engine.fetch_section_data(context, self._name)
        if self._inverted:
            return "" if entries else str(self._body.render(engine, context))
        return "".join(self._entry(engine, context, entry) for entry in entries)

    def _entry(self, engine: _Engine, context: _Scope, entry: Json) -> str:
        engine.step()
        context.push(entry)
        rendered = str(self._body.render(engine, context))
        context.pop()
        return rendered


# --- what others call --------------------------------------------------------------------------


def render(source: str, variables: Variables, escape: Escape = Escape.HTML) -> str:
    """Render one template; RenderError when a budget is used up."""
    return str(parse(source).parsed.render(_Engine(escape), _Scope(variables.values)))


def render_noting(source: str, variables: Variables, escape: Escape) -> tuple[str, list[str]]:
    """Render one template, and give the names that had no value, each once."""
    engine = _Engine(escape)
    text = str(parse(source).parsed.render(engine, _Scope(variables.values)))
    return text, list(engine.missed)


def render_params(params: Json, variables: Variables, escape: Escape = Escape.HTML) -> Json:
    """Render every string of objects and arrays at any depth, under one budget; the rest stays.

    A string that is exactly one `{{{name}}}` whose value is an array or an object becomes that value.
    """
    return _rendered(params, _Engine(escape), variables)


def _rendered(value: Json, engine: _Engine, variables: Variables) -> Json:
    if isinstance(value, str):
        return _rendered_string(value, engine, variables)
    if isinstance(value, Mapping):
        return {key: _rendered(entry, engine, variables) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_rendered(entry, engine, variables) for entry in value]
    return value


def _rendered_string(source: str, engine: _Engine, variables: Variables) -> Json:
    template = parse(source)
    context = _Scope(variables.values)
    if template.only_name is not None:
        found = context.get(template.only_name)
        if isinstance(found, (list, dict)):
            engine.step()
            engine.take(text_of(found))
            return found
    return str(template.parsed.render(engine, context))


def strings(params: Json, path: str) -> Iterator[tuple[str, str]]:
    """Walk every string of objects and arrays with its path, such as `params.to[0]`."""
    if isinstance(params, str):
        yield path, params
    elif isinstance(params, Mapping):
        for key, entry in params.items():
            yield from strings(entry, f"{path}.{key}")
    elif isinstance(params, Sequence):
        for index, entry in enumerate(params):
            yield from strings(entry, f"{path}[{index}]")
