"""The root of all errors of a call; its tree is in `tocsin.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import grpc

from tocsin.violation import Violation

__all__ = ["TocsinError", "Violation"]


class TocsinError(Exception):
    """A call failed.

    `code` is the gRPC status, `reason` the name in `tocsin.v1.ErrorReason` without its prefix (empty
    when the failure did not come from a tocsin server), `metadata` what belongs to the reason,
    `violations` the refused fields, `retry_after_s` how long the server asked to wait.
    """

    codes: ClassVar[tuple[grpc.StatusCode, ...]] = ()
    reasons: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = violations
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        name = self.code.name if self.reason in ("", self.code.name) else f"{self.code.name} {self.reason}"
        # The server's message quotes the first fields itself.
        fields = [f"{violation.field}: {violation.description}" for violation in self.violations]
        more = "; ".join(field for field in fields if field not in self.message)
        return f"{name}: {self.message}" + (f" ({more})" if more else "")
