"""The JSON Schema of an event type's payload: which schemas are taken, and checking details against one.

A schema comes from a user, so it is bounded like any other input: draft 2020-12, nothing is fetched,
patterns are RE2, and a check ends after a fixed number of steps however schema and details are made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

import re2
from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry

from tocsin_server.domain.errors import Violation
from tocsin_server.domain.patterns import fault, pattern

STEPS_MAX = 20_000  # keywords looked at by one check: at most about a tenth of a second
VIOLATIONS_MAX = 20  # of one event
SHOWN_MAX = 200  # characters of a keyword that a violation shows
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFUSED = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "patternProperties",
           "unevaluatedProperties", "unevaluatedItems")  # fmt: skip
# What stands below these is named by the user, or is data: no keyword.
NAMED = frozenset({"properties", "$defs", "dependentSchemas", "definitions"})
DATA = frozenset({"const", "enum", "default", "examples", "required", "dependentRequired", "type"})

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class _Spent(Exception):
    """The steps of a check are used up."""


@dataclass(slots=True)
class _Steps:
    left: int = STEPS_MAX


class PayloadSchema:
    """A compiled schema. Not for several threads at once."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._steps = _Steps()
        keywords = {name: _counted(check, self._steps) for name, check in Draft202012Validator.VALIDATORS.items()}
        keywords |= {"pattern": _counted(_pattern, self._steps), "uniqueItems": _counted(_unique_items, self._steps)}
        extend: Any = validators.extend
        made = extend(Draft202012Validator, keywords)
        self._validator = made(schema, registry=Registry())  # an empty registry: nothing is fetched

    def violations(self, details: Any, path: str) -> list[Violation]:
        """Tell where details do not meet the schema; nothing of the details is quoted: they may hold secrets."""
        self._steps.left = STEPS_MAX
        found: list[Violation] = []
        try:
            for error in self._validator.iter_errors(details):
                found.append(Violation(path + error.json_path[1:], _description(error)))
                if len(found) == VIOLATIONS_MAX:
                    break
        except (_Spent, RecursionError, OverflowError):
            return [Violation(path, f"cannot be checked against the schema in {STEPS_MAX} steps")]
        return sorted(found, key=lambda violation: violation.path)


@lru_cache(maxsize=4096)
def payload_schema(text: str) -> PayloadSchema:
    """Compile a schema, given as JSON."""
    return PayloadSchema(json.loads(text))


def schema_violations(schema: Mapping[str, Any], path: str) -> list[Violation]:
    """Tell why a schema cannot be used."""
    meta = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    errors = sorted(meta.iter_errors(schema), key=lambda error: error.json_path)
    if errors:
        return [Violation(path + e.json_path[1:], _description(e)) for e in errors[:VIOLATIONS_MAX]]
    if schema.get("$schema", DIALECT) != DIALECT:
        return [Violation(f'{path}["$schema"]', f"only {DIALECT} is known")]
    return list(_keyword_violations(schema, schema, path))


def _keyword_violations(schema: Any, root: Mapping[str, Any], path: str) -> Iterator[Violation]:
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        for index, below in enumerate(schema):
            yield from _keyword_violations(below, root, f"{path}[{index}]")
    if not isinstance(schema, Mapping):
        return
    for name, value in schema.items():
        where = f"{path}.{name}"
        if name in REFUSED:
            yield Violation(where, "is not offered")
        elif name == "$ref" and not _resolves(root, value):
            yield Violation(where, "leads to no place in this schema: only `#` and `#/...` can be given")
        elif name == "pattern":
            yield from _pattern_violations(value, where)
        elif name in NAMED:
            for key, below in value.items():
                yield from _keyword_violations(below, root, f"{where}.{key}")
        elif name not in DATA:
            yield from _keyword_violations(value, root, where)


def _pattern_violations(text: str, path: str) -> Iterator[Violation]:
    try:
        pattern(text)
    except re2.error as error:
        yield Violation(path, f"is no RE2 expression: {fault(error)}")


def _resolves(root: Any, ref: str) -> bool:
    """Tell whether a reference leads to a schema of the same document."""
    if ref == "#":
        return True
    if not ref.startswith("#/"):
        return False
    place = root
    for part in unquote(ref[2:]).split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping) and key in place:
            place = place[key]
        elif isinstance(place, Sequence) and not isinstance(place, str) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        else:
            return False
    return isinstance(place, Mapping | bool)


def _counted(check: Keyword, steps: _Steps) -> Keyword:
    """Count each look at a keyword, and stop when there were too many."""

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        steps.left -= 1
        if steps.left < 0:
            raise _Spent
        yield from check(validator, value, instance, schema) or ()

    return counted


def _pattern(validator: Any, text: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and pattern(text).search(instance) is None:
        yield ValidationError("does not match")


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Compare by text: the library compares each entry with each other one."""
    if not wanted or not validator.is_type(instance, "array"):
        return
    if len({json.dumps(entry, sort_keys=True) for entry in instance}) < len(instance):
        yield ValidationError("has equal entries")


def _description(error: ValidationError) -> str:
    keyword, wanted = str(error.validator), cast(Any, error.validator_value)
    if keyword == "required" and isinstance(error.instance, Mapping):
        missing = [name for name in wanted if name not in error.instance]
        return f"lacks {', '.join(missing)}"[:SHOWN_MAX]
    if keyword == "additionalProperties":
        return "has properties that the schema does not know"
    if keyword == "None":
        return "is refused by the schema"
    return f"does not meet {keyword}: {json.dumps(wanted)}"[:SHOWN_MAX]
