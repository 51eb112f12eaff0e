"""Figures of one run: kept as JSON, shown as a table."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results.json")
WIDTH = 100  # columns of the table


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `cpu_us` is server CPU per operation, `load` the machine's load average."""

    name: str
    value: float
    unit: str
    target: float | None
    better: str
    cpu_us: float | None = None
    load: float = 0.0

    @property
    def reached(self) -> bool | None:
        """Tell whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def figure(
    name: str, value: float, unit: str, target: float | None = None, better: str = "higher", cpu_us: float | None = None
) -> Figure:
    """Make a figure, noting the load."""
    return Figure(
        name, round(value, 4), unit, target, better, cpu_us and round(cpu_us, 1), round(os.getloadavg()[0], 2)
    )


def ratio(
    name: str,
    of: Sequence[float],
    to: Sequence[float],
    target: float | None,
    better: str = "higher",
    cpu_us: float = 0.0,
) -> Figure:
    """Make a figure of the median of the rounds' ratios."""
    shares = [one / other for one, other in zip(of, to, strict=True)]
    return figure(name, statistics.median(shares), "ratio", target, better, cpu_us or None)


def merged(before: Sequence[dict[str, Any]], figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Put figures in the place of those of the same name; the others stay, new ones come at the end."""
    rows = {row["name"]: row for row in before}
    return list((rows | {f.name: asdict(f) for f in figures}).values())


def publish(figures: Sequence[Figure], *, whole: bool = True, results: Path = RESULTS) -> None:
    """Write the figures to results.json and print them. Those of some parts only replace their own rows."""
    before = [] if whole or not results.exists() else json.loads(results.read_text(encoding="utf-8"))
    results.write_text(json.dumps(merged(before, figures), indent=2) + "\n", encoding="utf-8")
    table = Table(title="tocsin bench", width=WIDTH)
    for heading in ("figure", "value", "unit", "target", "reached", "CPU us", "load"):
        table.add_column(heading, justify="left" if heading in ("figure", "unit") else "right")
    for f in figures:
        sign = ">=" if f.better == "higher" else "<="
        target = "" if f.target is None else f"{sign} {f.target:g}"
        reached = {True: "yes", False: "[bold red]no[/]", None: ""}[f.reached]
        cpu = "" if f.cpu_us is None else f"{f.cpu_us:g}"
        value = f"{f.value:,.3g}" if abs(f.value) < 1000 else f"{f.value:,.0f}"
        table.add_row(f.name, value, f.unit, target, reached, cpu, f"{f.load}")
    Console(width=WIDTH).print(table)
