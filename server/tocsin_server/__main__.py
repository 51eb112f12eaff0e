"""The command `tocsin-server`: parse flags, load the settings, run until SIGTERM; nothing else."""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from tocsin_server import __version__
from tocsin_server.app import App, data_file
from tocsin_server.config import ConfigError, Settings, load, variable_of
from tocsin_server.logs import configure_logs
from tocsin_server.runtime import event_loop_factory
from tocsin_server.store.checking import check as check_store
from tocsin_server.store.database import StoreError

log = structlog.get_logger("tocsin")
EXIT_FAILED = 1
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
        sys.exit(_complain(str(error), EXIT_USAGE))
    except StoreError as error:
        sys.exit(_complain(str(error), EXIT_FAILED))


def _complain(message: str, code: int) -> int:
    print(f"tocsin-server: {message}", file=sys.stderr)
    return code


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
    path = data_file(settings)
    print(f"Checking {path}")
    damaged = False
    for result in check_store(path, _progress if sys.stderr.isatty() else lambda part, count, total: None):
        damaged = damaged or bool(result.damages)
        print(f"  {result.part:<16} {result.count:>12,}   {'DAMAGED' if result.damages else 'ok'}")
        for damage in result.damages:
            print(f"    {damage}")
    if damaged:
        return _complain("the store is damaged: restore it from a backup, or save what can be read", EXIT_FAILED)
    return 0


def _progress(part: str, count: int, total: int) -> None:
    """Say on the terminal how far a long check has come; the result is written over it."""
    print(f"  {part:<16} {count:>12,} of {total:,}\r", end="", file=sys.stderr, flush=True)


def _serve(arguments: argparse.Namespace, settings: Settings) -> int:
    if not arguments.dev:
        return _complain("keys arrive with accounts: for now start with `serve --dev`", EXIT_USAGE)
    listen = settings["server.listen"]
    if not _is_loopback(listen):
        return _complain(f"--dev needs no key, so it listens on this machine only, not on {listen}", EXIT_USAGE)
    os.umask(0o077)  # the store holds events and secrets: its files are the owner's
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC would say, we say in our own words
    configure_logs(settings["log.level"], settings["log.format"])
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(_run(App(settings), lambda: _settings(arguments)))


def _reload(load_anew: Callable[[], Settings]) -> None:
    """Take over the settings that need no restart; a mistake in them changes nothing."""
    try:
        settings = load_anew()
        configure_logs(settings["log.level"], settings["log.format"])
    except ConfigError as error:
        log.error("the settings were not reloaded", error=str(error))
        return
    log.info("the settings were reloaded; those that are not marked so take effect after a restart")


async def _run(app: App, load_anew: Callable[[], Settings]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, load_anew)
    listen, port = app.settings["server.listen"], app.settings["server.port"]
    try:
        await app.start()
    except OSError as error:
        text = f"cannot listen on {listen}:{port}: {error.strerror}"
        taken = ": stop what listens there, or give another --port" if error.errno == errno.EADDRINUSE else ""
        return _complain(text + taken, EXIT_FAILED)
    _greet(app)
    assert app.failed is not None
    app.failed.add_done_callback(lambda _: stopping.set())
    await stopping.wait()
    failed = app.failed.done()
    await app.stop()
    if failed:
        return _complain(f"the store failed ({app.failed.result()}): start again", EXIT_FAILED)
    return 0


def _is_loopback(listen: str) -> bool:
    try:
        return listen == "localhost" or ipaddress.ip_address(listen).is_loopback
    except ValueError:
        return False


def _greet(app: App) -> None:
    """Tell where the server is and what to try."""
    address = f"{app.settings['server.listen']}:{app.port}"
    event = '{"event": {"type": "user.image.analysis_failed", "level": "LEVEL_ERROR", "message": "disk full"}}'
    print(
        f"tocsin-server {__version__} listens on {address}\n"
        f"  data   {app.data}\n"
        f"  store  {app.store_url} (log {app.log_id})\n"
        "Try:\n"
        f"  grpcurl -plaintext {address} list\n"
        f"  grpcurl -plaintext -d '{event}' {address} tocsin.v1.EventLog/AppendEvent\n"
        f"  grpcurl -plaintext -d '{{\"beginning\": {{}}}}' {address} tocsin.v1.EventLog/Subscribe",
        flush=True,
    )


if __name__ == "__main__":
    main()
