"""Whose turn it is, who owns an attempt, and what ends alone: on real parts stepped by hand.

After every scenario the sums of promise P3 hold.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from tocsin_server.domain.answers import unmade
from tocsin_server.domain.deliveries import DeliverySums
from tocsin_server.domain.delivery_ports import Sent
from tocsin_server.domain.lanes import Want
from tocsin_server.domain.notifications import Delivery, Message, Outcome, State
from tocsin_server.domain.options import DeliveryOptions
from tocsin_server.domain.settlement import Plan
from tocsin_server.domain.verdicts import Verdict

from tests.support.delivery_scenarios import answering, clock, data, house, states
from tests.support.dispatch_house import Clock, DispatchHouse
from tests.support.receivers import WebhookReceiver

DAY_S = 86_400
NOWHERE = "http://127.0.0.1:9/"
__all__ = ["clock", "house"]


async def test_a_dead_receiver_is_asked_little_and_loses_nothing(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """XD12, XD32: the breaker opens, one at a time finds out, then everything goes; the newest do not wait for all."""
    hook.answer = answering(500)
    await house.configure(hook.url)
    await house.append(*["user.a"] * 500)
    for _ in range(20):
        await house.deliver_all()
        clock.pass_s(60)
    assert len(hook.posted) < 40
    hook.answer = lambda posted: 200
    clock.pass_s(900)
    await house.deliver_all()
    clock.pass_s(2 * DAY_S)  # some were on their own schedule
    await house.deliver_all()
    assert states(house) == {"DELIVERED": 500}
    order = [data(p)["position"] for p in hook.posted if p.id]
    assert max(order[40:140]) > 450


async def test_a_pace_is_kept(house: DispatchHouse, clock: Clock, hook: WebhookReceiver) -> None:
    """Evenly spaced, one at a time."""
    await house.configure(hook.url, options=DeliveryOptions(rate_per_second=0.5))
    await house.append(*["user.a"] * 5)
    for seconds in range(9):
        await house.deliver_all()
        assert len(hook.posted) == seconds // 2 + 1
        clock.pass_s(1)


async def test_two_servers_do_not_send_one_delivery(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """XD5, in its form for one process: two claims of the same line never give the same delivery."""
    house.deliverer.lanes.open = False
    configuration = await house.configure(hook.url)
    await house.append(*["user.a"] * 50)
    await house.route()
    wants = [Want(("admin", configuration.id), 7, 2)]
    claimed = await asyncio.gather(*[house.outbox.claim(wants) for _ in range(8)])
    ids = [row.id for answers in claimed for answer in answers for row in answer.rows]
    assert len(ids) == len(set(ids)) == 50


async def test_the_result_of_an_attempt_that_was_taken_over_is_dropped(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    """XD6: the process slept for longer than its lease; the attempt is kept, the delivery is the other's."""
    configuration = await house.configure(hook.url)
    await house.append("user.a")
    house.deliverer.lanes.open = False
    await house.route()
    (claimed,) = await house.outbox.claim([Want(("admin", configuration.id), 1)])
    (slept,) = claimed.rows
    house.deliverer.lanes.open = True
    clock.pass_s(60)
    await house.deliver_all()
    assert await house.outbox.settle(slept, Sent(Outcome(Verdict.RETRY, 500, "late"), 1, 1), Plan(0.5)) is None
    assert house.sql("SELECT state, attempt FROM deliveries") == [("DELIVERED", 2)]
    assert house.sql("SELECT number, verdict FROM attempts ORDER BY number") == [(1, "RETRY"), (2, "DELIVERED")]


class _Poisoned:
    """A kind of endpoint that cannot make one message, and trips over another."""

    kind, description = "webhook", ""
    required_fields = secret_fields = action_params = ()
    secrets_bound_to: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init__(self, other: Any) -> None:
        self._other = other

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)

    async def send(self, message: Message, connection: Any) -> Outcome:
        assert message.event is not None
        if message.event.type == "user.poison":
            return unmade("the template has no end")
        if message.event.type == "user.bug":
            raise RuntimeError("a fault of ours")
        return await self._other.send(message, connection)  # type: ignore[no-any-return]


