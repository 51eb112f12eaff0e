"""Previews: a replay says what live runs did, of which events whatever came late, and sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1.alerting_pb2_grpc import AlertingStub
from tocsin_server.domain import replay
from tocsin_server.domain.alerting import Alert, AlertSpec
from tocsin_server.previewing import ChildPreviews

from tests.service.test_alert_control import executions, run
from tests.service.test_firing import fail, firing
from tests.support.alerts import OTHER, alert, create, struct, webhook
from tests.support.plugin_packages import install
from tests.support.processes import ServerProcess
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, Refusal, refused, serving

SECOND = 1_000_000


async def preview(api: Api, **request: Any) -> list[pb.PreviewAlertResponse]:
    call = api.alerting.PreviewAlert(pb.PreviewAlertRequest(**request))
    return [part async for part in call]


def runs(parts: list[pb.PreviewAlertResponse]) -> list[pb.PreviewAlertResponse.Run]:
    return [part.run for part in parts if part.HasField("run")]


def time(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // SECOND, nanos=micros % SECOND * 1000)


async def test_a_preview_is_what_live_runs_did(api: Api, hook: WebhookReceiver) -> None:
    """Every run from the alert's first on: what changed, what was told and what was said."""
    created = await create(api, firing(await webhook(api, hook.url)))
    for resource in ("nginx", "nginx", "redis", "redis"):
        await fail(api, resource)
    posted = await hook.until(4)  # both became active, and have recovered two seconds later
    await api.alerting.DisableAlert(pb.DisableAlertRequest(id=created.id))
    live = [one for one in reversed(await executions(api, created.id)) if one.status != pb.ALERT_STATUS_PENDING][1:]
    first, last = live[0].scheduled_time.ToMicroseconds(), live[-1].scheduled_time.ToMicroseconds()
    parts = await preview(api, id=created.id, start_time=time(first), end_time=time(last + 1), every_run=True)
    replayed = {one.execution.scheduled_time.ToMicroseconds(): one for one in runs(parts)}
    for execution in live:
        there = replayed[execution.scheduled_time.ToMicroseconds()].execution
        assert there.status == execution.status
        assert [(i.id, i.action_group, i.recovered, i.verdict) for i in there.instances] == [
            (i.id, i.action_group, i.recovered, i.verdict) for i in execution.instances
        ]
    said = [str(n.params["body"]) for one in runs(parts) for n in one.notifications]
    assert sorted(said) == sorted(p.body.decode() for p in posted)
    kinds = [t.type for one in runs(parts) for t in one.transitions]
    assert kinds.count("system.alerting.new_instance") == kinds.count("system.alerting.recovered_instance") == 2
    assert parts[0].started.runs == len(replayed) == parts[-1].done.runs
    assert (parts[-1].done.notifications, parts[-1].done.errors, parts[-1].done.incomplete) == (4, 0, False)
    again = await preview(api, id=created.id, start_time=time(first), end_time=time(last + 1), every_run=True)
    assert runs(again) == runs(parts)


async def test_an_alert_that_is_not_stored_can_be_previewed(api: Api, hook: WebhookReceiver) -> None:
    """What is quiet is left out; nothing is written or sent, mutes are left out of account."""
    await fail(api, "nginx")
    listed = await api.events.ListEvents(log_pb.ListEventsRequest())
    failed_at = listed.events[0].timestamp.ToMicroseconds()
    made_up = firing(await webhook(api, hook.url), throttle="1s", mute_all=True)
    made_up.params.update({"threshold": 1, "window": "2s"})
    async with asyncio.timeout(20):
        found: list[pb.PreviewAlertResponse.Run] = []
        while len(found) < 4:  # until time has gone on so far: OK, active, active still, recovered
            parts = await preview(api, alert=made_up, start_time=time(failed_at - 60 * SECOND))
            found = runs(parts)
    assert parts[0].started.runs >= 62
    assert [t.type.rpartition(".")[2] for one in found for t in one.transitions] == [
        "status_changed", "new_instance", "status_changed", "recovered_instance", "status_changed",
    ]  # fmt: skip
    said = [str(n.params["body"]) for one in found for n in one.notifications]
    assert said == ["nginx: 1 event in 2s with resource_id nginx: >= 1"] * 2 + ["nginx is fine"]
    assert not (await api.alerting.FindAlerts(pb.FindAlertsRequest())).alerts
    assert not hook.posted


