"""The two distributions carry what they need, wherever they are built from."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"tocsin": ROOT / "clients/python", "tocsin_server": ROOT}


@pytest.mark.parametrize("name", FOLDERS)
def test_both_forms_carry_the_license(tmp_path: Path, name: str) -> None:
    """The wheel is built from the sdist, as an installer without wheels does."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(FOLDERS[name])]
    subprocess.run(build, capture_output=True, check=True)
    text = (ROOT / "LICENSE").read_bytes()
    (wheel,), (sdist,) = tmp_path.glob(f"{name}-*.whl"), tmp_path.glob(f"{name}-*.tar.gz")
    with ZipFile(wheel) as files:
        (inside,) = [found for found in files.namelist() if found.endswith("dist-info/licenses/LICENSE")]
        assert files.read(inside) == text
    with tarfile.open(sdist) as archive:
        copy = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/LICENSE")
        assert copy is not None
        assert copy.read() == text


@pytest.mark.parametrize("name", FOLDERS)
def test_every_dependency_has_both_ends(name: str) -> None:
    project = tomllib.loads((FOLDERS[name] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    needed = [*project["dependencies"], *extras.get("fast", []), *extras.get("cli", [])]
    assert [one for one in needed if ">=" not in one or "<" not in one] == []
