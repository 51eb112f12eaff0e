"""Sweeping: what has been kept long enough is forgotten, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tocsin_server.domain.alerting import Alert
from tocsin_server.domain.event_log import KEY_KEPT_US, Append, Draft, OwnEvent
from tocsin_server.domain.schedule import SECOND_US
from tocsin_server.store.event_log import sweep
from tocsin_server.store.wire import own_draft

from tests.support.alert_house import SCRIPTED, T0, House


def draft(id: str) -> Draft:
    return own_draft(OwnEvent("acme", "user.thing.happened", "", {}), id, T0)


@pytest.mark.parametrize("age", [0, KEY_KEPT_US - SECOND_US, KEY_KEPT_US + SECOND_US])
async def test_request_ids_are_forgotten_in_time(house: House, age: int) -> None:
    """Those of creates after 7 days; those of appends as long as their events stand, too."""
    alert = Alert("acme", "", 0, True, replace(SCRIPTED, interval="1m"), "u", "u", 0, 0)
    await house.alerts.create(alert, "a-create", b"digest")
    await house.writer.append(Append("acme", "AppendEvent", "an-append", b"digest", (draft("e1"),)))
    house.clock.time += age
    await house.writer.run(lambda tx: sweep(tx, tx.log.created_at - KEY_KEPT_US))
    kept = [request_id for (request_id,) in house.rows("SELECT request_id FROM request_keys ORDER BY request_id")]
    assert kept == (["an-append"] if age > KEY_KEPT_US else ["a-create", "an-append"])
