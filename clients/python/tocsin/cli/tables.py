"""Rows in columns, framed or plain. Pure; cells hold text that is safe already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

Span = tuple[int, int, str]
_INDENT = "  "  # the second and third line of a row


@dataclass(frozen=True, slots=True)
class Line:
    """A line with the parts of it that are coloured: begin, end, style."""

    text: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """How columns are set apart: `top`, `middle` and `bottom` are (left, fill, cross, right)."""

    side: str
    top: str
    middle: str
    bottom: str


BOX = Frame("│", "┌─┬┐", "├─┼┤", "└─┴┘")
ASCII = Frame("|", "+-++", "+-++", "+-++")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of fixed widths, in cells of the terminal. Without a frame two blanks are between them."""

    titles: Sequence[str]
    widths: Sequence[int]
    frame: Frame | None = None

    @classmethod
    def fit(cls, titles: Sequence[str], rows: Sequence[Sequence[str]], frame: Frame | None = None) -> Table:
        """Make a table that is wide enough for its titles and these rows."""
        columns = zip(titles, *rows, strict=True)
        return cls(titles, [max(cell_len(cell) for cell in column) for column in columns], frame)

    @property
    def width(self) -> int:
        """How many cells a line takes."""
        between = 3 if self.frame else 2
        return sum(self.widths) + between * (len(self.widths) - 1) + (4 if self.frame else 0)

    def narrowed(self, width: int, cuttable: Mapping[int, int]) -> Table:
        """Answer the table with columns cut, the widest first, as far as it takes to fit.

        `cuttable` says which may be cut, and how many cells of each are kept at least.
        """
        widths = list(self.widths)
        excess = self.width - width
        while excess > 0:
            open_to_it = [index for index, least in cuttable.items() if widths[index] > least]
            if not open_to_it:
                break
            widest = max(open_to_it, key=lambda index: widths[index])
            widths[widest] -= 1
            excess -= 1
        return Table(self.titles, widths, self.frame)

    def head(self) -> list[str]:
        """Answer the lines above the rows."""
        titles = self.line(self.titles)
        return [self._rule(self.frame.top), titles, self._rule(self.frame.middle)] if self.frame else [titles]

    def foot(self) -> list[str]:
        """Answer the lines below the rows."""
        return [self._rule(self.frame.bottom)] if self.frame else []

    def line(self, cells: Sequence[str]) -> str:
        """Answer the line of a row; a cell that is wider than its column is cut and ends in "…"."""
        padded = [_sized(cell, width) for cell, width in zip(cells, self.widths, strict=True)]
        if self.frame is None:
            return "  ".join(padded).rstrip()
        side = self.frame.side
        return f"{side} {f' {side} '.join(padded)} {side}"

    def starts(self, column: int) -> int:
        """Answer in which cell of a line a column begins."""
        return sum(self.widths[:column]) + (3 * column + 2 if self.frame else 2 * column)

    def _rule(self, parts: str) -> str:
        left, fill, cross, right = tuple(parts)
        return left + cross.join(fill * (width + 2) for width in self.widths) + right


def _sized(cell: str, width: int) -> str:
    return set_cell_size(cell, width) if cell_len(cell) <= width else cut(cell, width)


def cut(text: str, width: int) -> str:
    """Cut a text to so many cells; what was cut ends in "…"."""
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"


Form = tuple[tuple[int, ...], ...]
"""Which columns stand on each line of a row."""


class Sheet:
    """Rows that fit a terminal: in the first of its forms that fits, of one line or of several.

    `cuttable` says which columns may be cut, and how many cells are kept of each as long as another
    form is left to try. All others stay whole. Without a width nothing is cut.
    """

    def __init__(self, titles: Sequence[str], forms: Sequence[Form], cuttable: Mapping[int, int], width: int | None):
        self._titles = titles
        self._forms = forms
        self._cuttable = cuttable
        self._width = width
        self._natural = [cell_len(title) for title in titles]
        self._tables: list[Table] = []
        self._form: Form = forms[0]
        self.take([])

    def take(self, rows: Sequence[Sequence[str]]) -> None:
        """Make room for rows that are to be printed."""
        for row in rows:
            self._natural = [max(pair) for pair in zip(self._natural, map(cell_len, row), strict=True)]
        for form in self._forms:
            self._form, self._tables = form, self._laid_out(form, final=form is self._forms[-1])
            if self._width is None or all(table.width <= room for table, room in self._rooms()):
                return

    def _rooms(self) -> list[tuple[Table, int]]:
        assert self._width is not None
        return [(table, self._width - (len(_INDENT) if number else 0)) for number, table in enumerate(self._tables)]

    def _laid_out(self, form: Form, final: bool) -> list[Table]:
        found = []
        for number, columns in enumerate(form):
            table = Table([self._titles[column] for column in columns], [self._natural[column] for column in columns])
            if self._width is not None:
                least = {
                    place: 1 if final else self._cuttable[column]
                    for place, column in enumerate(columns)
                    if column in self._cuttable
                }
                table = table.narrowed(self._width - (len(_INDENT) if number else 0), least)
            found.append(table)
        return found

    def head(self) -> list[str]:
        """Answer the lines of the titles."""
        return self.lines(self._titles)

    def lines(self, cells: Sequence[str]) -> list[str]:
        """Answer the lines of a row."""
        made = [
            table.line([cells[column] for column in columns])
            for table, columns in zip(self._tables, self._form, strict=True)
        ]
        return [made[0], *(_INDENT + line for line in made[1:])]

    def starts(self, column: int) -> int | None:
        """Answer in which cell of the first line a column begins; None where it is not there."""
        first = self._form[0]
        return self._tables[0].starts(first.index(column)) if column in first else None
