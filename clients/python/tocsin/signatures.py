"""Signatures of webhooks, as Standard Webhooks has them, checked by who receives them. Pure: the time is given."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

_PREFIX = "whsec_"
_TOLERANCE = timedelta(minutes=5)  # as the specification recommends; it bounds how long a copy can be replayed


class WebhookRefused(ValueError):
    """A message that cannot be trusted; the text says why."""


def signing_key(secret: str) -> bytes:
    """Read a secret, `whsec_` and base64. Raises ValueError, which does not repeat it."""
    if not secret.startswith(_PREFIX):
        raise ValueError(f"a secret begins with {_PREFIX}")
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:  # binascii's own is one of these
        raise ValueError(f"a secret is base64 after {_PREFIX}") from None


def verify_webhook(
    secrets: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime | None = None,
    tolerance: timedelta = _TOLERANCE,
) -> str:
    """Check the `v1` signature of a message; answers its id, which is the same in every attempt of a delivery.

    One of the secrets has to have signed it. Names of headers may be in any case, `body` is as it came. Raises
    WebhookRefused, or ValueError for a secret that is none.
    """
    keys = [signing_key(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    found = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not found.get(name)]
    if missing:
        raise WebhookRefused(f"it has no {', '.join(missing)}")
    id, stamp = found["webhook-id"], found["webhook-timestamp"]
    _judge_age(stamp, now or datetime.now(UTC), tolerance)
    signed = b".".join((id.encode(), stamp.encode(), body))
    expected = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    given = [word.removeprefix("v1,").encode() for word in found["webhook-signature"].split() if word.startswith("v1,")]
    if not given:
        raise WebhookRefused("it has no signature of version v1")
    if not any([hmac.compare_digest(one, other) for one in expected for other in given]):
        raise WebhookRefused("its signature is of another secret, or its content was changed")
    return id


def _judge_age(stamp: str, now: datetime, tolerance: timedelta) -> None:
    try:
        age = now - datetime.fromtimestamp(int(stamp), UTC)
    except (ValueError, OverflowError, OSError):
        raise WebhookRefused(f"its timestamp {stamp[:40]!r} is no time") from None
    if abs(age) > tolerance:
        late = "old" if age > timedelta() else "from the future"
        raise WebhookRefused(f"it is {late}: sent {abs(age.total_seconds()):.0f} s away from now")
