"""What a CEL expression can cost at most, settled from its checked tree when it is compiled.

The library stops after 10,000 iterations, nests no deeper than 32 and its regular expressions are RE2,
linear in the text. What is left is what one iteration may do: a search through a text of 256 KiB, ten
thousand times, takes seconds, and a list that doubles in a chain of macros takes all memory. So inside
a macro whatever is linear in its operands is for the macro's own variable and its parts: all
iterations together then read the event once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import re2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from tocsin_server.domain.patterns import fault, program_size

REGEX_PROGRAM_MAX = 400  # instructions of all regular expressions of one `where`
MACRO_DEPTH_MAX = 3

ARITHMETIC = frozenset({"_+_", "_-_", "_*_", "_/_", "_%_"})
COMPARISONS = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
# What takes the same time for every operand, or has been paid for by its operands.
CONSTANT = frozenset({
    "_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false", "_-_", "-_", "_*_", "_/_", "_%_",
})  # fmt: skip
NUMBERS = frozenset({2, 3, 4})  # cel.expr.Type.PrimitiveType: INT64, UINT64, DOUBLE
TIMES = frozenset({2, 3})  # cel.expr.Type.WellKnownType: TIMESTAMP, DURATION
ACCUMULATOR = "@result"
TEXT, INT64 = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_INT64
# The parts of cel.expr.CheckedExpr that are looked at: message, then field: (number, type, repeated).
SHAPES: dict[str, dict[str, tuple[int, str | int, bool]]] = {
    "CheckedExpr": {"type_map": (3, "TypeEntry", True), "expr": (4, "Expr", False)},
    "TypeEntry": {"key": (1, INT64, False), "value": (2, "Type", False)},
    "Type": {"dyn": (1, "Nothing", False), "primitive": (3, INT64, False), "well_known": (5, INT64, False)},
    "Expr": {
        "id": (2, INT64, False), "constant": (3, "Constant", False), "ident": (4, "Ident", False),
        "select": (5, "Select", False), "call": (6, "Call", False), "list": (7, "List", False),
        "struct": (8, "Struct", False), "comprehension": (9, "Comprehension", False),
    },
    "Nothing": {},
    "Constant": {"number": (3, INT64, False), "text": (6, TEXT, False)},
    "Ident": {"name": (1, TEXT, False)},
    "Select": {"operand": (1, "Expr", False), "field": (2, TEXT, False)},
    "Call": {"target": (1, "Expr", False), "function": (2, TEXT, False), "args": (3, "Expr", True)},
    "List": {"elements": (1, "Expr", True)},
    "Struct": {"entries": (2, "Entry", True)},
    "Entry": {"map_key": (3, "Expr", False), "value": (4, "Expr", False)},
    "Comprehension": {
        "iter_var": (1, TEXT, False), "iter_range": (2, "Expr", False), "accu_init": (4, "Expr", False),
        "loop_condition": (5, "Expr", False), "loop_step": (6, "Expr", False), "result": (7, "Expr", False),
    },
}  # fmt: skip


class CostError(ValueError):
    """An expression that could cost more than one look at the event."""


def tree_of(serialized: bytes) -> Any:
    """Read the serialized checked tree of an expression."""
    return _CHECKED.FromString(AnyMessage.FromString(serialized).value)


def compared(serialized: bytes, variable: str) -> Iterator[tuple[str, str]]:
    """Give the fields of a variable that an expression compares with texts, and each text."""
    waiting = [tree_of(serialized).expr]
    while waiting:
        expr = waiting.pop()
        waiting += _below(expr)
        if expr.call.function not in ("_==_", "_!=_", "@in"):
            continue
        for field, other in (expr.call.args, reversed(expr.call.args)):
            if field.select.operand.ident.name == variable:
                texts = other.list.elements if other.HasField("list") else [other]
                yield from ((field.select.field, one.constant.text) for one in texts if one.constant.HasField("text"))


def check(serialized: bytes) -> None:
    """Refuse an expression, given as its serialized checked tree, that could cost too much."""
    tree = tree_of(serialized)
    numbers = {e.key for e in tree.type_map if e.value.primitive in NUMBERS or e.value.well_known in TIMES}
    walk = _Walk(numbers, {e.key for e in tree.type_map if e.value.HasField("dyn")})
    walk.look(tree.expr, None, 0)
    if walk.program > REGEX_PROGRAM_MAX:
        raise CostError(
            f"its regular expressions have {walk.program} instructions, at most {REGEX_PROGRAM_MAX} are allowed"
        )


class _Walk:
    """A walk through a tree; `own` is the variable of the innermost macro, None outside of macros."""

    def __init__(self, numbers: set[int], unknown: set[int]) -> None:
        self._numbers = numbers
        self._unknown = unknown
        self.program = 0

    def look(self, expr: Any, own: str | None, depth: int) -> None:
        """Look at an expression and all below it."""
        if expr.HasField("comprehension"):
            self._macro(expr.comprehension, own, depth)
            return
        if expr.HasField("call"):
            if _collects(expr, own):
                return
            self._call(expr, own)
        for below in _below(expr):
            self.look(below, own, depth)

    def _macro(self, macro: Any, own: str | None, depth: int) -> None:
        self.look(macro.iter_range, own, depth)
        if own is not None and not _is_own(macro.iter_range, own):
            raise CostError(f"a macro within a macro goes through parts of {own!r} only")
        if depth >= MACRO_DEPTH_MAX:
            raise CostError(f"macros are nested at most {MACRO_DEPTH_MAX} deep")
        if _maps(macro.loop_step, macro.iter_var):
            raise CostError("map() makes lists of any size and is not offered: say it with exists() or filter()")
        for part in (macro.loop_condition, macro.loop_step, macro.result):
            self.look(part, macro.iter_var, depth + 1)

    def _call(self, expr: Any, own: str | None) -> None:
        call = expr.call
        operands = [call.target, *call.args] if call.HasField("target") else list(call.args)
        if call.function in ARITHMETIC and len(operands) == 2:
            self._refuse_whole_numbers(*operands)
        if call.function == "matches":
            self._regular_expression(operands[-1])
        if own is None or call.function in CONSTANT:
            return
        if call.function == "_+_":
            if expr.id not in self._numbers and not all(o.HasField("constant") for o in operands):
                raise CostError("`+` within a macro is for numbers: say double(x) where the type is not known")
        elif call.function in COMPARISONS:
            if not any(_is_own(operand, own) for operand in operands):
                raise CostError(f"a comparison within a macro needs a constant or a part of {own!r} on one side")
        elif call.function == "_[_]":
            if not _is_own(operands[1], own):
                raise CostError(f"a key within a macro is a constant or a part of {own!r}")
        elif not all(_is_own(operand, own) for operand in operands):
            raise CostError(f"{_shown(call.function)} within a macro is for constants and parts of {own!r}")

    def _refuse_whole_numbers(self, left: Any, right: Any) -> None:
        """Refuse what could never be computed: numbers of the details are doubles, and are not converted."""
        for one, other in ((left, right), (right, left)):
            if one.id in self._unknown and other.constant.HasField("number"):
                number = other.constant.number
                raise CostError(f"numbers of the details are doubles: say {number}.0 in place of {number}")

    def _regular_expression(self, pattern: Any) -> None:
        if not pattern.HasField("constant"):
            raise CostError("the regular expression of matches() is a literal")
        try:
            self.program += program_size(pattern.constant.text)
        except re2.error as error:
            raise CostError(f"the regular expression {pattern.constant.text!r} is no RE2: {fault(error)}") from None


def _shown(function: str) -> str:
    return "`in`" if function == "@in" else f"{function}()"


def _below(expr: Any) -> list[Any]:
    if expr.HasField("call"):
        return [*([expr.call.target] if expr.call.HasField("target") else ()), *expr.call.args]
    if expr.HasField("select"):
        return [expr.select.operand]
    if expr.HasField("list"):
        return list(expr.list.elements)
    if expr.HasField("comprehension"):
        macro = expr.comprehension
        return [macro.iter_range, macro.accu_init, macro.loop_condition, macro.loop_step, macro.result]
    return [part for entry in expr.struct.entries for part in (entry.map_key, entry.value)]


def _is_own(expr: Any, own: str) -> bool:
    """Tell whether an expression's size is that of a constant or of the macro's own variable."""
    if expr.HasField("ident"):
        return expr.ident.name in (own, ACCUMULATOR)
    if expr.HasField("comprehension"):
        return _is_own(expr.comprehension.iter_range, own)
    if expr.HasField("call") and expr.call.function == "_[_]":
        return _is_own(expr.call.args[0], own)
    return all(_is_own(below, own) for below in _below(expr))


def _collects(expr: Any, own: str | None) -> bool:
    """Tell whether this is how filter() and exists_one() keep what they have found."""
    args = expr.call.args
    if own is None or expr.call.function != "_+_" or args[0].ident.name != ACCUMULATOR:
        return False
    return bool(args[1].HasField("constant")) or not _maps(expr, own)


def _maps(expr: Any, variable: str) -> bool:
    """Tell whether a step of a macro collects anything but the elements themselves."""
    if not expr.HasField("call"):
        return False
    call = expr.call
    if call.function == "_?_:_":
        return any(_maps(arg, variable) for arg in call.args[1:])
    if call.function != "_+_" or call.args[0].ident.name != ACCUMULATOR or not call.args[1].HasField("list"):
        return False
    return [element.ident.name for element in call.args[1].list.elements] != [variable]


def _pool() -> DescriptorPool:
    file = FileDescriptorProto(name="checked.proto", package="tree", syntax="proto2")
    for name, fields in SHAPES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind, repeated) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".tree.{kind}"
            else:
                field.type = kind  # type: ignore[assignment]
    pool = DescriptorPool()
    pool.Add(file)
    return pool


_CHECKED = GetMessageClass(_pool().FindMessageTypeByName("tree.CheckedExpr"))
