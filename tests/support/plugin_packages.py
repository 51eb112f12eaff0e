"""Distributions with alert types, written into a folder as an installer leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

from tocsin_server.plugins.loading import ENTRY_POINTS

SPEC = """
from tocsin_server import plugins

def execute(options):
    return None

def spec(id, **more):
    return plugins.AlertTypeSpec(
        id=id, name=id, executor=execute, action_groups=(plugins.ActionGroup("default", "Default"),), **more
    )
"""


def install(folder: Path, distribution: str, source: str, points: Mapping[str, str] | None = None) -> None:
    """Install a distribution of one module; entry points by name, `TYPE` of the module unless said otherwise."""
    module = distribution.replace("-", "_").lower()
    (folder / f"{module}.py").write_text(SPEC + source, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"{name} = {module}:{value}" for name, value in (points or {"one": "TYPE"}).items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines, ""]), encoding="utf-8")


def points_of(folder: Path) -> list[EntryPoint]:
    """Give the entry points of what is installed in a folder."""
    return [
        point
        for distribution in distributions(path=[str(folder)])
        for point in distribution.entry_points
        if point.group == ENTRY_POINTS
    ]
