"""The alert types that come with the server: one file each, found by discovery.

A file of this folder holds one type in `ALERT_TYPE`. An executor computes: what it reads comes to
it in its `RunContext`, and it sends nothing. A new type is a new file; nothing else changes. A module
whose name begins with `_` is no type: it holds what several types say alike.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from tocsin_server.domain.alerting import AlertType


def discover() -> list[AlertType]:
    """Load every alert type of this folder."""
    return [_load(module.name) for module in iter_modules(__path__) if not module.name.startswith("_")]


def _load(name: str) -> AlertType:
    alert_type: AlertType = import_module(f"{__name__}.{name}").ALERT_TYPE
    return alert_type
