"""What went wrong, in one line: the reason, the field, and what to do."""

from __future__ import annotations

import sys
from typing import Any

import grpc

from tocsin.cli.escaping import escaped
from tocsin.cli.misuse import FAILED, NOT_FOUND, UNAVAILABLE, USAGE
from tocsin.errors import (
    Aborted,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    LogChanged,
    NotFound,
    PermissionDenied,
    PositionExpired,
    TocsinError,
    Unauthenticated,
    Unavailable,
)

_ADVICE: tuple[tuple[type[TocsinError], str], ...] = (
    (NotFound, "the list command shows what is there"),
    (Unauthenticated, "give a valid key with --api-key (TOCSIN_API_KEY)"),
    (PermissionDenied, "ask for a role that permits it, or use another key or --account"),
    (LogChanged, "the store was restored: start with --beginning or --since"),
    (PositionExpired, "start with --beginning"),
    (DeadlineExceeded, "try again, or give more time with --timeout"),
    (Aborted, "the same again is safe"),
    (InternalError, "look the incident up in the server's log"),
)


def of_server(error: TocsinError) -> str:
    """Answer the line about an error of a call."""
    text = str(error)
    if isinstance(error, Unavailable) and not error.reason:
        text += "; is the server running? Its address is --address (TOCSIN_ADDRESS)"
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            text += f"; {advice}"
            break
    return text


def exit_code(error: TocsinError) -> int:
    """Answer how a command ends after an error of a call."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, InvalidRequest):
        return USAGE
    if isinstance(error, Unavailable | DeadlineExceeded) or error.code is grpc.StatusCode.UNAVAILABLE:
        return UNAVAILABLE
    return FAILED


def of_usage(error: Any) -> str:
    """Answer the line about words that are no command, flag or value."""
    text = str(error.format_message())
    context = getattr(error, "ctx", None)
    return f'{text} See "{context.command_path} --help".' if context is not None else text


def complain(text: str, code: int) -> int:
    """Print the line; answers the exit code."""
    line = escaped(" ".join(text.split()))
    print(f"tocsin: {line}", file=sys.stderr)
    return code
