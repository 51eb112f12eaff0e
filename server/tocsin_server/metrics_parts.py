"""The port of the metrics, taken where it is wanted: a part of the composition root that has a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_server.config import ConfigError, Settings
from tocsin_server.domain.ports import Runtime

if TYPE_CHECKING:
    from tocsin_server.metrics import Metrics


async def bind(settings: Settings, runtime: Runtime) -> tuple[Metrics | None, int]:
    """Take the port and give it, or nothing where no metrics are wanted; ConfigError when it cannot be had."""
    if not settings["server.metrics.enabled"]:
        return None, 0
    # A server that shows no metrics does not wait for the libraries that it would show them with.
    from tocsin_server.metrics import Metrics  # noqa: PLC0415

    listen, port = settings["server.listen"], settings["server.metrics.port"]
    metrics = Metrics(runtime)
    try:
        return metrics, await metrics.bind(listen, port)
    except OSError as error:
        await metrics.stop()
        text = f"server.metrics.port: cannot listen on {listen}:{port}: {error.strerror}"
        raise ConfigError(f"{text}: stop what listens there, or give another port") from error
