"""The event log through a real server: appending, reading, deleting, idempotency."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import event_log_pb2 as pb

from tests.support.servers import Api, refused, serving


def at(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


async def listed(api: Api, page_size: int = 0, newest_first: bool = True, **criteria: Any) -> list[pb.Event]:
    """Read every page."""
    request = pb.ListEventsRequest(
        filter=pb.EventFilter(**criteria),
        page_size=page_size,
        order=pb.ORDER_NEWEST_FIRST if newest_first else pb.ORDER_OLDEST_FIRST,
    )
    found: list[pb.Event] = []
    while True:
        page = await api.events.ListEvents(request)
        found.extend(page.events)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_an_event_is_stored_whole_and_answered_as_stored(api: Api) -> None:
    """A01, B05."""
    sent = pb.Event(
        type="user.image.analysis_failed", subtype="s", level=pb.LEVEL_ERROR, message="m", category="c",
        resource=pb.EventResource(type="image_tag", id="nginx", user_id="u"),
        source=pb.EventSource(service="analyzer", host="h", base_url="http://a", request_id="r"),
        labels={"a": "1"}, correlation_id="corr",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )  # fmt: skip
    sent.details.struct_value.update({"exitcode": 1, "stderr": "line\nline", "nothing": None, "list": [1, {"a": True}]})
    sent.timestamp.FromJsonString("2026-01-02T03:04:05.123456789Z")
    answer = await api.events.AppendEvent(pb.AppendEventRequest(event=sent))
    stored = (await api.events.GetEvent(pb.GetEventRequest(id=answer.event.id))).event
    assert stored == answer.event
    assert stored.timestamp.ToJsonString() == "2026-01-02T03:04:05.123456Z"
    assert (stored.position, stored.account) == (1, "admin")
    assert stored.HasField("created_at")
    for name in ("id", "position", "account", "created_at", "timestamp"):
        stored.ClearField(name)
    sent.ClearField("timestamp")
    assert stored == sent


async def test_what_is_left_out_has_a_default(api: Api) -> None:
    event = await api.append("a")
    assert len(event.id) == 32
    assert int(event.id, 16)
    assert event.level == pb.LEVEL_INFO
    assert abs(event.timestamp.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(seconds=10)


async def test_output_only_fields_that_are_sent_are_ignored(api: Api) -> None:
    event = await api.append("a", position=77, account="other")
    assert (event.position, event.account) == (1, "admin")


async def test_request_headers_are_kept_on_the_event_and_echoed(api: Api) -> None:
    """D17."""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = (("x-request-id", "r-1"), ("x-correlation-id", "c-1"), ("traceparent", traceparent))
    call = api.events.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="a")), metadata=headers)
    event = (await call).event
    assert (event.source.request_id, event.correlation_id, event.traceparent) == ("r-1", "c-1", traceparent)
    assert dict(await call.trailing_metadata()) == dict(headers)
    refusal = await refused(api.events.GetEvent(pb.GetEventRequest(id="none"), metadata=headers))
    assert refusal.trailers["x-request-id"] == "r-1"


async def test_the_same_id_again_answers_the_same_event_and_other_content_is_refused(api: Api) -> None:
    """XA20: repeats by id."""
    first = await api.append("a", id="e-1", message="m")
    assert await api.append("a", id="e-1", message="m") == first
    request = pb.AppendEventRequest(event=pb.Event(type="a", id="e-1", message="other"))
    refusal = await refused(api.events.AppendEvent(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ID_REUSED")
    assert refusal.metadata["known_digest"] != refusal.metadata["given_digest"]
    assert [e.id for e in await listed(api)] == ["e-1"]


async def test_the_same_request_id_again_answers_the_same_event(api: Api) -> None:
    """XA20: repeats by request id; P4."""
    request = pb.AppendEventRequest(event=pb.Event(type="a"), request_id="r-1")
    first, second = await asyncio.gather(api.events.AppendEvent(request), api.events.AppendEvent(request))
    assert first == second
    request.event.message = "other"
    refusal = await refused(api.events.AppendEvent(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert len(await listed(api)) == 1


async def test_a_repeat_after_deletion_says_deleted_and_stores_nothing(api: Api) -> None:
    await api.append("a", id="e-1")
    batch = pb.AppendEventsRequest(events=[pb.Event(type="b"), pb.Event(type="c")], request_id="r-1")
    first = await api.events.AppendEvents(batch)
    for event_id in ("e-1", first.results[0].id):
        await api.events.DeleteEvent(pb.DeleteEventRequest(id=event_id))
    again = await api.events.AppendEvent(pb.AppendEventRequest(event=pb.Event(type="a", id="e-1")))
    assert again.deleted
    assert (again.event.id, again.event.position, again.event.type) == ("e-1", 1, "")
    repeated = await api.events.AppendEvents(batch)
    assert [(r.id, r.position, r.deleted) for r in repeated.results] == [
        (first.results[0].id, 2, True),
        (first.results[1].id, 3, False),
    ]


async def test_a_batch_joins_old_and_new_events_in_the_order_of_the_request(api: Api) -> None:
    await api.append("a", id="old")
    events = [pb.Event(type="n", id="new-1"), pb.Event(type="a", id="old"), pb.Event(type="n")]
    answer = await api.events.AppendEvents(pb.AppendEventsRequest(events=events))
    assert [r.position for r in answer.results] == [2, 1, 3]
    assert [r.id for r in answer.results][:2] == ["new-1", "old"]
    assert answer.log_id == api.app.log_id


async def test_a_batch_is_all_or_none_and_every_bad_index_is_listed(api: Api) -> None:
    """XC12: a batch with bad events."""
    events = [pb.Event(type="ok") for _ in range(1000)]
    for index in (3, 4, 5, 700):
        events[index].type = "NOT OK"
    refusal = await refused(api.events.AppendEvents(pb.AppendEventsRequest(events=events)))
    assert set(refusal.fields) == {f"events[{index}].type" for index in (3, 4, 5, 700)}
    assert refusal.metadata["bad_indexes"] == "3-5,700"
    for event in events:
        event.type = "NOT OK"
    assert (await refused(api.events.AppendEvents(pb.AppendEventsRequest(events=events)))).metadata[
        "bad_indexes"
    ] == "0-999"
    await api.append("a", id="taken")
    twice = [pb.Event(type="b", id="taken"), pb.Event(type="c", id="x"), pb.Event(type="c", id="x")]
    refusal = await refused(api.events.AppendEvents(pb.AppendEventsRequest(events=twice)))
    assert refusal.reason == "ID_REUSED"
    assert set(refusal.fields) == {"events[0].id", "events[2].id"}
    assert len(await listed(api)) == 1


async def test_events_of_the_servers_own_service_and_far_ahead_are_refused(api: Api) -> None:
    """XC10: a timestamp far ahead."""
    event = pb.Event(type="a", source=pb.EventSource(service="tocsin"))
    event.timestamp.FromDatetime(datetime.now(UTC) + timedelta(hours=25))
    refusal = await refused(api.events.AppendEvent(pb.AppendEventRequest(event=event)))
    assert set(refusal.fields) == {"event.source.service", "event.timestamp"}


async def test_times_at_the_edges_are_taken_and_change_no_order(api: Api) -> None:
    """XC10: the epoch and 23 hours ahead; positions are in the order of appending, lists in that of time."""
    now = datetime.now(UTC)
    times = [now, now + timedelta(hours=23), datetime(1970, 1, 1, tzinfo=UTC), now - timedelta(hours=1)]
    for number, when in enumerate(times, 1):
        stored = await api.append("t", id=f"e{number}", timestamp=at(when))
        assert (stored.position, stored.timestamp) == (number, at(when))
        assert abs(stored.created_at.ToDatetime(UTC) - now) < timedelta(minutes=5)
    call = api.events.Subscribe(
        pb.SubscribeRequest(beginning=pb.SubscribeRequest.Beginning(), stop_when_caught_up=True)
    )
    followed = [event.id async for message in call for event in message.batch.events]
    assert followed == ["e1", "e2", "e3", "e4"]
    assert [event.id for event in await listed(api)] == ["e2", "e1", "e4", "e3"]


async def test_a_list_is_by_time_of_occurrence_and_a_late_event_takes_its_place(api: Api) -> None:
    """B12."""
    now = datetime.now(UTC)
    for minutes, name in ((5, "b"), (1, "d"), (9, "a"), (3, "c"), (3, "c2")):
        await api.append("t", id=name, timestamp=at(now - timedelta(minutes=minutes)))
    assert [e.id for e in await listed(api, page_size=2)] == ["d", "c2", "c", "b", "a"]
    assert [e.id for e in await listed(api, page_size=2, newest_first=False)] == ["a", "b", "c", "c2", "d"]
    window: dict[str, Any] = {"since": at(now - timedelta(minutes=5)), "before": at(now - timedelta(minutes=3))}
    assert [e.id for e in await listed(api, **window)] == ["b"]


async def test_page_tokens_are_bound_to_the_question_and_the_account(api: Api) -> None:
    """XB9, XB16: tokens of another filter, order or account; damaged, truncated, foreign and endless ones."""
    for _ in range(3):
        await api.append("t")
    request = pb.ListEventsRequest(page_size=1)
    request.page_token = (await api.events.ListEvents(request)).next_page_token
    request.page_size = 2  # the size may change
    assert len((await api.events.ListEvents(request)).events) == 2
    other_account = (("x-tocsin-account", "acme"),)
    assert (await refused(api.events.ListEvents(request, metadata=other_account))).reason == "PAGE_TOKEN_MISMATCH"
    for others in ({"order": pb.ORDER_OLDEST_FIRST}, {"filter": pb.EventFilter(types=["t"])}):
        asked = pb.ListEventsRequest(page_token=request.page_token, **others)
        assert (await refused(api.events.ListEvents(asked))).reason == "PAGE_TOKEN_MISMATCH"
    good = request.page_token
    for bad in (good[:-2] + "xx", good[:-4], good[:10], good[:1], "x" + good, good + good):
        request.page_token = bad
        assert (await refused(api.events.ListEvents(request))).reason == "INVALID_PAGE_TOKEN", bad
    for bad in ("A" * 1_000_000, "ö", "="):
        request.page_token = bad
        refusal = await refused(api.events.ListEvents(request))
        assert (refusal.code, list(refusal.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])


async def test_paging_skips_and_repeats_nothing_while_events_come_and_go(api: Api) -> None:
    """XB18: keyset paging."""
    kept = [(await api.append("t")).id for _ in range(10)]
    request = pb.ListEventsRequest(page_size=3)
    seen: list[str] = []
    while True:
        page = await api.events.ListEvents(request)
        seen += [e.id for e in page.events]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        await api.append("late")
        if len(seen) == 3:
            await api.events.DeleteEvent(pb.DeleteEventRequest(id=seen[-1]))
    assert seen == kept[::-1]


async def test_deleting_by_filter_streams_ids_and_the_count(api: Api) -> None:
    """B04: in bulk, by what they have in common or all."""
    ids = [(await api.append("user.a" if i % 2 else "user.b")).id for i in range(10)]
    wanted = pb.EventFilter(types=["user.a"])
    (preview,) = [m async for m in api.events.DeleteEvents(pb.DeleteEventsRequest(filter=wanted, validate_only=True))]
    assert preview.preview.matching_count == 5
    assert len(preview.preview.sample) == 5
    assert len(await listed(api)) == 10
    steps = [m async for m in api.events.DeleteEvents(pb.DeleteEventsRequest(filter=wanted))]
    assert [i for step in steps for i in step.progress.ids] == ids[1::2]
    assert steps[-1].done.deleted_count == 5
    assert (await refused(api.events.GetEvent(pb.GetEventRequest(id=ids[1])))).reason == "NOT_FOUND"
    everything = [m async for m in api.events.DeleteEvents(pb.DeleteEventsRequest(all=True))]
    assert everything[-1].done.deleted_count == 5
    assert not await listed(api)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.DeleteEventsRequest(), "filter"),
        (pb.DeleteEventsRequest(all=True, filter=pb.EventFilter(types=["a"])), "all"),
    ],
)
async def test_deleting_everything_has_to_be_said(api: Api, request_: pb.DeleteEventsRequest, field: str) -> None:
    """XA23: an empty filter deletes nothing."""
    await api.append("a")
    assert list((await refused(api.events.DeleteEvents(request_))).fields) == [field]
    assert len(await listed(api)) == 1


async def test_everything_stands_after_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("data")
    async with serving(data) as api:
        first = await api.append("a", id="e-1")
        log_id = api.app.log_id
        await api.events.DeleteEvent(pb.DeleteEventRequest(id=(await api.append("b")).id))
    async with serving(data) as api:
        assert api.app.log_id == log_id
        assert await listed(api) == [first]
        assert (await api.append("c")).position == 3  # the position of the deleted tail is not used again
        assert (await api.append("a", id="e-1")) == first
