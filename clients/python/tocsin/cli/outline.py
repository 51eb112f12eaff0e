"""A tree as lines of text, folded to the terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from tocsin.cli.escaping import escaped
from tocsin.cli.tables import Line

_WIDTH = 100  # where the output is no terminal
_ROOM_MIN = 20


@dataclass(frozen=True)
class Node:
    """A text and what is below it; `style` colours the text."""

    text: str
    below: Sequence[Node] = ()
    style: str = ""


@dataclass(frozen=True)
class Guides:
    """What leads from a node to those below: beside a node, the last one, and past each."""

    beside: str
    last: str
    past: str
    blank: str = field(default="   ")


DRAWN = Guides("├─ ", "└─ ", "│  ")
PLAIN = Guides("|- ", "`- ", "|  ")


def lines(node: Node, width: int | None, guides: Guides = DRAWN) -> Iterator[Line]:
    """Draw a tree; texts that do not fit go on below themselves."""
    yield from _lines(node, "", "", width or _WIDTH, guides)


def _lines(node: Node, first: str, others: str, width: int, guides: Guides) -> Iterator[Line]:
    indent = others + (guides.past if node.below else "") + "  "
    room = max(width, len(indent) + _ROOM_MIN)
    folded = wrap(escaped(node.text), room, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False) or [
        first
    ]
    for number, text in enumerate(folded):
        start = len(indent if number else first)
        yield Line(text, ((start, len(text), node.style),) if node.style else ())
    for child in node.below:
        is_last = child is node.below[-1]
        beside, past = (guides.last, guides.blank) if is_last else (guides.beside, guides.past)
        yield from _lines(child, others + beside, others + past, width, guides)
