"""`where` through a real server: in lists, subscriptions, deletions and summaries, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from tocsin.v1 import event_log_pb2 as pb

from tests.service.test_event_log import listed
from tests.support.servers import Api, Subscriber, refused, serving

FAILED = "event.details.exitcode > 0 && event.details.cmd.startsWith('skopeo')"


def run(name: str, exitcode: float | None, cmd: str = "skopeo copy") -> pb.Event:
    event = pb.Event(type="user.run", id=name)
    if exitcode is not None:
        event.details.struct_value.update({"exitcode": exitcode, "cmd": cmd})
    return event


RUNS = [run("ok", 0), run("bad", 1), run("none", None), run("other", 2, "docker pull"), run("worse", 2.5)]


async def append(api: Api, *events: pb.Event) -> None:
    await api.events.AppendEvents(pb.AppendEventsRequest(events=events))


async def test_a_list_a_deletion_and_a_summary_mean_the_same(api: Api) -> None:
    """C07: what is asked is in the structure of the details."""
    await append(api, *RUNS)
    assert [e.id for e in await listed(api, where=FAILED, newest_first=False)] == ["bad", "worse"]
    wanted = pb.EventFilter(where=FAILED)
    summary = await api.events.SummarizeEvents(pb.SummarizeEventsRequest(filter=wanted))
    assert summary.total_count == 2
    request = pb.DeleteEventsRequest(filter=wanted, validate_only=True)
    (preview,) = [message async for message in api.events.DeleteEvents(request)]
    assert preview.preview.matching_count == 2
    assert {event.id for event in preview.preview.sample} == {"bad", "worse"}
    request.validate_only = False
    steps = [message async for message in api.events.DeleteEvents(request)]
    assert [event_id for step in steps for event_id in step.progress.ids] == ["bad", "worse"]
    assert steps[-1].done.deleted_count == 2
    assert {e.id for e in await listed(api)} == {"ok", "none", "other"}


async def test_a_subscription_tells_what_stands_and_what_comes(api: Api) -> None:
    await append(api, *RUNS[:2])
    beginning = pb.SubscribeRequest.Beginning()
    first = Subscriber(api, filter=pb.EventFilter(where=FAILED), beginning=beginning)
    second = Subscriber(api, filter=pb.EventFilter(where="!(" + FAILED + ")"), beginning=beginning)
    await first.until(step="caught_up")
    await second.until(step="caught_up")
    await append(api, *RUNS[2:])
    await first.until(count=2)
    await second.until(count=2)
    assert [event.id for event in first.events] == ["bad", "worse"]
    assert [event.id for event in second.events] == ["ok", "other"]  # "none" can be asked neither
    await first.close()
    await second.close()


async def test_a_condition_that_fails_on_events_hides_no_other(api: Api) -> None:
    """A missing key, a sentence where a structure was: the event does not match, the page goes on."""
    sentence = pb.Event(type="user.run", id="sentence")
    sentence.details.string_value = "cannot fetch image digest/manifest from registry"
    await append(api, *RUNS, sentence)
    assert [e.id for e in await listed(api, where="event.details.exitcode == 0")] == ["ok"]
    assert [e.id for e in await listed(api, where="event.details.contains('digest')")] == ["sentence"]
    assert {e.id for e in await listed(api, where="has(event.details.exitcode) || event.type == 'user.run'")} == {
        "ok", "bad", "none", "other", "worse", "sentence",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("event.nope == 1", "line 1, column 6: undefined field 'nope'"),
        ("' OR 1=1--", "line 1, column 1"),
        ("(" * 500 + "true" + ")" * 500, "recursion limit exceeded"),
        ("(" * 10_000, "has 10000 characters, at most 1024 are allowed"),
        ("event.type", "gives string"),
        ("event.type.matches('(?=a)')", "no RE2"),
        ("event.details.l.all(x, event.details.l.all(y, event.details.l.all(z, true)))", "parts of 'x' only"),
    ],
)
async def test_every_call_with_a_filter_refuses_it_by_its_path(api: Api, text: str, says: str) -> None:
    """XB19, XE13: with the place in the text, before anything is read or deleted."""
    wanted = pb.EventFilter(where=text)
    calls: list[Any] = [
        api.events.ListEvents(pb.ListEventsRequest(filter=wanted)),
        api.events.SummarizeEvents(pb.SummarizeEventsRequest(filter=wanted)),
        api.events.Subscribe(pb.SubscribeRequest(filter=wanted)),
        api.events.DeleteEvents(pb.DeleteEventsRequest(filter=wanted)),
    ]
    for call in calls:
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert list(refusal.fields) == ["filter.where"]
        assert says in refusal.fields["filter.where"]


async def test_dear_conditions_over_large_events_do_not_hold_the_server_up(api: Api) -> None:
    """Pages end in time, with a token, and other calls are answered meanwhile."""
    large = pb.Event(type="large")
    large.details.struct_value.update({"l": [0] * 9_000, "s": "a" * 100_000})
    for _ in range(4):
        await append(api, *[large] * 10)
    dear = " || ".join(['event.details.s.matches("a.*b.*c")'] * 8) + " || event.details.l.exists(x, x == 1.0)"
    request, pages, began = pb.ListEventsRequest(filter=pb.EventFilter(where=dear)), 0, time.perf_counter()
    slowest = 0.0
    while True:
        call = api.events.ListEvents(request)
        asked = time.perf_counter()
        await api.events.GetLogStatus(pb.GetLogStatusRequest())
        slowest = max(slowest, time.perf_counter() - asked)
        page = await call
        assert not page.events
        pages += 1
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert pages <= 40
    assert slowest < 2
    assert time.perf_counter() - began < 30


async def test_a_page_token_belongs_to_its_condition(api: Api) -> None:
    """XB16: another `where` is another question."""
    await append(api, *RUNS)
    request = pb.ListEventsRequest(filter=pb.EventFilter(where="event.type == 'user.run'"), page_size=1)
    request.page_token = (await api.events.ListEvents(request)).next_page_token
    request.filter.where = "true"
    assert (await refused(api.events.ListEvents(request))).reason == "PAGE_TOKEN_MISMATCH"


async def test_what_a_subscriber_reads_from_the_store_is_asked_too(tmp_path: Any) -> None:
    """After a restart nothing is in memory: history comes from the store."""
    async with serving(tmp_path) as api:
        await append(api, *RUNS)
    async with serving(tmp_path) as api:
        beginning = pb.SubscribeRequest.Beginning()
        late = Subscriber(api, filter=pb.EventFilter(where=FAILED), beginning=beginning, stop_when_caught_up=True)
        await late.until(step="end")
        assert [event.id for event in late.events] == ["bad", "worse"]
