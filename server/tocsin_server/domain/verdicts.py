"""The one verdict table: what follows from an answer, or from none, whatever the kind of endpoint.

    verdict        attempt of the schedule   delivery                         health of the receiver
    DELIVERED      -                         DELIVERED                        HEALTHY: one success resets
    RETRY          used                      RETRYING, on schedule            counts; FAILING after five in a row
    THROTTLED      not used                  RETRYING, when it may again      THROTTLED, the whole configuration
    PERMANENT      used                      EXHAUSTED                        counts, but it can be reached
    CONFIGURATION  not used once it holds    PAUSED                           FAILING, one probe an hour
    GONE           used                      CANCELLED, and what waits        DISABLED
    OUTAGE         not used                  RETRYING, soon                   untouched: it is our own fault

Kinds of endpoints look an answer up here and never decide by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

SECOND_US = 1_000_000
NOT_FOUND_IN_A_ROW = 3  # some hide what one may not see behind a 404, some are only being deployed


class Verdict(StrEnum):
    """How one attempt ended."""

    DELIVERED = "DELIVERED"
    RETRY = "RETRY"
    THROTTLED = "THROTTLED"
    PERMANENT = "PERMANENT"
    GONE = "GONE"
    CONFIGURATION = "CONFIGURATION"
    OUTAGE = "OUTAGE"


class ErrorClass(StrEnum):
    """What kind of thing went wrong in an attempt; documented in `notifications.proto`."""

    NONE = ""
    DNS_ERROR = "DNS_ERROR"
    DNS_UNAVAILABLE = "DNS_UNAVAILABLE"
    NETWORK_UNREACHABLE = "NETWORK_UNREACHABLE"
    CONNECTION_REFUSED = "CONNECTION_REFUSED"
    CONNECTION_RESET = "CONNECTION_RESET"
    CONNECTION_ERROR = "CONNECTION_ERROR"
    TIMEOUT = "TIMEOUT"
    TLS_ERROR = "TLS_ERROR"
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    BLOCKED_ADDRESS = "BLOCKED_ADDRESS"
    REDIRECT = "REDIRECT"
    REFUSED = "REFUSED"
    CREDENTIALS = "CREDENTIALS"
    NOT_FOUND = "NOT_FOUND"
    GONE = "GONE"
    THROTTLED = "THROTTLED"
    CLIENT_ERROR = "CLIENT_ERROR"
    SERVER_ERROR = "SERVER_ERROR"
    OVERLOADED = "OVERLOADED"
    RENDER = "RENDER"
    INTERRUPTED = "INTERRUPTED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table; `heeds_wait`: a Retry-After beside it says when the next attempt may come."""

    verdict: Verdict
    error_class: ErrorClass
    text: str = ""
    heeds_wait: bool = False


DELIVERED = Rule(Verdict.DELIVERED, ErrorClass.NONE)
REDIRECTED = Rule(Verdict.PERMANENT, ErrorClass.REDIRECT, "REDIRECT_NOT_FOLLOWED")
REFUSED = Rule(Verdict.PERMANENT, ErrorClass.REFUSED, "the receiver refuses this message")
CREDENTIALS = Rule(Verdict.CONFIGURATION, ErrorClass.CREDENTIALS, "the receiver does not accept the credentials")
NOT_FOUND = Rule(Verdict.CONFIGURATION, ErrorClass.NOT_FOUND, "the receiver does not know this address")
GONE = Rule(Verdict.GONE, ErrorClass.GONE, "the receiver is gone")
THROTTLED = Rule(Verdict.THROTTLED, ErrorClass.THROTTLED, "the receiver asks to wait", heeds_wait=True)
OVERLOADED = Rule(Verdict.RETRY, ErrorClass.OVERLOADED, "the receiver is overloaded", heeds_wait=True)
CLIENT_ERROR = Rule(Verdict.RETRY, ErrorClass.CLIENT_ERROR, "the receiver does not take the message")
SERVER_ERROR = Rule(Verdict.RETRY, ErrorClass.SERVER_ERROR, "the receiver failed", heeds_wait=True)
NO_HTTP = Rule(Verdict.RETRY, ErrorClass.PROTOCOL_ERROR, "the answer is no HTTP")

