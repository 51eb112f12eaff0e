"""The command line that the examples share: where the server is, and a word when there is none."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import tocsin


def start(run: Callable[[str], object], description: str | None) -> None:
    """Run an example against the server that the command line names; exit with 1 when it fails there."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    address = parser.parse_args().server
    try:
        run(address)
    except tocsin.Unavailable as error:
        sys.exit(f"no server answers at {address} (`make run` starts one): {error}")
    except tocsin.TocsinError as error:
        sys.exit(str(error))
