"""Who calls, for which account, under which ids.

Until accounts and keys arrive only `--dev` serves: the caller is the account `admin`, and
`x-tocsin-account` lets it act for another. While it does, that account decides: what only an admin
may do is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tocsin_server.domain.errors import Reason, TocsinError, permission_denied

ADMIN = "admin"
ACCOUNT = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,256}")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
ECHOED = ("x-request-id", "x-correlation-id", "traceparent")
READ = (*ECHOED, "x-tocsin-account", "accept-language")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls and under which ids; what was not given is empty."""

    account: str
    user: str
    acting_for: bool
    request_id: str = ""
    correlation_id: str = ""
    traceparent: str = ""
    accept_language: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether this is the account `admin`, acting for itself."""
        return self.account == ADMIN and not self.acting_for

    def require_admin(self, act: str) -> None:
        """Refuse what only the account `admin`, acting for itself, may do."""
        if not self.is_admin:
            raise permission_denied(f"{act} is for the account {ADMIN!r} acting for itself")


ANYBODY = Caller(ADMIN, ADMIN, False)


def caller_of(metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
    """Read the caller from a call's metadata."""
    given: dict[str, str] = {}
    for key, value in metadata:
        if key in READ:
            given[key] = value if isinstance(value, str) else value.decode("ascii", "replace")
    if not given:
        return ANYBODY
    account = given.get("x-tocsin-account", "")
    if account and ACCOUNT.fullmatch(account) is None:
        raise _malformed("x-tocsin-account", "1 to 63 of [a-z0-9_-], beginning and ending with a letter or digit")
    for key in ("x-request-id", "x-correlation-id"):
        if key in given and REQUEST_ID.fullmatch(given[key]) is None:
            raise _malformed(key, "1 to 256 printable characters")
    if "traceparent" in given and TRACEPARENT.fullmatch(given["traceparent"]) is None:
        raise _malformed("traceparent", "a W3C trace context")
    return Caller(
        account=account or ADMIN,
        user=ADMIN,
        acting_for=bool(account) and account != ADMIN,
        request_id=given.get("x-request-id", ""),
        correlation_id=given.get("x-correlation-id", ""),
        traceparent=given.get("traceparent", ""),
        accept_language=given.get("accept-language", ""),
    )


def _malformed(header: str, wanted: str) -> TocsinError:
    return TocsinError(Reason.INVALID_METADATA, f"{header} is malformed: {wanted}", metadata={"header": header})
