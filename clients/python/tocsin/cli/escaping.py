"""Text of others, made safe for a terminal: what could move, hide or reorder other text is shown escaped. Pure."""

from __future__ import annotations

import unicodedata

# Joiners and the soft hyphen belong to how words and emoji are written, and reorder nothing.
_HARMLESS = {"\u200c", "\u200d", "\u00ad"}
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def escaped(text: str, *, lines: bool = False) -> str:
    """Show control characters, ANSI escapes, bidirectional overrides and the like as `\\x1b` or `\\u202e`.

    With `lines` a newline stays one.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, lines) for character in text)


def json_escaped(text: str) -> str:
    """The same for JSON that is already encoded: what is written stays valid and means the same."""
    return "".join(_json(character) if _is_unsafe(character) and character != "\n" else character for character in text)


def _shown(character: str, lines: bool) -> str:
    if not _is_unsafe(character) or (lines and character == "\n"):
        return character
    if character in _NAMED:
        return _NAMED[character]
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _is_unsafe(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _HARMLESS


def _json(character: str) -> str:
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    high, low = divmod(number - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
