"""What went wrong, in one line: the reason, the field, and what to do."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import tocsin
from tocsin.cli.escaping import escaped
from tocsin.cli.misuse import FAILED, NOT_FOUND, UNAVAILABLE, USAGE

if TYPE_CHECKING:  # gRPC is loaded by the first call, not by --help
    from tocsin.errors import TocsinError

# By the name of the error.
_ADVICE: tuple[tuple[str, str], ...] = (
    ("NotFound", "the list command shows what is there"),
    ("Unauthenticated", "give a valid key with --api-key (TOCSIN_API_KEY)"),
    ("PermissionDenied", "ask for a role that permits it, or use another key or --account"),
    ("LogChanged", "the store was restored: start with --beginning or --since"),
    ("PositionExpired", "start with --beginning"),
    ("DeadlineExceeded", "try again, or give more time with --timeout"),
    ("Aborted", "the same again is safe"),
    ("InternalError", "look the incident up in the server's log"),
)

# What gRPC says of a connection, in the words of who has to mend it.
_CAUSES = (
    ("Connection refused", "connection refused"),
    ("DNS|Name or service not known|Domain name not found", "its name is not known"),
    ("(?i)ssl|tls|handshake|certificate", "the protection does not match, see --tls and --tls-roots"),
    ("(?i)socket closed|connection reset|broken pipe|recvmsg|goaway|stream removed", "the connection broke"),
    ("(?i)timed out|timeout|deadline", "no answer in time"),
    ("No route to host|unreachable", "there is no way to it"),
)

# What the library says of values, in our words.
_VALUES = (
    (r"Input should be greater than or equal to (\S+)", r"give \1 or more"),
    (r"Input should be less than or equal to (\S+)", r"give \1 or less"),
    (r"Input should be a valid integer.*", "give a whole number"),
    (r"Input should be a valid number.*", "give a number"),
    (r"Input should be a valid boolean.*", "give true or false"),
    (r"Value error, (.*)", r"\1"),
)


def cause(message: str) -> str:
    """Answer why a server is away, from what gRPC says."""
    return next((text for sign, text in _CAUSES if re.search(sign, message)), message)


def of_nobody(address: str, message: str) -> str:
    """Answer the line about a server that is not there."""
    found = f"no server answers at {address} ({cause(message)})"
    return f"{found}; is the server running? Give its address with --address (TOCSIN_ADDRESS)"


def of_server(error: TocsinError) -> str:
    """Answer the line about an error of a call."""
    text = str(error)
    for kind, advice in _ADVICE:
        if isinstance(error, getattr(tocsin, kind)):
            text += f"; {advice}"
            break
    return text


def exit_code(error: TocsinError) -> int:
    """Answer how a command ends after an error of a call."""
    if isinstance(error, tocsin.NotFound):
        return NOT_FOUND
    if isinstance(error, tocsin.InvalidRequest):
        return USAGE
    if isinstance(error, tocsin.Unavailable | tocsin.DeadlineExceeded) or error.code.name == "UNAVAILABLE":
        return UNAVAILABLE
    return FAILED


def of_usage(error: Any) -> str:
    """Answer the line about words that are no command, flag or value."""
    parameter = getattr(error, "param", None)
    if parameter is not None and error.message:
        name = max(parameter.opts, key=len)
        text = f"{name if name.startswith('-') else parameter.metavar or name.upper()}: {_in_our_words(error.message)}"
    else:
        text = str(error.format_message())
    context = getattr(error, "ctx", None)
    hint = f' See "{context.command_path} --help".' if context is not None else ""
    return f"{text.rstrip('.')}.{hint}"


def _in_our_words(message: str) -> str:
    for theirs, ours in _VALUES:
        if found := re.fullmatch(theirs, message.rstrip(".")):
            return found.expand(ours)
    return message


def complain(text: str, code: int) -> int:
    """Print the line; answers the exit code."""
    line = escaped(" ".join(text.split()))
    print(f"tocsin: {line}", file=sys.stderr)
    return code
