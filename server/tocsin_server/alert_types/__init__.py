"""The alert types that come with the server: one file each, found by discovery.

A file of this folder holds one type in `ALERT_TYPE`. An executor computes: what it reads comes to
it in its `RunContext`, and it sends nothing. A new type is a new file; nothing else changes.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from tocsin_server.domain.alerting import AlertType, AlertTypes


def discover() -> AlertTypes:
    """Load every alert type of this folder."""
    return AlertTypes(_load(module.name) for module in iter_modules(__path__))


def _load(name: str) -> AlertType:
    alert_type: AlertType = import_module(f"{__name__}.{name}").ALERT_TYPE
    return alert_type
