"""One look through the encoded `details` of an event: may it be stored as it is, and is a secret in it?

On the hot path of every append, so each byte is taken once and the usual kinds are looked at where they
stand. The encoding is that of this server's own library: a value has its kind and nothing else. What
looks otherwise is suspect, and is then walked in its decoded form, which names the field. Nothing is
missed: every value and every key is looked at.
"""

from __future__ import annotations

from tocsin_server.domain.encoding import varint_at
from tocsin_server.domain.redaction import SecretKeys

CLEAR, SECRET, SUSPECT = 0, 1, 2  # what a look finds; the greatest counts
# Fields of google.protobuf.Value: (number << 3 | wire type).
NULL, NUMBER, STRING, BOOL, STRUCT, LIST = 0x08, 0x11, 0x1A, 0x20, 0x2A, 0x32
WORD_BYTES = 2  # null or a bool, with its tag
NUMBER_BYTES = 9  # a number, with its tag
# The last two bytes of infinities and NaN, but for the sign: all bits of the exponent are set.
EXPONENT_HIGH, EXPONENT_LOW = 0x7F, 0xF0
SHORT_MAX = 0x7F  # the longest that a length of one byte can say
LEVELS_MAX = 30  # below the bound of 32: what comes close to it is walked
KEYS_MAX = 4096  # keys that are remembered as harmless


class DetailsLook:
    """Looks through encoded values of `google.protobuf.Value`."""

    def __init__(self, keys: SecretKeys) -> None:
        self._names_secret = keys.names
        self._harmless: set[bytes] = set()

    def look(self, encoded: bytes) -> int:
        """Give CLEAR, SECRET (a key names one) or SUSPECT (something cannot be stored, or is unusual)."""
        return self._value(encoded, 0, len(encoded), LEVELS_MAX)

    def _value(self, encoded: bytes, start: int, stop: int, levels: int) -> int:
        tag = encoded[start] if start < stop else 0  # 0: a value of no kind
        if tag in (STRUCT, LIST) and levels:
            size, start = encoded[start + 1], start + 2
            if size > SHORT_MAX:
                size, start = varint_at(encoded, start - 1)
            return self._items(encoded, start, stop, levels - 1, tag == STRUCT) if start + size == stop else SUSPECT
        if tag == STRING:
            return SUSPECT if encoded.find(0, start + 2, stop) >= 0 else CLEAR
        if tag == NUMBER:
            is_finite = encoded[stop - 1] & 0x7F != EXPONENT_HIGH or encoded[stop - 2] < EXPONENT_LOW
            return CLEAR if stop - start == NUMBER_BYTES and is_finite else SUSPECT
        return CLEAR if tag in (NULL, BOOL) and stop - start == WORD_BYTES else SUSPECT

    def _items(self, encoded: bytes, start: int, stop: int, levels: int, have_keys: bool) -> int:
        """Look at the values of a list, or at the keys and values of a structure."""
        found, harmless, find = CLEAR, self._harmless, encoded.find
        while start < stop:
            size, start = encoded[start + 1], start + 2
            if size > SHORT_MAX:
                size, start = varint_at(encoded, start - 1)
            end = start + size
            if have_keys:
                if encoded[start + 1] > SHORT_MAX:
                    return SUSPECT  # a key so long is rare
                value = start + 2 + encoded[start + 1]
                name = encoded[start + 2 : value]
                if name not in harmless and (found := max(found, self._meaning(name))) == SUSPECT:
                    return SUSPECT
                start = value + 2
                if encoded[value + 1] > SHORT_MAX:
                    start = varint_at(encoded, value + 1)[1]
            tag = encoded[start] if start < end else 0
            if tag == STRING:
                if find(0, start + 2, end) >= 0:  # behind the length, or its first byte: the others are not 0
                    return SUSPECT
            elif tag != NUMBER or (encoded[end - 1] & 0x7F == EXPONENT_HIGH and encoded[end - 2] >= EXPONENT_LOW):
                found = max(found, self._value(encoded, start, end, levels))
                if found == SUSPECT:
                    return SUSPECT
            start = end
        return found

    def _meaning(self, name: bytes) -> int:
        if b"\0" in name:
            return SUSPECT
        if self._names_secret(name.decode()):
            return SECRET
        if len(self._harmless) < KEYS_MAX:
            self._harmless.add(name)
        return CLEAR
