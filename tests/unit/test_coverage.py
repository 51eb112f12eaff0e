"""The list of rows tells the truth: each test that it names is there, and names the row."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^\| (K?[A-Z]+[0-9]+|trap [0-9]+) \|")
NAMED = re.compile(r"`(tests/[a-z_/]+\.py)::(test_\w+)`")
# A row, or some of one letter in a run: B13, B13-B19, KC1; or a trap: trap 7.
ROWS = re.compile(r"\b(K?[A-Z]|[Tt]rap )([0-9]{1,2})(?:-\1([0-9]{1,2}))?\b")


def listed() -> list[tuple[str, str, str]]:
    """Give each row with the file and the name of each of its tests."""
    lines = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8").splitlines()
    rows = [(found[1], line) for line in lines if (found := LINE.match(line))]
    return [(row, file, name) for row, line in rows for file, name in NAMED.findall(line)]


@cache
def docstrings(file: str) -> dict[str, str]:
    """Give the docstring of each test of a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {test.name: ast.get_docstring(test) or "" for test in tests}


def rows_of(text: str) -> set[tuple[str, int]]:
    """Give the rows that a docstring names, runs written out."""
    return {
        (letters.replace("T", "t") if letters.endswith(" ") else letters, number)
        for letters, first, last in ROWS.findall(text)
        for number in range(int(first), int(last or first) + 1)
    }


@pytest.mark.parametrize(("row", "file", "name"), listed(), ids=lambda part: part.rpartition("/")[2])
def test_a_listed_test_is_there_and_names_its_row(row: str, file: str, name: str) -> None:
    assert (ROOT / file).is_file(), f"{file} is not there"
    assert name in docstrings(file), f"{file} has no {name}"
    assert rows_of(row) <= rows_of(docstrings(file)[name]), f"the docstring of {name} does not name {row}"


def test_every_row_is_listed_once_with_a_test_or_a_reason() -> None:
    lines = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8").splitlines()
    rows = [(found[1], line) for line in lines if (found := LINE.match(line))]
    assert rows
    assert len({row for row, _ in rows}) == len(rows)
    assert [row for row, line in rows if not NAMED.search(line) and "n/a" not in line] == []


def test_rows_are_read_in_runs_and_alone() -> None:
    assert rows_of("B13-B15, C01, KR6: text; XA12 is a fault") == {("B", 13), ("B", 14), ("B", 15), ("C", 1), ("KR", 6)}
    assert rows_of("Trap 1, trap 15, T02: text") == {("trap ", 1), ("trap ", 15), ("T", 2)}
