"""Delivering to receivers that fail, on real parts stepped by hand and a clock that moves when it is told to.

After every scenario the sums of promise P3 hold.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest
from tocsin_server.domain.health import HealthState
from tocsin_server.domain.lane import WINDOW_FIRST
from tocsin_server.domain.options import DeliveryOptions

from tests.support.delivery_scenarios import answering, clock, data, house, states
from tests.support.dispatch_house import Clock, DispatchHouse
from tests.support.receivers import WebhookReceiver

DAY_S = 86_400
NOWHERE = "http://127.0.0.1:9/"
__all__ = ["clock", "house"]


async def test_refused_messages_end_and_are_recoverable(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """XD14, as the rulings have it: 400, 413, 415 and 422 are of the message."""
    hook.answer = answering(422)
    configuration = await house.configure(hook.url)
    await house.append("user.a", "user.b")
    await house.deliver_all()
    assert states(house) == {"EXHAUSTED PERMANENT": 2}
    assert (await house.health(configuration)).state is HealthState.HEALTHY
    assert house.told() == ["endpoint_failing", "delivery_exhausted", "delivery_exhausted"]
    assert house.sql("SELECT DISTINCT status_code, error_class FROM deliveries") == [(422, "REFUSED")]


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_pause_and_one_is_tried_each_hour(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver, status: int
) -> None:
    """XD14: nothing of it is the message's fault."""
    hook.answer = answering(status)
    configuration = await house.configure(hook.url)
    await house.append(*["user.a"] * 20)
    await house.deliver_all()
    assert states(house) == {"PAUSED CREDENTIALS": 20}
    before = len(hook.posted)
    assert before <= WINDOW_FIRST
    for _ in range(3):
        await house.deliver_all()
        clock.pass_s(3600)
        await house.deliver_all()
    assert len(hook.posted) == before + 3
    await house.append("user.late")
    await house.deliver_all()
    assert states(house) == {"PAUSED CREDENTIALS": 21}
    assert house.sql("SELECT max(scheduled) FROM deliveries") == [(0,)]
    hook.answer = lambda posted: 200
    clock.pass_s(3600)
    await house.deliver_all()
    assert states(house) == {"DELIVERED": 21}
    assert (await house.health(configuration)).state is HealthState.HEALTHY
    assert house.told() == ["endpoint_failing", "endpoint_recovered"]


