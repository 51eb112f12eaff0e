"""The commands that need the server's parts: `serve` and `check`. `__main__` loads them when they are given."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from tocsin_server import __version__
from tocsin_server.app import App, data_file
from tocsin_server.config import ConfigError, Settings
from tocsin_server.logs import configure_logs
from tocsin_server.runtime import event_loop_factory
from tocsin_server.store.checking import check as check_store
from tocsin_server.store.database import StoreError

log = structlog.get_logger("tocsin")
EXIT_FAILED = 1


def serve(settings: Settings, load_anew: Callable[[], Settings]) -> int:
    """Run the server until SIGTERM or Ctrl-C; answers the exit code."""
    try:
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            return runner.run(_run(App(settings), load_anew))
    except StoreError as error:
        return _complain(str(error))


def check(settings: Settings) -> int:
    """Read the whole store and print what is damaged; answers the exit code."""
    path = data_file(settings)
    print(f"Checking {path}")
    try:
        damaged = _damaged(path)
    except StoreError as error:
        return _complain(str(error))
    if damaged:
        return _complain("the store is damaged: restore it from a backup, or save what can be read")
    return 0


def _damaged(path: Path) -> bool:
    damaged = False
    for result in check_store(path, _progress if sys.stderr.isatty() else lambda part, count, total: None):
        damaged = damaged or bool(result.damages)
        print(f"  {result.part:<16} {result.count:>12,}   {'DAMAGED' if result.damages else 'ok'}")
        for damage in result.damages:
            print(f"    {damage}")
    return damaged


def _progress(part: str, count: int, total: int) -> None:
    """Say on the terminal how far a long check has come; the result is written over it."""
    print(f"  {part:<16} {count:>12,} of {total:,}\r", end="", file=sys.stderr, flush=True)


def _reload(load_anew: Callable[[], Settings], log_format: str) -> None:
    """Take over the settings that need no restart; a mistake in them changes nothing."""
    try:
        settings = load_anew()
        configure_logs(settings["log.level"], log_format)
    except ConfigError as error:
        log.error("the settings were not reloaded", error=str(error))
        return
    log.info("the settings were reloaded; those that are not marked so take effect after a restart")


async def _run(app: App, load_anew: Callable[[], Settings]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, load_anew, app.settings["log.format"])
    listen, port = app.settings["server.listen"], app.settings["server.port"]
    try:
        await app.start()
    except OSError as error:
        text = f"cannot listen on {listen}:{port}: {error.strerror}"
        taken = ": stop what listens there, or give another --port" if error.errno == errno.EADDRINUSE else ""
        return _complain(text + taken)
    gc.enable()
    _greet(app)
    assert app.failed is not None
    app.failed.add_done_callback(lambda _: stopping.set())
    await stopping.wait()
    failed = app.failed.done()
    await app.stop()
    if failed:
        return _complain(f"the store failed ({app.failed.result()}): start again")
    return 0


def _greet(app: App) -> None:
    """Tell where the server is and what to try."""
    listen = app.settings["server.listen"]
    address = f"{listen}:{app.port}"
    event = '{"event": {"type": "user.image.analysis_failed", "level": "LEVEL_ERROR", "message": "disk full"}}'
    host = f"[{listen}]" if ":" in listen else listen
    metrics = f"  metrics  http://{host}:{app.metrics_port}/metrics\n" if app.metrics_port else ""
    print(
        f"tocsin-server {__version__} listens on {address}\n"
        f"  data   {app.data}\n"
        f"  store  {app.store_url} (log {app.log_id})\n{metrics}"
        "Try:\n"
        f"  grpcurl -plaintext {address} list\n"
        f"  grpcurl -plaintext -d '{event}' {address} tocsin.v1.EventLog/AppendEvent\n"
        f"  grpcurl -plaintext -d '{{\"beginning\": {{}}}}' {address} tocsin.v1.EventLog/Subscribe",
        flush=True,
    )


def _complain(message: str) -> int:
    print(f"tocsin-server: {message}", file=sys.stderr)
    return EXIT_FAILED
