"""Files of YAML or JSON (which is YAML), and the messages that they describe.

They have the fields that `-o json` prints, with bare words for enums; what only the server sets is passed over,
so that what was printed can be changed and given back.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from tocsin.cli.drafting import Unreadable, event_of_data
from tocsin.cli.misuse import Misuse
from tocsin.v1.annotations_pb2 import bound
from tocsin.v1.event_log_pb2 import Event

_TEXT_MAX = 1_048_576
_Made = TypeVar("_Made", bound=Message)


def read(where: str, path: str) -> dict[str, Any]:
    """Read a file, or standard input where it is -. Raises Misuse."""
    try:
        text = _text(path)
        if len(text) > _TEXT_MAX:
            raise Misuse(where, f"{path} is longer than {_TEXT_MAX} characters")
        data = yaml.safe_load(text)
    except OSError as error:
        raise Misuse(where, f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Misuse(where, f"{path} is no YAML or JSON: {error}") from None
    except yaml.YAMLError as error:
        raise Misuse(where, f"{path} is no YAML or JSON: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise Misuse(where, f"{path} has no fields: give a mapping in YAML or JSON")
    return data


def _text(path: str) -> str:
    if path == "-":
        return sys.stdin.read(_TEXT_MAX + 1)
    with Path(path).open(encoding="utf-8") as file:
        return file.read(_TEXT_MAX + 1)


def event(where: str, path: str) -> Event:
    """Read an event. Raises Misuse."""
    try:
        return event_of_data(read(where, path))
    except Unreadable as error:
        raise Misuse(where, f"{path}: {error}") from None


def message(where: str, kind: type[_Made], data: dict[str, Any]) -> _Made:
    """Make a message of plain data. Raises Misuse, which names the field."""
    try:
        return ParseDict(_contract(kind.DESCRIPTOR, data), kind())
    except (ParseError, RecursionError) as error:
        raise Misuse(where, " ".join(str(error).split())) from None


def _contract(kind: Any, data: Any) -> Any:
    """Answer data as the JSON of the contract has it: names of enums in full, times as text."""
    if not isinstance(data, dict) or kind.full_name.startswith("google.protobuf."):
        return _plain(data)
    found = {}
    for name, value in data.items():
        field = kind.fields_by_name.get(name) or kind.fields_by_camelcase_name.get(name)
        if field is None or not field.GetOptions().Extensions[bound].output_only:
            found[str(name)] = _plain(value) if field is None else _field(field, value)
    return found


def _field(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, list):
        return [_field(field, item) for item in value]
    if field.enum_type is not None and isinstance(value, str):
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return prefix + value.upper().removeprefix(prefix)
    if field.message_type is not None and not field.message_type.GetOptions().map_entry:
        return _contract(field.message_type, value)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00Z"
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
