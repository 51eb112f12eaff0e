"""The command line as a whole: its groups, the global flags, and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer

import tocsin
from tocsin.cli import complaints, completion
from tocsin.cli.misuse import EXIT_CODES, FAILED, INTERRUPTED, OK, UNAVAILABLE, USAGE, Misuse, Unanswered
from tocsin.cli.parts import Root
from tocsin.cli.screen import silence
from tocsin.cli.session import Connection, Session
from tocsin.cli.taking import takes

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_EPILOG = f"""{EXIT_CODES}

Global flags may stand before or after the command. A flag wins over its environment variable."""

application = typer.Typer(
    name="tocsin", cls=Root, epilog=_EPILOG, context_settings=_SETTINGS, rich_markup_mode=None, add_completion=False
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - few ask

        print(f"tocsin {version('tocsin')}")
        raise typer.Exit(OK)


@application.callback(invoke_without_command=True)
@takes
def root(
    context: typer.Context,
    connection: Connection,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Command line of tocsin: a durable event log with notifications and alerts."""
    context.obj = Session(connection)
    context.obj.screen.quiet = connection.quiet
    if context.invoked_subcommand is None:
        print(context.get_help())


@cache
def command() -> Any:
    """Make the command line of the application, once: it takes time."""
    return typer.main.get_command(application)


def _option_names() -> dict[str, bool]:
    """Answer the global flags, and whether each takes a value."""
    found = {}
    for parameter in command().params:
        if parameter.name != "show_version":
            for name in (*parameter.opts, *parameter.secondary_opts):
                found[name] = not getattr(parameter, "is_flag", False)
    return {name: valued for name, valued in found.items() if name not in ("-h", "--help")}


def hoisted(words: Sequence[str], options: dict[str, bool]) -> list[str]:
    """Move global flags that stand behind a command to the front, where they are read. Pure."""
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == "--":
            rest += [word, *waiting]
            break
        name, sign, _ = word.partition("=")
        if name not in options or (sign and not options[name]):
            rest.append(word)
            continue
        front.append(word)
        if options[name] and not sign:
            front.extend([value for value in [next(waiting, None)] if value is not None])
    return [*front, *rest]


def run(words: Sequence[str]) -> int:
    """Run a command; answers the exit code."""
    completion.prepare()
    try:
        code = command()(
            args=hoisted(words, _option_names()),
            prog_name="tocsin",
            complete_var=completion.VARIABLE,
            standalone_mode=False,
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except (BrokenPipeError, SystemExit):
        if completion.VARIABLE in os.environ:
            raise
        # Typer turns a broken pipe into an exit; nothing else but completion exits in this mode.
        silence()
        return OK
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Unanswered as error:
        return complaints.complain(str(error), UNAVAILABLE)
    except Misuse as error:
        return complaints.complain(str(error), USAGE)
    except typer.TyperException as error:
        return complaints.complain(complaints.of_usage(error), USAGE)
    except OSError as error:
        return complaints.complain(f"{error.filename or 'input or output'}: {error.strerror}", FAILED)
    # Last: to name it loads gRPC.
    except tocsin.TocsinError as error:
        return complaints.complain(complaints.of_server(error), complaints.exit_code(error))
