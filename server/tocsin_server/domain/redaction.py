"""Which parts of an event are secrets that a client let slip: they are replaced before it is stored.

Values under keys that name secrets, and the user-info of URLs in texts. Of a key only small letters and
digits count, and its end decides: `password`, `db-password`, `X-Api-Key` and `apiKey` name secrets,
`password_length` does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "****"
_URL_USER = re.compile(r"(?<=://)[^\s/?#@]+@")
_IGNORED = re.compile(r"[^a-z0-9]+")


class SecretKeys:
    """The names of secrets, such as `api_key`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(letters for name in names if (letters := _letters(name)))

    def names(self, key: str) -> bool:
        """Tell whether a key names a secret."""
        return _letters(key).endswith(self._names)


def _letters(key: str) -> str:
    return _IGNORED.sub("", key.lower())


def without_user(text: str) -> str:
    """Give a text with the user-info of its URLs replaced."""
    return _URL_USER.sub(f"{MASK}@", text) if "://" in text else text
