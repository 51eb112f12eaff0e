"""What the command line cannot mean, and how its commands end."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
UNAVAILABLE = 4
INTERRUPTED = 130

EXIT_CODES = """Exit codes: 0 done, 1 failed (or not confirmed, or some events refused), 2 the arguments cannot be
meant, 3 not found, 4 the server cannot be reached (the same again is safe), 130 interrupted."""
EPILOG = "For help regarding global flags, run --help on the root command"


class Unanswered(Exception):
    """No server is there; the message says where it was looked for, and why it is not."""


class Misuse(Exception):
    """A flag or an argument cannot be used; the message says which, why, and what it takes."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