async def test_a_repaired_configuration_is_tried_at_once(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """XD28: the next attempt uses the newest version."""
    hook.answer = lambda posted: 200 if posted.path == "/new" else 401
    configuration = await house.configure(hook.url)
    await house.append("user.a")
    await house.deliver_all()
    connection = {**configuration.connection, "url": hook.url.replace("/hook", "/new")}
    await house.notifications.update("admin", configuration.id, lambda old: replace(old, connection=connection))
    await house.router.reload()
    await house.deliver_all()
    assert states(house) == {"DELIVERED": 1}


async def test_an_address_that_is_not_known_three_times_pauses(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """XD14: a 404 may pass, three in a row do not."""
    hook.answer = answering(404)
    await house.configure(hook.url, options=DeliveryOptions(retry_schedule=(5, 5, 5)))
    await house.append("user.a")
    for expected in ("RETRYING", "RETRYING", "PAUSED NOT_FOUND"):
        await house.deliver_all()
        assert states(house) == {expected: 1}
        clock.pass_s(6)


async def test_a_receiver_that_is_gone_is_disabled_and_what_waits_is_cancelled(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """XD13."""
    hook.answer = lambda posted: 410 if len(hook.posted) > 3 else 503
    configuration = await house.configure(hook.url, options=DeliveryOptions(retry_schedule=(5, 5)))
    await house.append(*["user.a"] * 3)
    await house.deliver_all()
    clock.pass_s(6)
    await house.deliver_all()
    assert states(house) == {"CANCELLED GONE": 3}
    clock.pass_s(1)
    await house.append("user.b")
    await house.deliver_all()
    assert states(house) == {"CANCELLED GONE": 3, "PAUSED GONE": 1}
    assert (await house.health(configuration)).reason == "GONE"
    assert house.told() == ["endpoint_failing", "endpoint_disabled"]
    hook.answer = lambda posted: 200
    await house.tests.test(configuration, stored=True)
    await house.router.reload()
    await house.deliver_all()
    assert states(house) == {"CANCELLED GONE": 3, "DELIVERED": 2}  # the test is one of them
    assert (await house.health(configuration)).state is HealthState.HEALTHY


async def test_what_was_gone_too_long_is_not_sent_when_it_is_back(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    hook.answer = answering(410)
    configuration = await house.configure(hook.url)
    await house.append("user.a")
    await house.deliver_all()
    clock.pass_s(1)
    await house.append("user.b")
    await house.deliver_all()
    clock.pass_s(2 * DAY_S)
    hook.answer = lambda posted: 200
    await house.tests.test(configuration, stored=True)
    assert states(house) == {"CANCELLED GONE": 1, "CANCELLED EXPIRED": 1, "DELIVERED": 1}


async def test_a_request_to_wait_holds_the_whole_configuration_and_burns_nothing(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """XD11."""
    hook.answer = answering(429, retry_after="120")
    configuration = await house.configure(hook.url)
    await house.append("user.a")
    await house.deliver_all()
    await house.append(*["user.b"] * 30)
    await house.deliver_all()
    assert len(hook.posted) == 1
    assert (await house.health(configuration)).state is HealthState.THROTTLED
    assert house.sql("SELECT max(scheduled) FROM deliveries") == [(0,)]
    clock.pass_s(119)
    await house.deliver_all()
    assert len(hook.posted) == 1
    hook.answer = lambda posted: 200
    clock.pass_s(2)
    await house.deliver_all()
    assert states(house) == {"DELIVERED": 31}
    assert house.told() == []


async def test_a_schedule_of_its_own_is_followed_to_its_end(house: DispatchHouse, clock: Clock) -> None:
    """XD16: given up, told in the log, kept, and begun anew by hand."""
    await house.configure(NOWHERE, options=DeliveryOptions(retry_schedule=(1, 2)))
    await house.append("user.a")
    for wait_s in (1, 2, 0):
        await house.deliver_all()
        clock.pass_s(wait_s)
    assert states(house) == {"EXHAUSTED ATTEMPTS": 1}
    assert house.sql("SELECT count(*), max(error_class) FROM attempts") == [(3, "CONNECTION_REFUSED")]
    assert house.told() == ["endpoint_failing", "delivery_exhausted"]


async def test_five_days_of_failures_disable_and_a_test_enables_again(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """XD15: the state is in the store, the log is told on the way, another configuration hears of it."""
    hook.answer = lambda posted: 200 if posted.path == "/other" else 500
    dead = await house.configure(hook.url)
    await house.configure(hook.url.replace("/hook", "/other"), "system.notifications.*")
    await house.router.reload()
    for _ in range(121):
        await house.append("user.a")
        await house.deliver_all()
        clock.pass_s(3600)
    health = await house.health(dead)
    assert (health.state, health.reason) == (HealthState.DISABLED, "FAILURES")
    notices = [name for name in house.told() if name.startswith("endpoint")]
    assert notices == ["endpoint_failing"] * 4 + ["endpoint_disabled"]
    heard = [data(p) for p in hook.posted if p.path == "/other"]
    assert [e["details"]["percent"] for e in heard if e["resource"]["id"] == dead.id and "percent" in e["details"]] == [
        0, 50, 70, 90, 100,
    ]  # fmt: skip
    before = len(hook.posted)
    clock.pass_s(DAY_S / 2)
    await house.append("user.b")
    await house.deliver_all()
    assert len([p for p in hook.posted[before:] if p.path == "/hook"]) == 0
    hook.answer = lambda posted: 200
    await house.tests.test(dead, stored=True)
    await house.router.reload()
    await house.deliver_all()
    assert (await house.health(dead)).state is HealthState.HEALTHY
    assert house.told()[-1] == "endpoint_recovered"
    sums = house.sums()
    assert sums.open == 0
    assert sums.cancelled > 0  # what was held for longer than a day


async def test_the_end_of_a_notice_is_no_news(house: DispatchHouse, clock: Clock) -> None:
    """An operational notice that cannot be delivered writes no event, or there would be no end of them."""
    await house.configure(NOWHERE, options=DeliveryOptions(retry_schedule=(1,)))
    await house.configure("http://127.0.0.1:10/", "system.*", options=DeliveryOptions(retry_schedule=(1,)))
    await house.router.reload()
    await house.append("user.a")
    for _ in range(6):
        await house.deliver_all()
        clock.pass_s(60)
    told = house.told()
    assert told.count("delivery_exhausted") == 1
    assert set(told) == {"endpoint_failing", "delivery_exhausted"}
    assert house.sums().open == 0


async def test_our_own_outage_burns_nothing_and_blames_nobody(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XD17: no name can be looked up; then it can."""
    resolved = asyncio.get_running_loop().getaddrinfo

    async def down(*arguments: Any, **named: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", down)
    configuration = await house.configure(hook.url.replace("127.0.0.1", "localhost"))
    await house.append("user.a")
    for _ in range(12):
        await house.deliver_all()
        clock.pass_s(301)
    assert house.sql("SELECT state, scheduled, error_class FROM deliveries") == [("RETRYING", 0, "DNS_UNAVAILABLE")]
    assert await house.health(configuration) == (await house.notifications.get("admin", configuration.id)).health
    assert (await house.health(configuration)).failures == 0
    assert house.told() == []
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
    await house.deliver_all()
    assert house.sql("SELECT state FROM deliveries") in ([("DELIVERED",)], [("RETRYING",)])