async def test_a_poisoned_message_ends_alone(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """XD27: EXHAUSTED {RENDER}, and nobody behind it waits."""
    kinds: Any = house.kinds
    kinds["webhook"] = _Poisoned(kinds["webhook"])
    configuration = await house.configure(hook.url)
    await house.append("user.poison", "user.bug", "user.fine")
    await house.deliver_all()
    assert states(house) == {"EXHAUSTED RENDER": 1, "RETRYING": 1, "DELIVERED": 1}
    assert (await house.health(configuration)).failures == 0


async def test_an_event_that_cannot_be_read_holds_nobody_up(house: DispatchHouse, hook: WebhookReceiver) -> None:
    """XD27: the router passes on."""
    await house.configure(hook.url)
    await house.append("user.a", "user.b")
    trace = house.outbox.trace
    broken = house.tail.after(0, 1)
    assert broken is not None

    def fails(frame: bytes) -> Any:
        if frame == broken[0].frame:
            raise ValueError("no event")
        return trace(frame)

    house.outbox.trace = fails  # type: ignore[assignment]
    await house.deliver_all()
    assert [data(p)["type"] for p in hook.posted] == ["user.b"]


@pytest.mark.parametrize("change", ["deleted", "disabled"])
async def test_a_configuration_that_changes_between_attempts(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver, change: str
) -> None:
    """XD28."""
    hook.answer = answering(500)
    configuration = await house.configure(hook.url)
    await house.append("user.a")
    await house.deliver_all()
    if change == "deleted":
        await house.notifications.delete("admin", configuration.id)
    else:
        await house.notifications.update("admin", configuration.id, lambda old: replace(old, enabled=False))
    await house.router.reload()
    clock.pass_s(6)
    hook.answer = lambda posted: 200
    await house.deliver_all()
    assert states(house) == ({"CANCELLED DELETED": 1} if change == "deleted" else {"PAUSED DISABLED": 1})
    if change == "disabled":
        await house.notifications.update("admin", configuration.id, lambda old: replace(old, enabled=True))
        await house.router.reload()
        await house.deliver_all()
        assert states(house) == {"DELIVERED": 1}


async def test_what_is_open_for_seven_days_is_given_up_with_one_notice(house: DispatchHouse, clock: Clock) -> None:
    configuration = await house.configure(NOWHERE)
    await house.notifications.update("admin", configuration.id, lambda old: replace(old, enabled=False))
    await house.append(*["user.a"] * 30)
    await house.deliver_all()
    clock.pass_s(7 * DAY_S + 1)
    await house.outbox.sweep()
    assert states(house) == {"EXHAUSTED EXPIRED": 30}
    assert house.told() == ["delivery_exhausted"]


async def test_what_ended_long_ago_is_purged_and_the_sums_stay(
    house: DispatchHouse, clock: Clock, hook: WebhookReceiver
) -> None:
    await house.configure(hook.url)
    await house.append(*["user.a"] * 10)
    await house.deliver_all()
    clock.pass_s(20 * DAY_S)
    await house.append("user.b")
    await house.deliver_all()
    before = house.sums()
    clock.pass_s(11 * DAY_S)
    await house.outbox.sweep()
    assert house.sql("SELECT count(*) FROM deliveries") == [(1,)]
    assert house.sql("SELECT count(*) FROM attempts") == [(1,)]
    assert house.sums() == before == DeliverySums(11, 11, 0, 0, 0, 0)


async def test_a_lane_of_a_deleted_configuration_is_emptied(house: DispatchHouse, hook: WebhookReceiver) -> None:
    now = house.runtime.now()
    row = Delivery("admin", "d1", "alert/x/1/i/0", "nobody", "webhook", State.PENDING, now, now, alert_id="x")
    await house.outbox.insert(row)
    await house.deliver_all()
    assert states(house) == {"CANCELLED DELETED": 1}
