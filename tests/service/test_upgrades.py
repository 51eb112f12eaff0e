"""Upgrades of stores of earlier versions, with all that is in them, and killed at any moment (XA18)."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest
from tocsin.v1 import event_log_pb2 as pb

from tests.service.test_notifications import created, webhook
from tests.support.alerts import alert, create
from tests.support.consumers import create as create_consumer
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, serving
from tests.support.upgrading import contents, old_store


async def fill(data: Path, hook: WebhookReceiver) -> list[pb.Event]:
    """Fill a store of today with one of everything; give the events that stand."""
    hook.answer = lambda posted: 503
    async with serving(data) as api:
        await created(api, webhook(hook.url))
        await create_consumer(api)
        await create(api, alert())
        for number in range(3):
            events = [pb.Event(id=f"e{number}-{n}", type="user.t", message="m" * 500) for n in range(20)]
            await api.events.AppendEvents(pb.AppendEventsRequest(events=events, request_id=f"r{number}"))
        await api.append("user.d", id="deleted")
        await hook.until(1)
        await api.events.DeleteEvent(pb.DeleteEventRequest(id="deleted"))
        return await standing(api)


async def standing(api: Api) -> list[pb.Event]:
    """Give what stands, in the order of positions."""
    request = pb.SubscribeRequest(beginning=pb.SubscribeRequest.Beginning(), stop_when_caught_up=True)
    return [event async for message in api.events.Subscribe(request) for event in message.batch.events]


@pytest.mark.parametrize(("migrations", "each"), [(0, 7), (1, 1), (6, 4)])
async def test_an_upgrade_that_is_killed_is_done_by_the_next_start(
    tmp_path: Path, hook: WebhookReceiver, migrations: int, each: int
) -> None:
    """XA18: a store with events, killed before a statement of its upgrade: in the end all is as if undisturbed.

    Of the first version the upgrade is killed before every single statement. Sampled are a version in the middle, at
    every fourth statement, and a store that is made anew, at every seventh. No kill comes inside a statement: what is
    written there is SQLite's, at whose writes `test_power_loss.py` looks.
    """
    events = await fill(tmp_path / "today", hook)
    old = tmp_path / "old" / "tocsin.db"
    old_store(old, migrations, tmp_path / "today" / "tocsin.db")
    work = tmp_path / "work"
    work.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.upgrading", str(old.parent), str(work), str(each),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    statements, *differences = (await process.communicate())[0].decode().splitlines()
    assert process.returncode == 0
    assert differences == []
    assert int(statements) > 50
    if not migrations:
        return
    found, filled = contents(work / "whole" / "tocsin.db"), contents(tmp_path / "today" / "tocsin.db")
    for table in ("schema", "events", "event_keys", "request_keys", "log_head"):
        assert found[table] == filled[table], table
    shutil.copy(tmp_path / "today" / "tocsin.key", work / "whole")
    async with serving(work / "whole") as api:
        assert (await standing(api))[: len(events)] == events
        assert (await api.append("user.after")).position > events[-1].position
