"""What gRPC raises, read as an error of `tocsin.errors`."""

from __future__ import annotations

from typing import Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from tocsin.errors import BY_CODE, BY_REASON, TocsinError, Violation

# Trailer in which a server puts google.rpc.Status.
_DETAILS_KEY = "grpc-status-details-bin"
# ErrorInfo of another domain comes from something between us and the server; its reasons are not ours.
_DOMAIN = "tocsin"


class _FailedCall(Protocol):
    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> object: ...


def from_rpc(error: grpc.RpcError) -> TocsinError:
    """Translate what gRPC raised, of the blocking or of the asyncio kind."""
    call = cast(_FailedCall, error)
    status = _status(call.trailing_metadata())
    info = error_details_pb2.ErrorInfo()
    violations: tuple[Violation, ...] = ()
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            violations = _violations(detail)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    reason = info.reason if info.domain == _DOMAIN else ""
    code = call.code()
    kind = BY_REASON.get(reason) or BY_CODE.get(code, TocsinError)
    return kind(
        call.details() or code.name,
        code=code,
        reason=reason,
        metadata=info.metadata,
        violations=violations,
        retry_after_s=retry_after_s,
    )


def _status(trailers: object) -> status_pb2.Status:
    for key, value in cast("list[tuple[str, bytes]]", trailers or ()):
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break  # what cannot be read is as good as not sent: the code still tells the kind
    return status_pb2.Status()


def _violations(detail: object) -> tuple[Violation, ...]:
    refused = error_details_pb2.BadRequest()
    detail.Unpack(refused)  # type: ignore[attr-defined]
    return tuple(Violation(found.field, found.description) for found in refused.field_violations)
