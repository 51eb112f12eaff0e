"""Fixtures of all tests."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tocsin_server.logs import configure_logs

from tests.support.alert_house import Clock, House
from tests.support.processes import ServerProcess
from tests.support.receivers import Mailbox, WebhookReceiver, mailbox, webhook_receiver
from tests.support.servers import Api, serving

# Tests interrupt children, which inherit an ignored SIGINT: a script that runs the tests in the background has it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Servers in the tests' own process log what is wrong, not each delivery.
configure_logs("error", "json")


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(tmp_path / "data") as running:
        yield running


@pytest_asyncio.fixture
async def process(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server as a process of its own; what a test leaves of it is killed."""
    server = ServerProcess(tmp_path / "process")
    await server.start()
    yield server
    await server.clear()


@pytest_asyncio.fixture
async def hook() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as receiver:
        yield receiver


@pytest_asyncio.fixture
async def box() -> AsyncIterator[Mailbox]:
    async with mailbox() as running:
        yield running


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    running = House(tmp_path / "tocsin.db", Clock())
    await running.configure("hook")
    yield running
    if not running.store.lock.closed:
        running.close()


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Log everything, and give what was logged."""
    configure_logs("debug", "json")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    configure_logs("error", "json")
