"""Ways out: one file per kind of endpoint, found by discovery. `http.py` is the one door for HTTP.

A kind is a module of this package with `make(door) -> EndpointKind`. It judges and sends; it never
stores, retries or waits: that is the dispatch thread's. A module whose name begins with `_` is no kind.
"""

from __future__ import annotations

import importlib
import pkgutil

from tocsin_server.domain.ports import EndpointKind
from tocsin_server.endpoints.http import HttpDoor


def discover(door: HttpDoor) -> dict[str, EndpointKind]:
    """Make every kind of endpoint that this package has a file for."""
    kinds: dict[str, EndpointKind] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        make = getattr(importlib.import_module(f"{__name__}.{module.name}"), "make", None)
        if make is not None:
            kind: EndpointKind = make(door)
            kinds[kind.kind] = kind
    return dict(sorted(kinds.items()))
