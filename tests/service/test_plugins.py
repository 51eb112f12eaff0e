"""Plug-ins in runs: the source's words do what the source says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tocsin_server.domain.alerting import Action, AlertStatus, RunErrorReason
from tocsin_server.domain.event_log import OwnEvent
from tocsin_server.plugins import AlreadyScheduled, ExecutorOptions, State

from tests.support.alert_house import MINUTE, House, deliveries
from tests.support.plugin_bench import ALERT, Body, bench_of, schedule


async def test_the_sources_example_renders_to_the_letter(house: House) -> None:
    """KM10, KC1, KI3, KI5, KE4, KE18: replaced state and context in the templates of a run; its words are chainable."""
    body = (
        "The server {{context.server}} has a CPU usage of {{state.cpuUsage}}%. This message for "
        "{{alertInstanceId}} was created by the alert {{alertId}} {{alertName}}."
    )
    subject = "A notification about {{context.server}}"
    params = {"from": "example@elastic.co", "to": ["destination@elastic.co"], "subject": subject, "body": body}
    bench = await bench_of(house, actions=(Action("default", "hook", params),))

    def execute(options: ExecutorOptions) -> None:
        factory = options.services.alert_instance_factory
        factory("server_1").replace_state({"cpuUsage": 80.0}).schedule_actions("default", {"server": "server_1"})

    await bench.run(execute)
    ((_, state, _, content, _),) = deliveries(house)
    assert state == "PENDING"  # nothing was sent by the run itself
    assert content == {
        "from": "example@elastic.co",
        "to": ["destination@elastic.co"],
        "subject": "A notification about server_1",
        "body": "The server server_1 has a CPU usage of 80%. This message for server_1 was created by the alert "
        f"{bench.alert.id} cpu alert.",
    }


async def test_what_an_executor_is_given(house: House) -> None:
    """KE6-KE11, KE13, KE14: who and what the alert is, when it runs and ran, its params and what it left behind."""
    bench = await bench_of(house)
    await bench.run(lambda options: {"lastChecked": options.started_at})
    house.clock.time += 1
    await bench.run(lambda options: 1 / 0)
    await bench.run(lambda options: None)
    first, second, third = bench.seen
    assert (first.alert_id, first.name, first.tags) == (bench.alert.id, "cpu alert", ("infra", "cpu"))
    assert first.space_id == "acme"
    assert first.params == {"server": "server_1", "threshold": 0.8}
    assert first.scheduled_at == first.started_at == datetime(2027, 1, 15, 8, tzinfo=UTC)
    assert (first.previous_started_at, first.state) == (None, {})
    assert second.started_at == first.started_at + timedelta(minutes=1, microseconds=1)
    # The second failed: the third knows of the first.
    assert third.previous_started_at == first.started_at
    assert third.state == {"lastChecked": "2027-01-15T08:00:00Z"}


async def test_the_namespace_is_the_space_and_the_account_admin_has_none(house: House) -> None:
    """KE11, KE12."""
    bench = await bench_of(house)
    await house.create(ALERT, account="admin")
    await bench.run(lambda options: None)
    assert {options.space_id: options.namespace for options in bench.seen} == {"acme": "acme", "admin": None}


async def test_who_made_an_alert_and_who_changed_it_last(house: House) -> None:
    """KE15, KE16."""
    bench = await bench_of(house)
    alert = await house.create(ALERT, account="theirs", created_by="ann", updated_by="ann")
    await bench.run(lambda options: None)
    await house.alerts.update(replace(alert, updated_by="ben"), run_now=False)
    await bench.run(lambda options: None)
    theirs = [options for options in bench.seen if options.space_id == "theirs"]
    assert [(options.created_by, options.updated_by) for options in theirs] == [("ann", "ann"), ("ann", "ben")]


async def test_what_is_returned_is_the_next_state_and_nothing_clears_it(house: House) -> None:
    """KE9, KE17."""
    bench = await bench_of(house)
    await bench.run(lambda options: {"n": 1, "at": options.started_at, "list": (1, 2.0)})
    assert (await bench.state())[0] == {"n": 1, "at": "2027-01-15T08:00:00Z", "list": [1, 2]}
    await bench.run(lambda options: None)
    assert (await bench.state())[0] == {}


async def test_an_async_executor_runs_to_its_end(house: House) -> None:
    """KR9, KE19: one execution, many instances."""
    bench = await bench_of(house)

    async def execute(options: ExecutorOptions) -> State:
        await asyncio.sleep(0)
        for server in ("a", "b", "c"):
            options.services.alert_instance_factory(server).schedule_actions("default", {"server": server})
        return {"done": True}

    assert (await bench.run(execute)).status is AlertStatus.ACTIVE
    assert await bench.state() == ({"done": True}, {"a": {}, "b": {}, "c": {}})


async def test_the_state_of_an_instance(house: House) -> None:
    """KI1, KI2, KI5: empty when new, replaced whole, there again for the same id, erased when it is not active."""
    bench = await bench_of(house)
    states: list[Any] = []

    def look(options: ExecutorOptions) -> None:
        states.append(dict(options.services.alert_instance_factory("a").get_state()))

    for scheduled in (schedule("a", cpuUsage=80, more=1), schedule("a", cpuUsage=90), schedule("a"), None, None):

        def execute(options: ExecutorOptions, then: Body | None = scheduled) -> None:
            look(options)
            if then is not None:
                then(options)

        await bench.run(execute)
    # The third run does not replace it: it stays. The fourth does not schedule: it is erased.
    assert states == [{}, {"cpuUsage": 80, "more": 1}, {"cpuUsage": 90}, {"cpuUsage": 90}, {}]


async def test_ids_are_those_of_one_alert(house: House) -> None:
    """KI1: the same id in another alert is another instance."""
    bench = await bench_of(house)
    other = await house.create(ALERT)
    await bench.run(schedule("a", n=1))
    assert (await bench.state())[1] == {"a": {"n": 1}}
    await house.alerts.disable("acme", other.id, "u")
    assert (await bench.state())[1] == {"a": {"n": 1}}


async def test_an_instance_that_was_created_and_never_scheduled(house: House) -> None:
    """Trap 3: it was never active, so it does not recover."""
    bench = await bench_of(house)
    await bench.run(lambda options: options.services.alert_instance_factory("a").replace_state({"n": 1}) and None)
    assert house.told() == []
    assert bench.sent() == []
    assert await bench.state() == ({}, {})


@pytest.mark.parametrize("first", ["schedule_actions", "schedule_actions_with_sub_group"])
@pytest.mark.parametrize("second", ["schedule_actions", "schedule_actions_with_sub_group"])
async def test_actions_are_scheduled_once(house: House, first: str, second: str) -> None:
    """KI3, KI4: the second time is an error, whichever way."""
    bench = await bench_of(house)
    more = {"schedule_actions": ("default",), "schedule_actions_with_sub_group": ("default", "sub")}
    raised: list[AlreadyScheduled] = []

    def execute(options: ExecutorOptions) -> None:
        for name in (first, second):
            instance = options.services.alert_instance_factory("a")
            try:
                getattr(instance, name)(*more[name])
            except AlreadyScheduled as error:
                raised.append(error)
                raise

    failed = await bench.run(execute)
    (error,) = raised
    assert "have already been scheduled, cannot schedule twice" in str(error)
    assert failed.error is not None
    assert (failed.error.reason, failed.error.message) == (RunErrorReason.EXECUTE, str(error))


async def test_groups_throttles_and_recovery(house: House) -> None:
    """KI6, KI7, KI9: a group change is not throttled, a sub-group change only if both named one; recovery is told."""
    bench = await bench_of(house, throttle="1h")
    for group, sub_group in (
        ("default", ""), ("default", ""), ("warning", ""), ("default", "x"),
        ("default", "x"), ("default", "y"), ("default", ""), ("default", "z"),
    ):  # fmt: skip
        await bench.run(schedule("a", group, sub_group, cpuUsage=80))
    await bench.run(lambda options: None)
    assert bench.sent() == ["a a 80", "warning a", "a a 80", "a a 80", "a is fine"]


async def test_actions_are_for_groups(house: House) -> None:
    """KI8, KR4: an unknown group is an error of the run, a sub-group may be anything."""
    bench = await bench_of(house)
    unknown = await bench.run(schedule("a", "purple"))
    assert unknown.error is not None
    assert "unknown group 'purple'" in unknown.error.message
    assert (await bench.run(schedule("a", "default", "anything at all"))).status is AlertStatus.ACTIVE


async def test_the_log_is_read_as_the_owner(house: House) -> None:
    """KE1, KE2, KE3: in the alert's account only, as it stood at the scheduled time."""
    bench = await bench_of(house)
    await bench.run(lambda options: None)
    for account, usage in (("acme", 0.5), ("acme", 1.0), ("other", 9.0)):
        await house.append(OwnEvent(account, "system.cpu", "m", {"usage": usage}, resource_id=account))
    found: list[Any] = []

    def execute(options: ExecutorOptions) -> None:
        events, minutes = options.services.events, timedelta(minutes=5)
        asked = {"types": ["system.*"], "levels": ["info"], "group_by": ["resource_id"]}
        found.append(events.aggregate(minutes, aggregation="avg", field="details.usage", **asked))
        (group,) = found[-1]
        found.append(events.samples(events.question(minutes, **asked), [group.values], 1)[group.values])
        with pytest.raises(TypeError):
            events.question(minutes, colour=["red"])

    house.clock.time += MINUTE
    assert (await bench.run(execute)).status is AlertStatus.OK
    ((group,), (sample,)) = found
    assert (group.values, group.count, group.value) == (("acme",), 2, 0.75)
    assert (sample.type, sample.message) == ("system.cpu", "m")


async def test_a_line_in_the_servers_log(house: House, logged: Callable[[], list[dict[str, Any]]]) -> None:
    """KE5: tags, data, a time; the tags say how grave it is, and there is an end to it."""
    bench = await bench_of(house)

    def execute(options: ExecutorOptions) -> None:
        services = options.services
        services.log(["warning", "cpu"], {"at": options.started_at, "odd": {1}}, options.started_at)
        services.log(["cpu"], "x" * 10_000)
        for _ in range(500):
            services.log(["debug"])

    assert (await bench.run(execute)).error is None
    said = [line for line in logged() if line["event"] == "a plug-in says"]
    assert len(said) == 100
    assert (said[0]["level"], said[0]["tags"], said[0]["alert_id"]) == ("warning", ["warning", "cpu"], bench.alert.id)
    assert said[0]["data"] == '{"at": "2027-01-15T08:00:00Z", "odd": "{1}"}'
    assert said[0]["at"] == "2027-01-15T08:00:00+00:00"
    assert (said[1]["level"], len(said[1]["data"])) == ("info", 4096)