@pytest.mark.parametrize(
    ("request_", "reason", "path"),
    [
        ({}, "INVALID_FIELD", "subject"),
        ({"id": "nobody"}, "NOT_FOUND", ""),
        ({"alert": alert(name="")}, "INVALID_FIELD", "alert.name"),
        ({"alert": alert(alert_type_id="none")}, "ALERT_TYPE_NOT_REGISTERED", ""),
        ({"alert": alert(), "start_time": Timestamp(seconds=9), "end_time": Timestamp(seconds=9)},
         "INVALID_FIELD", "start_time"),
        ({"alert": alert(schedule=pb.Schedule(interval="1s"), params=struct({"window": "1s", "threshold": 1})),
          "start_time": Timestamp(seconds=1_700_000_000)}, "INVALID_FIELD", "start_time"),
    ],
)  # fmt: skip
async def test_a_bad_preview_is_refused(api: Api, request_: dict[str, Any], reason: str, path: str) -> None:
    refusal = await refused(preview(api, **request_))
    assert (refusal.reason, list(refusal.fields)) == (reason, [path] if path else [])


@pytest.mark.parametrize(("interval", "runs_"), [("1s", 10_000), ("8s", 10_000), ("9s", 9_600), ("1h", 24)])
async def test_a_range_that_is_not_given_is_one_that_can_be_replayed(api: Api, interval: str, runs_: int) -> None:
    """A day, or what has as many runs as are replayed."""
    made_up = alert(schedule=pb.Schedule(interval=interval), params=struct({"window": "1s", "threshold": 1}))
    call = api.alerting.PreviewAlert(pb.PreviewAlertRequest(alert=made_up))
    first = await call.read()
    assert isinstance(first, pb.PreviewAlertResponse)
    assert first.started.runs == runs_
    call.cancel()


async def test_an_account_has_one_preview_at_a_time(api: Api) -> None:
    """The second is refused, another account's is not; the end of the caller ends it."""
    made_up = alert(schedule=pb.Schedule(interval="10s"))
    call = api.alerting.PreviewAlert(pb.PreviewAlertRequest(alert=made_up))
    first = await call.read()
    assert isinstance(first, pb.PreviewAlertResponse)
    assert first.HasField("started")
    assert (await refused(preview(api, alert=made_up))).reason == "TOO_MANY_PREVIEWS"
    theirs = api.alerting.PreviewAlert(pb.PreviewAlertRequest(alert=made_up), metadata=OTHER)
    assert [part async for part in theirs][-1].HasField("done")
    call.cancel()
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await call.read()
    async with asyncio.timeout(20):
        while True:
            try:
                parts = await preview(api, alert=made_up)
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert parts[-1].HasField("done")


async def test_a_preview_of_what_was_deleted_says_so(api: Api) -> None:
    created = await create(api, alert(schedule=pb.Schedule(interval="1h")))
    event = await api.append("a")
    await run(api, created.id)
    assert not (await preview(api, id=created.id))[-1].done.incomplete
    await api.events.DeleteEvent(log_pb.DeleteEventRequest(id=event.id))
    assert (await preview(api, id=created.id))[-1].done.incomplete


async def test_a_preview_that_cannot_be_read_to_its_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies: the call fails, and the server goes on."""
    async with serving(tmp_path) as api:
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        (tmp_path / "sitecustomize.py").write_text("raise SystemExit(3)", encoding="utf-8")
        assert (await refused(preview(api, alert=alert()))).reason == "INTERNAL"
        monkeypatch.delenv("PYTHONPATH")
        assert (await preview(api, alert=alert()))[-1].HasField("done")


# A type that prints more than any pipe holds before it says anything, and one that never comes to an end.
LOUD = """
import sys, time
def loud(options):
    print("x" * 1_000_000)
    print("y" * 1_000_000, file=sys.stderr)
def endless(options):
    while True:
        time.sleep(60)
