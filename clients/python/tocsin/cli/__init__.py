"""The command `tocsin`. It needs the extra `cli`: `pip install 'tocsin[cli]'`."""

from __future__ import annotations

import sys

_EXTRA = ("typer", "rich", "yaml")


def main() -> None:
    """Run the command line and exit with its code; says in one line what to install when the extra is missing."""
    try:
        from tocsin.cli.app import run  # noqa: PLC0415 - the libraries of the extra may be missing

        sys.exit(run(sys.argv[1:]))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.exit(f"tocsin: the command line needs {error.name}: pip install 'tocsin[cli]'")
