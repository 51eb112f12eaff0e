"""When a call is tried again, and how long to wait before. Pure: time and chance are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # gRPC and the messages are loaded by who calls
    from google.protobuf.message import Message

    from tocsin.errors import TocsinError

_READS = ("Get", "BatchGet", "List", "Find", "Summarize", "Explain", "Preview")
_SAME_AGAIN = ("RegisterEventTypes",)  # a repeat leaves what the first one has made
# Nothing of the call took effect, or it did not reach the server and a repeat finds what it did.
_TRANSIENT = ("UNAVAILABLE",)
# The server may know that the call would succeed later; only then does it send RetryInfo.
_IF_ASKED = ("ABORTED", "RESOURCE_EXHAUSTED")


@runtime_checkable
class _HasRequestId(Protocol):
    request_id: str


def is_repeatable(method: str, request: Message) -> bool:
    """Tell whether a call may be sent twice: reads, and calls that carry a request id or event ids.

    `method` is the full path of the RPC, "/tocsin.v1.EventLog/GetEvent".
    """
    name = method.rpartition("/")[2]
    if name.startswith(_READS) or name in _SAME_AGAIN:
        return True
    if isinstance(request, _HasRequestId) and request.request_id:
        return True
    from tocsin.v1.event_log_pb2 import AppendEventRequest, AppendEventsRequest  # noqa: PLC0415 - as above

    if isinstance(request, AppendEventRequest):
        return bool(request.event.id)
    if isinstance(request, AppendEventsRequest):
        return bool(request.events) and all(event.id for event in request.events)
    return False


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first_s` up to `most_s`, each drawn from its upper half (jitter)."""

    first_s: float = 0.05
    most_s: float = 2.0

    def wait_s(self, failures: int, chance: float) -> float:
        """Answer the wait after so many failures in a row (from 1); `chance` is in [0, 1)."""
        # The exponent is bounded because 2.0 ** 1100 overflows, and somebody's outage is that long.
        full = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 32))
        return full * (0.5 + chance / 2)


@dataclass(slots=True)
class Attempts:
    """The tries of one call, within one deadline.

    `deadline` is on the clock that `now` is read from, in seconds; infinity is none.
    """

    deadline: float
    repeatable: bool
    backoff: Backoff
    failures: int = 0

    def timeout_s(self, now: float) -> float | None:
        """Answer how long the next try may take; None is without end."""
        left = self.deadline - now
        return None if left == float("inf") else max(left, 0.0)

    def wait_s(self, error: TocsinError, now: float, chance: float) -> float:
        """Answer how long to wait before the next try; raises `error` when there is none."""
        self.failures += 1
        if not (self.repeatable and _may_pass(error)):
            raise error
        wait_s = max(self.backoff.wait_s(self.failures, chance), error.retry_after_s or 0.0)
        if now + wait_s >= self.deadline:
            raise error
        return wait_s


def _may_pass(error: TocsinError) -> bool:
    return error.code.name in _TRANSIENT or (error.code.name in _IF_ASKED and error.retry_after_s is not None)
