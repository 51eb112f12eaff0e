"""Figures of one run: kept as JSON, shown as a table."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results.json")


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


def figure(
    name: str, value: float, unit: str, target: float | None = None, better: str = "higher", cpu_us: float | None = None
) -> Figure:
    """Make a figure, noting the load."""
    return Figure(
        name, round(value, 4), unit, target, better, cpu_us and round(cpu_us, 1), round(os.getloadavg()[0], 2)
    )


def publish(figures: list[Figure]) -> None:
    """Write the figures to results.json and print them."""
    RESULTS.write_text(json.dumps([asdict(f) for f in figures], indent=2) + "\n", encoding="utf-8")
    table = Table(title="tocsin bench")
    for heading in ("figure", "value", "unit", "target", "server CPU us", "load"):
        table.add_column(heading, justify="left" if heading in ("figure", "unit") else "right")
    for f in figures:
        sign = ">=" if f.better == "higher" else "<="
        target = "" if f.target is None else f"{sign} {f.target:g}"
        table.add_row(
            f.name, f"{f.value:,.3g}", f.unit, target, "" if f.cpu_us is None else f"{f.cpu_us:g}", f"{f.load}"
        )
    Console().print(table)
