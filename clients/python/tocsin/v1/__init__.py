"""Messages and stubs of the package `tocsin.v1`, generated from `protos/tocsin/v1`."""

from importlib import import_module
from typing import TYPE_CHECKING

_PARTS = ("annotations", "event_log", "notifications", "alerting", "system")
_MODULES = frozenset(f"{part}_{kind}" for part in _PARTS for kind in ("pb2", "pb2_grpc"))


if not TYPE_CHECKING:  # or type checkers would take any name for one that is there

    def __getattr__(name: str) -> object:
        """Load a module when it is first asked for: each describes its part of the contract when it is."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """Answer every module, loaded or not."""
    return sorted({*globals(), *_MODULES})
