"""How a command comes by its flags: `takes` makes flags of the dataclasses among a function's parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

import typer

import tocsin
from tocsin.cli.complaints import of_nobody
from tocsin.cli.misuse import Unanswered
from tocsin.cli.screen import silence
from tocsin.cli.session import Session


def takes(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function: a parameter that is a dataclass stands for a flag per field, a Session for none.

    A command ends quietly when whoever reads its output has seen enough.
    """
    hints = get_type_hints(function, include_extras=True)
    shared = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    parameters = [Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for name, parameter in signature(function).parameters.items():
        if hints[name] is typer.Context:
            continue
        if name not in shared:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))
        elif shared[name] is not Session:
            parameters.extend(_flags(shared[name]))

    def run(context: typer.Context, **given: Any) -> None:
        if isinstance(context.obj, Session):
            context.obj.typed = _typed(context)
        for name, kind in shared.items():
            if kind is Session:
                given[name] = context.obj
            else:
                given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        given |= {name: context for name, kind in hints.items() if kind is typer.Context}
        try:
            function(**given)
            sys.stdout.flush()
        except BrokenPipeError:
            silence()
        except tocsin.Unavailable as error:
            if error.reason or not isinstance(context.obj, Session):
                raise
            raise Unanswered(of_nobody(context.obj.connection.address, error.message)) from None

    run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def _typed(context: typer.Context) -> frozenset[str]:
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


def _flags(kind: type) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(kind)
    ]
