"""What callers give, checked before it meets protobuf: a refusal names the argument and what it takes.

TypeError is for what is of another kind, ValueError for one of the right kind that means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from tocsin.values import to_struct, to_timestamp, to_value

_Number_co = TypeVar("_Number_co", covariant=True)
_Part = TypeVar("_Part", bound=Message)


class Enum(Protocol[_Number_co]):
    """An enum of the contract."""

    def keys(self) -> list[str]:
        """Answer the names of the members; the first is the unspecified one."""
        ...

    def Value(self, name: str) -> _Number_co:
        """Answer the number of a member."""
        ...


def text(argument: str, given: object) -> str:
    """Take a string."""
    if not isinstance(given, str):
        raise TypeError(f"{argument} is a string, not {given!r}")
    return given


def strings(argument: str, given: object) -> list[str]:
    """Take strings. A single one is refused: it would be taken for the list of its letters."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{argument} is a list of strings, not {given!r}")
    return [text(f"each of {argument}", item) for item in given]


def texts(argument: str, given: object) -> dict[str, str]:
    """Take a mapping of strings to strings."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} is a mapping of strings to strings, not {given!r}")
    return {text(f"each key of {argument}", key): text(f"{argument}[{key!r}]", item) for key, item in given.items()}


def member(argument: str, enum: Enum[_Number_co], given: object) -> _Number_co:
    """Take a member of an enum by its word, in any case."""
    unspecified, *names = enum.keys()
    prefix = unspecified.removesuffix("UNSPECIFIED")
    name = prefix + given.upper() if isinstance(given, str) else ""
    if name in names or name == unspecified:
        return enum.Value(name)
    allowed = ", ".join(f'"{found.removeprefix(prefix).lower()}"' for found in names)
    kind = ValueError if isinstance(given, str) else TypeError
    raise kind(f"{argument} is one of {allowed}, not {given!r}")


def part(argument: str, kind: type[_Part], given: object) -> _Part:
    """Take a message whose fields are strings, ready or as a mapping."""
    if isinstance(given, kind):
        return given
    names = list(kind.DESCRIPTOR.fields_by_name)
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} is a mapping with {', '.join(names)}, not {given!r}")
    if unknown := [repr(name) for name in given if name not in names]:
        raise ValueError(f"{argument} has no {', '.join(unknown)}: it takes {', '.join(names)}")
    made = kind()
    for name, item in given.items():
        setattr(made, name, text(f"{argument}[{name!r}]", item))
    return made


def moment(argument: str, given: object) -> Timestamp:
    """Take a point in time."""
    if not isinstance(given, datetime):
        raise TypeError(f"{argument} is a datetime with a time zone, not {given!r}")
    try:
        return to_timestamp(given)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from None


def value(argument: str, given: object) -> Value:
    """Take JSON-like data."""
    try:
        return to_value(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from None


def struct(argument: str, given: object) -> Struct:
    """Take a JSON-like mapping."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} is a mapping, not {given!r}")
    try:
        return to_struct(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from None
