"""A field that was refused. Apart from the errors, which need gRPC: a request can be made without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that was refused: its path in the request, and why."""

    field: str
    description: str
