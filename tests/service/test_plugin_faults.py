"""What a plug-in does wrong, or too slowly, is an error of its run and nobody else's."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tocsin_server.domain.alerting import AlertStatus, RunErrorReason
from tocsin_server.plugins import ExecutorOptions, RunEnded

from tests.support.alert_house import House
from tests.support.plugin_bench import ALERT, Body, bench_of, schedule


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (lambda o: 1 / 0, RunErrorReason.EXECUTE, "ZeroDivisionError"),
        (lambda o: sys.exit(3), RunErrorReason.EXECUTE, "SystemExit"),
        (lambda o: "text", RunErrorReason.EXECUTE, "is not an object"),
        (lambda o: {"n": {1, 2}}, RunErrorReason.EXECUTE, "set is not JSON"),
        (lambda o: {"n": float("nan")}, RunErrorReason.EXECUTE, "not a finite number"),
        (lambda o: {"n": "x" * 1024 * 1024}, RunErrorReason.LIMIT, "larger than 1048576 bytes"),
        (schedule("a", n="x" * 64 * 1024), RunErrorReason.LIMIT, "larger than 65536 bytes"),
        (schedule("a", n=object()), RunErrorReason.EXECUTE, "object is not JSON"),
        (schedule("x" * 1025), RunErrorReason.EXECUTE, "is empty or too long"),
    ],
)
async def test_what_a_plugin_does_wrong_is_an_error_of_its_run(
    house: House, body: Body, reason: RunErrorReason, words: str
) -> None:
    """KE17: state and context are JSON of limited size; nothing of the run is kept."""
    bench = await bench_of(house)
    await bench.run(lambda o: (schedule("a", n=1)(o), {"kept": True})[1])
    failed = await bench.run(body)
    assert failed.error is not None
    assert failed.error.reason is reason
    assert words in failed.error.message
    assert await bench.state() == ({"kept": True}, {"a": {"n": 1}})


@pytest.mark.parametrize("ends", [False, True])
async def test_an_executor_that_takes_too_long(house: House, ends: bool) -> None:
    """Its run is over; what it says afterwards comes too late, and the next run is not held up."""
    bench = await bench_of(house, timeout_s=0.1)
    go, said = threading.Event(), threading.Event()
    late: list[BaseException] = []

    def execute(options: ExecutorOptions) -> None:
        go.wait(30)
        try:
            schedule("a")(options)
        except RunEnded as error:
            late.append(error)
        said.set()

    slow = await bench.run(execute)
    assert slow.error is not None
    assert slow.error.reason is RunErrorReason.TIMEOUT
    if ends:
        go.set()
        assert await asyncio.to_thread(said.wait, 30)
        assert len(late) == 1
    assert (await bench.run(schedule("b"))).status is AlertStatus.ACTIVE
    go.set()


async def test_an_async_executor_that_takes_too_long_is_cancelled(house: House) -> None:
    bench = await bench_of(house, timeout_s=0.1)
    cancelled = threading.Event()

    async def execute(options: ExecutorOptions) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    slow = await bench.run(execute)
    assert slow.error is not None
    assert slow.error.reason is RunErrorReason.TIMEOUT
    assert await asyncio.to_thread(cancelled.wait, 30)


async def test_an_executor_that_never_ends_frees_its_place_and_stops_no_other_alert(house: House) -> None:
    """XE2: it ignores its end; its alert alone is told what it waits for, and goes on when that has ended."""
    bench = await bench_of(house, timeout_s=0.1, hung_max={"alert": 2, "account": 8, "type": 8})
    other = await house.create(replace(ALERT, name="other"))
    go, hung = threading.Event(), list[threading.Thread]()

    def execute(options: ExecutorOptions) -> None:
        if options.alert_id == bench.alert.id:
            hung.append(threading.current_thread())
            go.wait(30)

    for _ in range(4):
        await bench.run_all(execute)
        assert (await house.alerts.get("acme", other.id)).status is AlertStatus.OK
    stuck = await house.alerts.get("acme", bench.alert.id)
    assert stuck.error is not None
    assert (stuck.error.reason, len(hung)) == (RunErrorReason.TIMEOUT, 2)
    assert "2 runs of this alert have taken too long and have not ended yet" in stuck.error.message
    go.set()
    for thread in hung:
        await asyncio.to_thread(thread.join)
    await bench.run_all(schedule("a"))
    assert (await house.alerts.get("acme", bench.alert.id)).status is AlertStatus.ACTIVE


async def test_alerts_that_never_end_are_bounded_for_an_account_and_for_a_type(house: House) -> None:
    """XE2: threads that cannot be stopped are so many."""
    bench = await bench_of(house, timeout_s=0.1, hung_max={"alert": 2, "account": 3, "type": 3})
    alerts = [bench.alert, *[await house.create(replace(ALERT, name=f"a{number}")) for number in range(4)]]
    go = threading.Event()
    await bench.run_all(lambda options: go.wait(30) and None)
    found = [(await house.alerts.get("acme", alert.id)).error for alert in alerts]
    go.set()
    words = Counter("this account" in error.message for error in found if error is not None)
    assert words == {False: 3, True: 2}


async def test_a_read_that_takes_too_long_gives_its_reader_back(house: House) -> None:
    bench = await bench_of(house, timeout_s=0.1)
    endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"

    def execute(options: ExecutorOptions) -> None:
        reads: Any = options.services.events._context.events
        reads._read(lambda store: store._connection.execute(endless).fetchone())

    for _ in range(3):  # more than there are readers
        late = await bench.run(execute)
        assert late.error is not None
        assert late.error.reason is RunErrorReason.TIMEOUT
    fine = await bench.run(lambda options: options.services.events.aggregate(timedelta(minutes=1)) and None)
    assert fine.error is None


async def test_a_timeout_of_its_own_is_a_fault_of_the_executor(house: House) -> None:
    def execute(options: ExecutorOptions) -> None:
        raise TimeoutError("the database")

    failed = await (await bench_of(house)).run(execute)
    assert failed.error is not None
    assert (failed.error.reason, "TimeoutError" in failed.error.message) == (RunErrorReason.EXECUTE, True)
