"""Regular expressions of users: RE2, linear in the text, and bounded in what they take to compile."""

from __future__ import annotations

from functools import lru_cache

import re2

PATTERN_BYTES_MAX = 1 << 16  # memory of one compiled expression

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = PATTERN_BYTES_MAX


@lru_cache(maxsize=1024)
def pattern(text: str) -> re2._Regexp[str]:
    """Compile an expression; re2.error says what is wrong with it."""
    return re2.compile(text, _OPTIONS)


def program_size(text: str) -> int:
    """Give the instructions of the compiled expression; re2.error says what is wrong with it."""
    return int(pattern(text).programsize)


def fault(error: re2.error) -> str:
    """Say what is wrong with an expression: the library says it in bytes."""
    reason = error.args[0] if error.args else "unknown"
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
