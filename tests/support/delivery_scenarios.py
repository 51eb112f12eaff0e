"""What scenarios of deliveries share: a house with a clock that is moved, and looks into it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.dispatch_house import Clock, DispatchHouse
from tests.support.receivers import Posted


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def house(tmp_path: Path, clock: Clock) -> AsyncIterator[DispatchHouse]:
    running = DispatchHouse(tmp_path / "tocsin.db", clock)
    running.sends_at_once = True
    await running.router.begin()
    yield running
    running.sums()
    await running.close()


def states(house: DispatchHouse) -> dict[str, int]:
    return dict(house.sql("SELECT state || rtrim(' ' || reason), count(*) FROM deliveries GROUP BY 1"))


def data(posted: Posted) -> Any:
    """Give the event that was told; its signature is from another time than ours."""
    return json.loads(posted.body)["data"]


def answering(status: int, **headers: str) -> Callable[[Posted], Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda posted: web.Response(status=status, headers=named)
