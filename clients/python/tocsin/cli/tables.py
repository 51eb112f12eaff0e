"""Rows in columns, framed or plain. Pure; cells hold text that is safe already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

_CUT_MIN = 8  # a column that is cut keeps so much


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

    def narrowed(self, width: int, cuttable: Sequence[int]) -> Table:
        """Answer the table with these columns cut, the widest first, as far as it takes to fit."""
        widths = list(self.widths)
        excess = self.width - width
        while excess > 0:
            widest = max(cuttable, key=lambda index: widths[index])
            if widths[widest] <= _CUT_MIN:
                break
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
