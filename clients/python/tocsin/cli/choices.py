"""Words of the contract's enums as values of flags: read, completed, shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tocsin.cli.misuse import Misuse


def words(enum: Any) -> list[str]:
    """Answer the words of an enum of the contract, in lower case, without the unspecified one."""
    unspecified, *names = enum.keys()
    prefix = unspecified.removesuffix("UNSPECIFIED")
    return [name.removeprefix(prefix).lower() for name in names]


def completing(enum: Any) -> Callable[[], list[str]]:
    """Answer what completes a flag that takes these words."""
    return lambda: words(enum)


def chosen(where: str, enum: Any, given: Iterable[str] | None) -> list[str]:
    """Read words in any case. Raises Misuse for one that the enum does not have."""
    known = words(enum)
    found = [word.lower().replace("-", "_") for word in given or ()]
    for word in found:
        if word not in known:
            raise Misuse(where, f"{word!r} is none of {', '.join(known)}")
    return found


def word(enum: Any, number: int) -> str:
    """Answer the bare word of a member in capitals; of one that is not known its number."""
    unspecified = enum.keys()[0]
    try:
        name: str = enum.Name(number)
    except ValueError:
        return str(number)
    return name.removeprefix(unspecified.removesuffix("UNSPECIFIED"))
