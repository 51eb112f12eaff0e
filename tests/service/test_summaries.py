"""Counting events per bucket of time and per value of a field, through a real server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from tocsin.v1 import event_log_pb2 as pb

from tests.service.test_event_log import at
from tests.support.servers import Api, refused

OTHER = (("x-tocsin-account", "acme"),)
NOON = datetime(2026, 5, 6, 12, 0, 0, tzinfo=UTC)


async def summary(api: Api, **request: Any) -> pb.SummarizeEventsResponse:
    answer: pb.SummarizeEventsResponse = await api.events.SummarizeEvents(pb.SummarizeEventsRequest(**request))
    return answer


async def fill(api: Api, *minutes: float, **fields: Any) -> None:
    events = [pb.Event(type=fields.get("type", "t"), timestamp=at(NOON + timedelta(minutes=m))) for m in minutes]
    for event in events:
        event.MergeFrom(pb.Event(**fields))
    await api.events.AppendEvents(pb.AppendEventsRequest(events=events))


def groups(answer: pb.SummarizeEventsResponse) -> list[tuple[str, int]]:
    return [(group.value, group.count) for group in answer.groups]


def counts(answer: pb.SummarizeEventsResponse) -> dict[str, int]:
    return {bucket.start.ToJsonString()[11:16]: bucket.count for bucket in answer.buckets}


async def test_an_empty_log_has_nothing_to_count(api: Api) -> None:
    answer = await summary(api, bucket_count=10, group_by="type")
    assert answer == pb.SummarizeEventsResponse()


async def test_buckets_are_aligned_to_utc_and_have_no_gap(api: Api) -> None:
    await fill(api, 1, 4, 4.9, 5, 17)
    answer = await summary(api, bucket_width=Duration(seconds=300))
    assert counts(answer) == {"12:00": 3, "12:05": 1, "12:10": 0, "12:15": 1}
    assert (answer.total_count, answer.bucket_width.seconds, answer.truncated) == (5, 300, False)
    window = pb.EventFilter(since=at(NOON + timedelta(minutes=4)), before=at(NOON + timedelta(minutes=25)))
    answer = await summary(api, filter=window, bucket_width=Duration(seconds=600))
    assert counts(answer) == {"12:00": 3, "12:10": 1, "12:20": 0}


@pytest.mark.parametrize(("bucket_count", "width"), [(1000, 5), (60, 60), (20, 300), (3, 1800), (1, 3600)])
async def test_a_number_of_buckets_chooses_their_width(api: Api, bucket_count: int, width: int) -> None:
    await fill(api, 0, 45)
    answer = await summary(api, bucket_count=bucket_count)
    assert answer.bucket_width.seconds == width
    assert len(answer.buckets) <= bucket_count
    assert sum(bucket.count for bucket in answer.buckets) == 2


async def test_the_largest_groups_come_first_and_the_others_are_counted(api: Api) -> None:
    """Equal groups come by their value: the same question has the same answer."""
    for name, number in (("a", 3), ("b", 5), ("c", 3), ("d", 1)):
        await fill(api, *range(number), type=name)
    answer = await summary(api, group_by="type", top=2, bucket_width=Duration(seconds=180))
    assert (groups(answer), answer.others_count, answer.total_count) == ([("b", 5), ("a", 3)], 4, 12)
    assert [list(bucket.group_counts) for bucket in answer.buckets] == [[3, 3], [2, 0]]
    assert [bucket.count for bucket in answer.buckets] == [10, 2]
    assert groups(await summary(api, group_by="type")) == [("b", 5), ("a", 3), ("c", 3), ("d", 1)]


@pytest.mark.parametrize(
    ("group_by", "wanted"),
    [
        ("subtype", [("", 2), ("s", 1)]),
        ("level", [("info", 2), ("error", 1)]),
        ("service", [("", 2), ("svc", 1)]),
        ("host", [("", 2), ("h", 1)]),
        ("resource_type", [("", 2), ("image_tag", 1)]),
        ("resource_id", [("", 2), ("r", 1)]),
        ("user_id", [("", 2), ("u", 1)]),
        ("labels.region", [("", 2), ("eu", 1)]),
        ('labels.odd "key"', [("", 2), ("x", 1)]),
    ],
)
async def test_events_are_grouped_by_each_field(api: Api, group_by: str, wanted: list[tuple[str, int]]) -> None:
    await fill(api, 0, labels={"other": "1"})
    await fill(api, 1)
    await fill(
        api, 2, subtype="s", level=pb.LEVEL_ERROR, source=pb.EventSource(service="svc", host="h"),
        resource=pb.EventResource(type="image_tag", id="r", user_id="u"), labels={"region": "eu", 'odd "key"': "x"},
    )  # fmt: skip
    assert groups(await summary(api, group_by=group_by)) == wanted
    everybody = pb.EventFilter(scope=pb.SCOPE_GLOBAL)
    assert groups(await summary(api, group_by=group_by, filter=everybody)) == wanted


async def test_a_summary_counts_what_its_filter_means_in_its_account(api: Api) -> None:
    await fill(api, 0, 1, type="user.a")
    await fill(api, 2, type="user.b")
    await fill(api, 3, type="system.c")
    await api.append("user.a", metadata=OTHER, timestamp=at(NOON))
    filtered = pb.EventFilter(types=["user.*"])
    assert groups(await summary(api, filter=filtered, group_by="type")) == [("user.a", 2), ("user.b", 1)]
    filtered.scope = pb.SCOPE_GLOBAL
    assert groups(await summary(api, filter=filtered, group_by="type")) == [("user.a", 3), ("user.b", 1)]
    refusal = await refused(api.events.SummarizeEvents(pb.SummarizeEventsRequest(filter=filtered), metadata=OTHER))
    assert "SCOPE_GLOBAL" in refusal.text


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        ({"bucket_width": Duration(seconds=1)}, "bucket_width", "would make 2701 buckets, at most 1000"),
        ({"bucket_width": Duration(seconds=1, nanos=500_000_000)}, "bucket_width", "is not whole seconds"),
        ({"bucket_width": Duration(nanos=1)}, "bucket_width", "is outside"),
        ({"bucket_count": 1001}, "bucket_count", "is more than 1000"),
        ({"group_by": "details"}, "group_by", "does not match"),
        ({"group_by": "labels."}, "group_by", "does not match"),
        ({"top": 101}, "top", "is more than 100"),
    ],
)
async def test_what_cannot_be_counted_is_refused(api: Api, request_: dict[str, Any], field: str, says: str) -> None:
    await fill(api, 0, 45)
    refusal = await refused(api.events.SummarizeEvents(pb.SummarizeEventsRequest(**request_)))
    assert list(refusal.fields) == [field]
    assert says in refusal.fields[field]
