"""What a client is told when something is refused or fails: one total table, one encoding.

Every error is a `google.rpc.Status` with exactly one `ErrorInfo`, and a `BadRequest` or `RetryInfo`
where it helps. A fault of the server answers INTERNAL and an incident id that is in its log; its text
never leaves the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from tocsin_server.domain.errors import Reason, TocsinError, Violation

DOMAIN = "tocsin"
DETAILS_KEY = "grpc-status-details-bin"
DETAILS_BYTES_MAX = 4096  # trailers are bounded to 8 KiB by many clients

STATUS: Mapping[Reason, grpc.StatusCode] = {
    Reason.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNDECODABLE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_PAGE_TOKEN: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PAGE_TOKEN_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_METADATA: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_TEMPLATE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.ALERT_TYPE_NOT_REGISTERED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.NAME_TAKEN: grpc.StatusCode.ALREADY_EXISTS,
    Reason.LOG_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ALERT_TYPE_DISABLED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.KEY_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ENDPOINT_DISABLED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.DELIVERY_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SILENCE_ENDED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.READ_ONLY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.RENDER_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SERVER_STARTING: grpc.StatusCode.UNAVAILABLE,
    Reason.POSITION_EXPIRED: grpc.StatusCode.OUT_OF_RANGE,
    Reason.POSITION_AHEAD: grpc.StatusCode.OUT_OF_RANGE,
    Reason.SERVER_DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.STORAGE_FAILED: grpc.StatusCode.UNAVAILABLE,
    Reason.SLOW_CONSUMER: grpc.StatusCode.ABORTED,
    Reason.CONFLICT: grpc.StatusCode.ABORTED,
    Reason.TOO_MANY_STREAMS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_TESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_PREVIEWS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.ALERT_DISABLED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ALERTING_OFF: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NAVIGATION_NOT_REGISTERED: grpc.StatusCode.NOT_FOUND,
    Reason.NAVIGATION_REGISTERED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.LIMIT_REACHED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.EVENT_CORRUPT: grpc.StatusCode.DATA_LOSS,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def internal(incident_id: str) -> TocsinError:
    """Say that the server is at fault, without saying how."""
    return TocsinError(
        Reason.INTERNAL,
        f"internal error; incident {incident_id} is in the server's log",
        metadata={"incident_id": incident_id},
    )


def encoded(error: TocsinError) -> bytes:
    """Encode an error as the `google.rpc.Status` of the trailers."""
    metadata = {key: value[:512] for key, value in error.metadata.items()} | bad_indexes(error.violations)
    details: list[AnyMessage] = []
    for detail in (
        error_details_pb2.ErrorInfo(reason=str(error.reason), domain=DOMAIN, metadata=metadata),
        _bad_request(error.violations),
        _retry_info(error.retry_s),
    ):
        if detail is not None:
            packed = AnyMessage()
            packed.Pack(detail)
            details.append(packed)
    status = status_pb2.Status(code=STATUS[error.reason].value[0], message=error.message[:1024], details=details)
    return bytes(status.SerializeToString())


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest | None:
    if not violations:
        return None
    request, size = error_details_pb2.BadRequest(), 0
    for violation in violations:
        size += len(violation.path.encode()) + len(violation.description.encode())
        if size > DETAILS_BYTES_MAX and request.field_violations:
            break  # `bad_indexes` still names every bad one
        request.field_violations.add(field=violation.path[:512], description=violation.description[:1024])
    return request


def _retry_info(retry_s: float | None) -> error_details_pb2.RetryInfo | None:
    if retry_s is None:
        return None
    seconds = int(retry_s)
    delay = Duration(seconds=seconds, nanos=int((retry_s - seconds) * 1_000_000_000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def bad_indexes(violations: Sequence[Violation]) -> dict[str, str]:
    """Give the metadata that names the bad events of a batch as ranges, `0-2,7`; none where there is no batch."""
    found = sorted({int(v.path[7:].partition("]")[0]) for v in violations if v.path.startswith("events[")})
    ranges: list[list[int]] = []
    for index in found:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    told = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    return {"bad_indexes": told} if told else {}
