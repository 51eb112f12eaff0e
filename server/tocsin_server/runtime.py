"""The real clock, ids, chance and event loop; tests bring their own."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable

from tocsin_server.domain.ports import Runtime


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Give uvloop's event loop where it is installed: a quarter off the CPU of each call."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def system_runtime() -> Runtime:
    """Make the real clock, ids and chance."""
    return Runtime(
        now=lambda: time.time_ns() // 1000,
        monotonic=time.monotonic,
        new_id=_rising_id,
        jitter=random.random,
    )


# Seeded by the system; ids have to be distinct, not secret.
_ids = random.Random(os.urandom(32)).getrandbits


def _rising_id() -> str:
    """Make 32 hex digits that rise with time: neighbours in time are neighbours in the index."""
    return f"{time.time_ns() // 1_000_000 << 80 | _ids(80):032x}"