HTTP_STATUS: Mapping[int, Rule] = {
    400: REFUSED,
    401: CREDENTIALS,
    403: CREDENTIALS,
    404: NOT_FOUND,
    408: Rule(Verdict.RETRY, ErrorClass.TIMEOUT, "the receiver waited in vain for the message", heeds_wait=True),
    410: GONE,
    413: REFUSED,
    415: REFUSED,
    422: REFUSED,
    429: THROTTLED,
    502: OVERLOADED,
    504: OVERLOADED,
}
HTTP_CLASS: Mapping[int, Rule] = {2: DELIVERED, 3: REDIRECTED, 4: CLIENT_ERROR, 5: SERVER_ERROR}


class MailStage(StrEnum):
    """Where in a conversation with a mail server an answer comes; 0 instead of a code: it cannot be asked at all."""

    GREETING = "GREETING"
    LOGIN = "LOGIN"
    SENDER = "SENDER"
    RECIPIENT = "RECIPIENT"
    CONTENT = "CONTENT"


MAIL_LATER = Rule(Verdict.RETRY, ErrorClass.SERVER_ERROR, "the mail server does not take it now")
SENDER = Rule(Verdict.CONFIGURATION, ErrorClass.CREDENTIALS, "the mail server does not accept the sender")
NO_SERVICE = Rule(Verdict.RETRY, ErrorClass.SERVER_ERROR, "the mail server does not serve us")
NO_SMTP = Rule(Verdict.RETRY, ErrorClass.PROTOCOL_ERROR, "the answer is no SMTP")

SMTP_CODE: Mapping[int, Rule] = {
    421: OVERLOADED,
    530: CREDENTIALS,
    534: CREDENTIALS,
    535: CREDENTIALS,
    538: CREDENTIALS,
}
SMTP_AT: Mapping[tuple[MailStage, int], Rule] = {
    (MailStage.LOGIN, 0): CREDENTIALS,
    (MailStage.SENDER, 552): REFUSED,  # the mail is too large
    (MailStage.RECIPIENT, 552): MAIL_LATER,  # too many recipients, or a full mailbox: RFC 5321, 4.5.3.1.10
}
SMTP_FINAL: Mapping[MailStage, Rule] = {
    MailStage.GREETING: NO_SERVICE,
    MailStage.LOGIN: CREDENTIALS,
    MailStage.SENDER: SENDER,
    MailStage.RECIPIENT: REFUSED,
    MailStage.CONTENT: REFUSED,
}

# Faults of this server and of its network: nobody else's, so they use up nothing and blame nobody.
OWN_FAULTS = frozenset((ErrorClass.DNS_UNAVAILABLE, ErrorClass.NETWORK_UNREACHABLE, ErrorClass.INTERNAL))


def rule_of_http(status: int, headers: Mapping[str, str]) -> Rule:
    """Find the row of an HTTP answer; header names are in lower case."""
    if status == 403 and _limits(headers):
        return THROTTLED
    return HTTP_STATUS.get(status) or HTTP_CLASS.get(status // 100, NO_HTTP)


def rule_of_smtp(stage: MailStage, code: int) -> Rule:
    """Find the row of a mail server's answer."""
    found = SMTP_AT.get((stage, code)) or SMTP_CODE.get(code)
    if found is not None:
        return found
    by_class = {2: DELIVERED, 4: MAIL_LATER, 5: SMTP_FINAL[stage]}
    return by_class.get(code // 100, NO_SMTP)


def verdict_of_fault(error_class: ErrorClass) -> Verdict:
    """Judge an attempt that had no answer."""
    return Verdict.OUTAGE if error_class in OWN_FAULTS else Verdict.RETRY


def _limits(headers: Mapping[str, str]) -> bool:
    """Tell whether an answer speaks of a limit on requests."""
    return "retry-after" in headers or headers.get("x-ratelimit-remaining", "").strip() == "0"


def wait_asked(headers: Mapping[str, str], now: int) -> float | None:
    """Read how many seconds a receiver asks to wait; None when it does not say, or says what makes no sense."""
    text = headers.get("retry-after", "").strip()
    if text:
        return _wait_of(text, now)
    reset = headers.get("x-ratelimit-reset", "").strip()
    if headers.get("x-ratelimit-remaining", "").strip() == "0" and _is_number(reset):
        return max(float(reset) - now / SECOND_US, 0.0)
    return None


def _wait_of(text: str, now: int) -> float | None:
    if _is_number(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        # A date without a zone is UTC, as HTTP has it.
        aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        wait = aware - datetime.fromtimestamp(now / SECOND_US, UTC)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(wait.total_seconds(), 0.0)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 12
