"""Attempts to send, in lines that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

from tocsin.cli import choices
from tocsin.cli.escaping import escaped
from tocsin.cli.rendering import time_text
from tocsin.v1 import notifications_pb2 as pb

_WIDTH = 100  # of lines where the output is no terminal
_INDENT = "     "


def answer_text(status_code: int, error_class: int) -> str:
    """Answer what a receiver said or what went wrong, in a word or two."""
    error = choices.word(pb.ErrorClass, error_class).lower() if error_class else ""
    return " ".join(part for part in (str(status_code) if status_code else "", error) if part)


def attempt_lines(attempt: pb.Attempt, width: int | None) -> list[str]:
    """Answer an attempt: when, how it ended, how long it took; below it, what went wrong and the answer."""
    verdict = choices.word(pb.Verdict, attempt.verdict) if attempt.verdict else "UNDER WAY"
    parts = [time_text(attempt.started_at), verdict, answer_text(attempt.status_code, attempt.error_class)]
    if attempt.HasField("duration"):
        parts.append(f"{attempt.duration.ToMilliseconds()} ms")
    found = _folded(f"{attempt.number:>3}  " + "  ".join(filter(None, parts)), width)
    if attempt.error:
        found += _folded(f"error: {attempt.error}", width, _INDENT)
    if attempt.response_excerpt:
        found += _folded(f"answer: {attempt.response_excerpt}", width, _INDENT)
    if attempt.HasField("next_attempt_at"):
        found += _folded(f"next attempt: {time_text(attempt.next_attempt_at)}", width, _INDENT)
    return found


def recipient_lines(recipients: Iterable[pb.RecipientVerdict], width: int | None) -> list[str]:
    """Answer each receiver's own verdict."""
    found = []
    for one in recipients:
        verdict = choices.word(pb.Verdict, one.verdict) if one.verdict else "WAITS"
        answer = " ".join(part for part in (str(one.status_code or ""), one.response_excerpt) if part)
        found += _folded("  ".join(filter(None, (one.recipient, verdict, answer))), width, "  ")
    return found


def _folded(text: str, width: int | None, indent: str = "") -> list[str]:
    """Fold a text to the terminal; what does not belong on it is escaped."""
    below = indent + "  " if indent else _INDENT
    room = max(width or _WIDTH, len(below) + 20)
    return wrap(escaped(text), room, initial_indent=indent, subsequent_indent=below, break_on_hyphens=False)
