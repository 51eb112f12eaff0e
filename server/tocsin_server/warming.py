"""Loading, behind the first calls of a server that serves already, what the start does not wait for.

Whoever needs one of these libraries sooner loads it there and then: they are imported where they are used.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from importlib import import_module

import structlog

log = structlog.get_logger("tocsin")

# The ones that a call or a loop would have to wait for, dearest first.
LATER = (
    "tocsin_server.domain.payloads",  # JSON Schema: params of alerts, payloads of events
    "tocsin_server.domain.conditions",  # CEL: `where`
    "httpx",  # URLs of webhooks
    "cryptography.hazmat.primitives.ciphers.aead",  # secrets of configurations
    "tocsin_server.endpoints._mail",
    "tocsin_server.endpoints._smtp",
    "tocsin_server.domain.alert_filter",
)


class Warming:
    """A thread that imports modules, one after the other, until it is through or told to end."""

    def __init__(self, modules: Sequence[str] = LATER) -> None:
        self._modules = modules
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warming")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def stop(self) -> None:
        """End after the module under way."""
        self._ending.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        for name in self._modules:
            if self._ending.is_set():
                return
            try:
                import_module(name)
            except Exception:
                log.exception("a part of the server cannot be loaded; what needs it will fail", module=name)
