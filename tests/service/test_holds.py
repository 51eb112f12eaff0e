"""Switches and deletions with a long line behind them: done in short steps, and whole when the call returns."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.store import holds

from tests.service.test_explanations import routed
from tests.service.test_notifications import created, webhook
from tests.support.servers import Api, serving

WAITING = 10


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "STEP", 3)


async def states(api: Api) -> Counter[str]:
    found = await api.notifications.ListDeliveries(pb.ListDeliveriesRequest(page_size=1000))
    return Counter(f"{pb.DeliveryState.Name(row.state)[15:]} {row.reason}".strip() for row in found.deliveries)


async def switched(api: Api, configuration_id: str, enabled: bool) -> None:
    sent = pb.EndpointConfiguration(id=configuration_id, enabled=enabled)
    request = pb.UpdateEndpointConfigurationRequest(configuration=sent, update_mask=FieldMask(paths=["enabled"]))
    await api.notifications.UpdateEndpointConfiguration(request)


async def kind_switched(api: Api, enabled: bool) -> None:
    endpoint = pb.Endpoint(kind="webhook", enabled=enabled)
    await api.notifications.UpdateEndpoint(pb.UpdateEndpointRequest(endpoint=endpoint))


async def test_every_delivery_follows_a_switch_and_ends_with_its_configuration(tmp_path: Path) -> None:
    """XD28: off, on, and gone, for a configuration and for its kind."""
    async with serving(tmp_path, notifications__enabled=False) as api:
        configuration = await created(api, webhook("http://127.0.0.1:9/"))
        for _ in range(WAITING):
            event = await api.append("a")
        await routed(api, event.position)
        assert await states(api) == {"PENDING": WAITING + 1}  # and the one that the test waited for
        await switched(api, configuration.id, False)
        assert await states(api) == {"PAUSED DISABLED": WAITING + 1}
        await switched(api, configuration.id, True)
        assert await states(api) == {"PENDING": WAITING + 1}
        await kind_switched(api, False)
        assert await states(api) == {"PAUSED DISABLED": WAITING + 1}
        await kind_switched(api, True)
        assert await states(api) == {"PENDING": WAITING + 1}
        await api.notifications.DeleteEndpointConfiguration(pb.DeleteEndpointConfigurationRequest(id=configuration.id))
        assert await states(api) == {"CANCELLED DELETED": WAITING + 1}


async def test_the_last_of_two_switches_at_once_holds(tmp_path: Path) -> None:
    """Steps of one that was overtaken do nothing any more."""
    async with serving(tmp_path, notifications__enabled=False) as api:
        configuration = await created(api, webhook("http://127.0.0.1:9/"))
        for _ in range(WAITING):
            event = await api.append("a")
        await routed(api, event.position)
        for _ in range(5):
            await asyncio.gather(*(switched(api, configuration.id, on) for on in (False, True, False, True)))
            found = await api.notifications.GetEndpointConfiguration(
                pb.GetEndpointConfigurationRequest(id=configuration.id)
            )
            wanted = "PENDING" if found.configuration.enabled else "PAUSED DISABLED"
            assert await states(api) == {wanted: WAITING + 1}
