"""Lists and single resources in each format, the same for every group of commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from tocsin.cli import rendering
from tocsin.cli.escaping import escaped
from tocsin.cli.screen import Screen
from tocsin.cli.tables import Form, Sheet

_Found = TypeVar("_Found", bound=Message)


@dataclass(frozen=True)
class Columns:
    """The columns of a list, how they are set where the terminal is narrow, and which one is coloured by its words."""

    titles: Sequence[str]
    forms: Sequence[Form]
    cuttable: Mapping[int, int]
    coloured: int | None = None
    colours: Mapping[str, str] = field(default_factory=dict)


def rows(screen: Screen, what: str, columns: Columns, found: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; says so where there are none."""
    if not found:
        screen.note(f"No {what}.")
        return
    safe = [[escaped(cell) for cell in row] for row in found]
    sheet = Sheet(columns.titles, columns.forms, columns.cuttable, screen.width)
    sheet.take(safe)
    for line in sheet.head():
        screen.line(line)
    for row in safe:
        first, *others = sheet.lines(row)
        screen.line(first, *_spans(sheet, columns, row))
        for line in others:
            screen.line(line)


def _spans(sheet: Sheet, columns: Columns, row: Sequence[str]) -> list[tuple[int, int, str]]:
    if columns.coloured is None or (start := sheet.starts(columns.coloured)) is None:
        return []
    cell = row[columns.coloured]
    return [(start, start + len(cell), columns.colours[cell])] if cell in columns.colours else []


def listed(
    screen: Screen, format: str, response: Message, found: Sequence[_Found], id: Callable[[_Found], str]
) -> bool:
    """Print a list as JSON or as ids; False where it is to be text."""
    if format == "json-raw":
        screen.line(rendering.raw_text(response))
    elif format == "json":
        screen.line(rendering.json_text([rendering.plain(one) for one in found]))
    elif format == "id":
        for one in found:
            screen.line(escaped(id(one)))
    return format != "text"


def shown(screen: Screen, format: str, response: Message, found: Message, id: str) -> bool:
    """Print one resource as JSON or its id; False where it is to be text."""
    if format == "json-raw":
        screen.line(rendering.raw_text(response))
    elif format == "json":
        screen.line(rendering.json_text(rendering.plain(found)))
    elif format == "id":
        screen.line(escaped(id))
    return format != "text"


def paragraphs(screen: Screen, *parts: Sequence[str]) -> None:
    """Print groups of lines, an empty line between them."""
    for number, part in enumerate(part for part in parts if part):
        for line in ["", *part] if number else part:
            screen.line(line)