TYPES = [
    plugins.AlertTypeSpec(id=e.__name__, name="t", executor=e, action_groups=(plugins.ActionGroup("default", "D"),),
                          timeout_s=3600)
    for e in (loud, endless)
]
"""


@pytest.fixture
async def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """A server with both types, in the processes of its previews too."""
    install(tmp_path, "loud", LOUD, {"all": "TYPES"})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with serving(tmp_path / "data") as api:
        yield api


def of_type(type_id: str) -> pb.Alert:
    return alert(alert_type_id=type_id, params=struct({}), schedule=pb.Schedule(interval="6h"))


async def test_a_plug_in_that_prints_does_not_hold_its_preview_up(plugged: Api) -> None:
    async with asyncio.timeout(20):
        parts = await preview(plugged, alert=of_type("loud"))
    assert (parts[-1].done.runs, parts[-1].done.errors) == (4, 0)


async def test_a_preview_that_takes_too_long_is_ended(plugged: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "DURATION_MAX_S", 0.5)
    async with asyncio.timeout(20):
        refusal = await refused(preview(plugged, alert=of_type("endless")))
    assert (refusal.reason, refusal.text) == (
        "DEADLINE_EXCEEDED", "the preview was not done within 0.5 s: choose a shorter range",
    )  # fmt: skip


async def test_a_preview_for_which_there_is_no_place_is_refused(plugged: Api) -> None:
    """Of all accounts there are two at a time; the end of one makes room."""
    request = pb.PreviewAlertRequest(alert=of_type("endless"))
    calls = [plugged.alerting.PreviewAlert(request, metadata=(("x-tocsin-account", name),)) for name in ("a1", "a2")]
    for call in calls:
        first = await call.read()
        assert isinstance(first, pb.PreviewAlertResponse)
        assert first.HasField("started")
    async with asyncio.timeout(20):
        refusal = await refused(preview(plugged, alert=of_type("loud")))
        assert (refusal.reason, refusal.text.partition(",")[0]) == ("TOO_MANY_PREVIEWS", "2 previews are under way")
        calls[0].cancel()
        while refusal.reason == "TOO_MANY_PREVIEWS":
            try:
                assert (await preview(plugged, alert=of_type("loud")))[-1].HasField("done")
                break
            except grpc.aio.AioRpcError as error:
                refusal = Refusal(error)
    calls[1].cancel()


async def test_a_preview_ends_when_the_server_stops(plugged: Api) -> None:
    """The caller is told at once where to go on, and the stop does not wait for the preview."""
    call = plugged.alerting.PreviewAlert(pb.PreviewAlertRequest(alert=of_type("endless")))
    assert isinstance(await call.read(), pb.PreviewAlertResponse)
    async with asyncio.timeout(5):  # half of what the stop waits for calls that do not end
        stopping = asyncio.create_task(plugged.app.stop())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        await stopping
    assert (caught.value.code(), Refusal(caught.value).reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
async def test_a_server_that_is_killed_leaves_no_preview_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its process is busy with."""
    install(tmp_path, "loud", LOUD, {"all": "TYPES"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ServerProcess(tmp_path / "data")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub: Any = AlertingStub(channel)
            call = stub.PreviewAlert(pb.PreviewAlertRequest(alert=of_type("endless")))
            assert isinstance(await call.read(), pb.PreviewAlertResponse)
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
            (process,) = [Path("/proc", child) for child in children if b"previewing" in command_line(child)]
            await server.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        async with asyncio.timeout(10):
            while process.exists() and "\nState:\tZ" not in (process / "status").read_text(encoding="utf-8"):
                await asyncio.sleep(0)
    finally:
        await server.clear()


def command_line(process: str) -> bytes:
    return Path("/proc", process, "cmdline").read_bytes()


# A process that answers without an end.
FLOOD = """
import sys
while True:
    sys.stdout.buffer.write(b"A\\0\\0\\0\\1x" * 1000)
"""


async def test_a_preview_ends_whatever_of_it_was_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pipe is full, and nobody reads it any more."""
    full = asyncio.Event()
    feed = asyncio.StreamReader.feed_data

    def fed(reader: Any, data: bytes) -> None:
        feed(reader, data)
        if reader._paused:
            full.set()

    monkeypatch.setattr(asyncio.StreamReader, "feed_data", fed)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(FLOOD, encoding="utf-8")
    spec = AlertSpec(name="a", alert_type_id="t", consumer="c")
    made_up = Alert("acme", "a", 1, True, spec, "", "", 0, 0)
    frames = ChildPreviews(tmp_path / "none.db").frames(replay.Order(made_up, 0, 1, True))
    async with asyncio.timeout(20):
        assert await anext(frames) == b"x"
        await full.wait()
    async with asyncio.timeout(4):
        await frames.aclose()
