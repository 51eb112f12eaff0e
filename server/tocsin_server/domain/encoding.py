"""Pieces of the protobuf encoding that the hot paths write by hand; tests compare them with the library's."""

from __future__ import annotations

SECOND_US = 1_000_000


def varint(number: int) -> bytes:
    """Encode a number that is not negative."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def varint_at(encoded: bytes, start: int) -> tuple[int, int]:
    """Decode a number; give it and where it ends. ValueError beyond 64 bits, IndexError where the bytes end."""
    number = shift = 0
    while True:
        byte = encoded[start]
        start += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, start
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def wire_bytes(tag: bytes, body: bytes) -> bytes:
    """Encode a length-delimited field."""
    return tag + varint(len(body)) + body


def wire_text(tag: bytes, text: str) -> bytes:
    """Encode a string field."""
    return wire_bytes(tag, text.encode())


def wire_timestamp(tag: bytes, micros: int) -> bytes:
    """Encode a field of type google.protobuf.Timestamp."""
    seconds, rest = divmod(micros, SECOND_US)
    return wire_bytes(tag, b"\x08" + varint(seconds) + (b"\x10" + varint(rest * 1000) if rest else b""))
