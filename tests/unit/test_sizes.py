"""Functions have at most 60 lines, files at most 400, and half of the functions about 10 or fewer."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
MEDIAN_LINES_MAX = 12


def sources() -> list[Path]:
    found = [
        p
        for folder in ("server", "clients/python", "tests", "bench", "examples")
        for p in ROOT.glob(f"{folder}/**/*.py")
    ]
    return sorted(p for p in found if "_pb2" not in p.name)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX
    assert [f"{name}: {lines}" for name, lines in functions(path) if lines > FUNCTION_LINES_MAX] == []


def test_the_usual_function_is_short() -> None:
    lengths = [lines for path in sources() if "server" in path.parts for _, lines in functions(path)]
    assert statistics.median(lengths) <= MEDIAN_LINES_MAX


@pytest.mark.parametrize("name", ["utils", "common", "helpers", "manager"])
def test_no_module_is_named_after_nothing(name: str) -> None:
    assert [p for p in sources() if name in p.stem] == []


def test_time_and_chance_come_from_the_runtime_only() -> None:
    """`runtime.py` makes the clock; a duration or an id taken elsewhere could not be held still."""
    forbidden = re.compile(r"\b(time\.(time|time_ns|monotonic|perf_counter)\(|uuid\.uuid|random\.|datetime\.now\()")
    allowed = {"runtime.py", "webhook.py"}  # webhook.py reads the date of a Retry-After header
    server = [p for p in sources() if "tocsin_server" in p.parts and p.name not in allowed]
    found = [f"{p.name}: {match[0]}" for p in server for match in forbidden.finditer(p.read_text(encoding="utf-8"))]
    assert found == []
