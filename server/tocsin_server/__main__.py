"""The command `tocsin-server`: parse flags, load the settings, run the command; nothing else."""

from __future__ import annotations

import argparse
import gc
import ipaddress
import os
import sys
from pathlib import Path
from typing import Any

from tocsin_server import __version__
from tocsin_server.config import ConfigError, Settings, load, variable_of

EXIT_USAGE = 2
DESCRIPTION = """Remembers what happened, decides who should know, and makes sure that they are told: a
durable event log with subscriptions, notifications and alerts over gRPC."""
LOOPBACK = ["127.0.0.0/8", "::1/128"]


def main() -> None:
    """Run the command line."""
    arguments = _parser().parse_args()
    try:
        settings = _settings(arguments)
        sys.exit(arguments.run(arguments, settings))
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ConfigError as error:
        sys.exit(_complain(str(error)))


def _complain(message: str) -> int:
    print(f"tocsin-server: {message}", file=sys.stderr)
    return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tocsin-server", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"tocsin-server {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the server until SIGTERM or Ctrl-C")
    serve.add_argument("--dev", action="store_true", help="embedded store, 127.0.0.1, no key needed")
    _add_settings(serve)
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check", help="read the whole store and say what is damaged; a server may be running")
    check.add_argument("--dev", action="store_true", help="the store of `serve --dev`")
    _add_settings(check)
    check.set_defaults(run=_check)
    config = commands.add_parser("config", help="look at the settings")
    show = config.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "show", help="print every effective setting and where it came from"
    )
    show.add_argument("--dev", action="store_true", help="as `serve --dev` would run")
    _add_settings(show)
    show.set_defaults(run=_show)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings (TOCSIN_CONFIG)")
    for flag, name, kind, text in (
        ("--listen", "server.listen", str, "address to listen on"),
        ("--port", "server.port", int, "port to listen on, 0 for a free one"),
        ("--data", "store.data", str, "folder for the store and the key file"),
        ("--store", "store.url", str, "the store, sqlite:///PATH"),
        ("--log-level", "log.level", str, "debug, info, warning or error"),
        ("--log-format", "log.format", str, "console, json or auto"),
    ):
        metavar = name.rpartition(".")[2].upper()
        parser.add_argument(flag, dest=name, type=kind, metavar=metavar, help=f"{text} ({variable_of(name)})")


def _settings(arguments: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(arguments).items() if "." in name}
    flags: dict[str, Any] = dict(given)
    if not arguments.dev:
        return load(arguments.config, flags=flags)
    flags["server.require_auth"] = False
    return load(arguments.config, flags=flags, additions={"egress.allow": LOOPBACK})


def _show(arguments: argparse.Namespace, settings: Settings) -> int:
    width = max(len(setting.name) for setting in settings.all())
    for setting in settings.all():
        print(f"{setting.name:<{width}} = {setting.shown():<24} # {setting.origin}, {setting.effect}")
    return 0


def _check(arguments: argparse.Namespace, settings: Settings) -> int:
    from tocsin_server.commands import check  # noqa: PLC0415 - the other commands do without the server

    return check(settings)


def _serve(arguments: argparse.Namespace, settings: Settings) -> int:
    if not arguments.dev:
        return _complain("keys arrive with accounts: for now start with `serve --dev`")
    listen = settings["server.listen"]
    if not _is_loopback(listen):
        return _complain(f"--dev needs no key, so it listens on this machine only, not on {listen}")
    # What is loaded and built until the server runs stays: to look for garbage in it takes a tenth of the time.
    gc.disable()
    os.umask(0o077)  # the store holds events and secrets: its files are the owner's
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC would say, we say in our own words
    from tocsin_server.commands import serve  # noqa: PLC0415 - the other commands do without the server
    from tocsin_server.logs import configure_logs  # noqa: PLC0415

    configure_logs(settings["log.level"], settings["log.format"])

    return serve(settings, lambda: _settings(arguments))


def _is_loopback(listen: str) -> bool:
    try:
        return listen == "localhost" or ipaddress.ip_address(listen).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
