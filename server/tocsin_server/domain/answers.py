"""From what a receiver answered to the outcome of the attempt, by the table of `verdicts.py`."""

from __future__ import annotations

from collections.abc import Mapping

from tocsin_server.domain.notifications import EXCERPT_BYTES_MAX, Outcome
from tocsin_server.domain.verdicts import (
    ErrorClass,
    MailStage,
    Verdict,
    rule_of_http,
    rule_of_smtp,
    verdict_of_fault,
    wait_asked,
)

LOCATION_SHOWN = 256


def of_http(status: int, headers: Mapping[str, str], excerpt: str, now: int) -> Outcome:
    """Judge an HTTP answer; header names are in lower case."""
    rule = rule_of_http(status, headers)
    error = rule.text
    if rule.error_class is ErrorClass.REDIRECT:
        error = f"{rule.text}: {headers.get('location', '')[:LOCATION_SHOWN]}"
    elif error:
        error = f"{rule.text}: it answered {status}"
    return Outcome(
        rule.verdict,
        status,
        excerpt,
        error,
        wait_asked(headers, now) if rule.heeds_wait else None,
        error_class=rule.error_class,
    )


def of_smtp(stage: MailStage, code: int, text: str) -> Outcome:
    """Judge a mail server's answer."""
    rule = rule_of_smtp(stage, code)
    answered = code > 0
    error = f"{rule.text}: {f'it answered {code}' if answered else text}" if rule.text else ""
    excerpt = text[:EXCERPT_BYTES_MAX] if answered else ""
    return Outcome(rule.verdict, max(code, 0), excerpt, error, error_class=rule.error_class)


def of_no_answer(error_class: ErrorClass, text: str) -> Outcome:
    """Judge an attempt that ended without an answer."""
    return Outcome(verdict_of_fault(error_class), error=f"{error_class}: {text}"[:1024], error_class=error_class)


def unmade(text: str) -> Outcome:
    """Say that the message could not be made: no repeat changes that."""
    return Outcome(Verdict.PERMANENT, error=f"RENDER: {text}"[:1024], reason="RENDER", error_class=ErrorClass.RENDER)
