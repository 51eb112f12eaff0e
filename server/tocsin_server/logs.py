"""Structured logs on standard error: one line per record, JSON for machines, colours for people."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tocsin_server.config import ConfigError


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Have a library that is not loaded yet seem not to be installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


# structlog loads rich, where it is installed, for tracebacks in colour. Ours are plain text on any terminal, and a
# tenth of the time that the server needs to start would go into it.
with _absent("rich"):
    import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(level: str, form: str) -> None:
    """Set level and form of all logs of the process."""
    if level not in LEVELS:
        raise ConfigError(f"log.level = {level!r} is not one of {', '.join(LEVELS)}")
    if form not in ("auto", "console", "json"):
        raise ConfigError(f"log.format = {form!r} is not one of auto, console, json")
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    # On a terminal a record is one line too, and what it tells cannot steer the terminal.
    escape = (lambda logger, name, event: event) if as_json else _escaped
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            escape,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _escaped(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: _printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _printable(text: str) -> str:
    """Give a text with everything that is not to be printed written as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
