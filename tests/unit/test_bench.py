"""The file of the figures: its form, and what some parts leave of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.results import RESULTS, Figure, figure, publish

KEYS = ["name", "value", "unit", "target", "better", "cpu_us", "load"]


def test_a_figure_has_seven_keys(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    publish([figure("a", 1.5, "ratio", 1.0, cpu_us=3.0), figure("b", 2.0, "ms", better="lower")], results=results)
    first, second = json.loads(results.read_text())
    assert list(first) == list(second) == KEYS
    assert (first["name"], first["value"], first["target"], first["better"]) == ("a", 1.5, 1.0, "higher")
    assert (second["target"], second["better"], second["cpu_us"]) == (None, "lower", None)


@pytest.mark.skipif(not RESULTS.exists(), reason="no figures have been measured here")
def test_the_figures_that_are_kept_have_that_form() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert rows
    for row in rows:
        assert list(row) == KEYS
        assert row["better"] in ("higher", "lower")


def test_some_parts_leave_the_rows_of_the_others(tmp_path: Path) -> None:
    results = tmp_path / "results.json"

    def made(name: str, value: float) -> Figure:
        return figure(name, value, "ratio")

    def names() -> list[str]:
        return [row["name"] for row in json.loads(results.read_text())]

    publish([made("a", 1), made("b", 2)], results=results)
    publish([made("b", 3), made("c", 4)], whole=False, results=results)
    assert names() == ["a", "b", "c"]
    assert json.loads(results.read_text())[1]["value"] == 3
    publish([made("d", 5)], results=results)
    assert names() == ["d"]
