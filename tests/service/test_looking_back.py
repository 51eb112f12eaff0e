"""Looking back over a real server: several events by id, the log's status, every filter in both orders."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import event_log_pb2 as pb

from tests.service.test_event_log import at, listed
from tests.support.servers import Api, refused

OTHER = (("x-tocsin-account", "acme"),)
PAGE_BYTES = 3 * 1024 * 1024


async def batch(api: Api, *ids: str) -> pb.BatchGetEventsResponse:
    answer: pb.BatchGetEventsResponse = await api.events.BatchGetEvents(pb.BatchGetEventsRequest(ids=ids))
    return answer


async def test_several_events_come_whole_and_in_the_order_of_their_ids(api: Api) -> None:
    events = {name: await api.append("t", id=name, message=f"message of {name}") for name in ("a", "b", "c")}
    await api.append("t", id="theirs", metadata=OTHER)
    await api.events.DeleteEvent(pb.DeleteEventRequest(id="b"))
    answer = await batch(api, "c", "nobody", "a", "b", "theirs", "c")
    assert list(answer.events) == [events["c"], events["a"], events["c"]]
    assert list(answer.missing_ids) == ["nobody", "b", "theirs"]
    assert not answer.remaining_ids


async def test_events_that_fill_an_answer_leave_the_rest_for_the_next(api: Api) -> None:
    """A batch of large events is answered in parts of at most 3 MiB, each id in exactly one list."""
    ids = [f"e-{number}" for number in range(20)]
    for event_id in ids:
        event = pb.Event(type="t", id=event_id)
        event.details.string_value = "a" * 250_000
        await api.events.AppendEvent(pb.AppendEventRequest(event=event))
    asked, found, calls = [*ids[:19], "nobody", ids[19]], [], 0
    while asked:
        answer = await batch(api, *asked)
        assert sum(event.ByteSize() for event in answer.events) <= PAGE_BYTES
        assert sorted([*(e.id for e in answer.events), *answer.missing_ids, *answer.remaining_ids]) == sorted(asked)
        found += [event.id for event in answer.events]
        asked, calls = list(answer.remaining_ids), calls + 1
    assert (found, calls) == (ids, 2)


async def test_a_thousand_events_at_once(api: Api) -> None:
    events = [pb.Event(type="t", id=f"e-{number}") for number in range(1000)]
    await api.events.AppendEvents(pb.AppendEventsRequest(events=events))
    answer = await batch(api, *(event.id for event in reversed(events)))
    assert [event.id for event in answer.events] == [event.id for event in reversed(events)]


async def test_the_status_counts_what_the_account_can_read(api: Api) -> None:
    empty = await api.events.GetLogStatus(pb.GetLogStatusRequest())
    assert (empty.log_id, empty.head, empty.oldest, empty.event_count) == (api.app.log_id, 0, 1, 0)
    for name in ("a", "b", "c"):
        await api.append("t", id=name)
    await api.append("t", metadata=OTHER)
    await api.events.DeleteEvent(pb.DeleteEventRequest(id="a"))
    mine = await api.events.GetLogStatus(pb.GetLogStatusRequest())
    assert (mine.head, mine.oldest, mine.event_count, mine.event_count_capped) == (4, 1, 2, False)
    theirs = await api.events.GetLogStatus(pb.GetLogStatusRequest(), metadata=OTHER)
    assert (theirs.head, theirs.event_count) == (4, 1)
    everybody = pb.GetLogStatusRequest(scope=pb.SCOPE_GLOBAL)
    assert (await api.events.GetLogStatus(everybody)).event_count == 3
    refusal = await refused(api.events.GetLogStatus(everybody, metadata=OTHER))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED


NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "one type": {"types": ["user.image.a"]},
    "several types": {"types": ["user.image.a", "system.c"]},
    "a prefix": {"types": ["user.image.*"]},
    "a glob": {"types": ["*.a", "system.*"]},
    "a type that nobody has": {"types": ["none.*"]},
    "subtypes": {"subtypes": ["s1"]},
    "errors": {"levels": [pb.LEVEL_ERROR]},
    "all levels": {"levels": [pb.LEVEL_ERROR, pb.LEVEL_INFO]},
    "resource types": {"resource_types": ["image_tag"]},
    "a resource": {"resource_ids": ["r1"]},
    "resources": {"resource_ids": ["r1", "r2"]},
    "users": {"user_ids": ["u0"]},
    "a service": {"services": ["svc1"]},
    "services": {"services": ["svc1", "svc2"]},
    "a host": {"hosts": ["h0"]},
    "labels": {"labels": {"region": "eu"}},
    "a time": {"since": at(NOW - timedelta(minutes=30)), "before": at(NOW - timedelta(minutes=10))},
    "a prefix in a time": {"types": ["user.*"], "since": at(NOW - timedelta(minutes=30))},
    "a condition": {"where": "event.details.n >= 20.0 && event.resource.id != 'r1'"},
    "much at once": {
        "types": ["user.*"], "hosts": ["h0", "h1"], "levels": [pb.LEVEL_INFO], "where": "event.details.n < 33.0",
    },
}  # fmt: skip


async def forty_events(api: Api) -> None:
    """Append 40 events, two to a minute, in an order that is not that of their times."""
    events: list[pb.Event] = []
    for number in range(40):
        event = pb.Event(
            type=["user.image.a", "user.image.b", "system.c", "user.x"][number % 4], id=f"e-{number}",
            subtype=f"s{number % 3}", level=pb.LEVEL_ERROR if number % 7 == 0 else pb.LEVEL_INFO,
            resource=pb.EventResource(
                type="image_tag" if number % 2 else "", id=f"r{number % 5}", user_id=f"u{number % 2}"
            ),
            source=pb.EventSource(service=f"svc{number % 3}", host=f"h{number % 4}"),
            labels={"region": "eu"} if number % 3 else {}, timestamp=at(NOW - timedelta(minutes=number * 7 % 40 // 2)),
        )  # fmt: skip
        event.details.struct_value.update({"n": number})
        events.append(event)
    await api.events.AppendEvents(pb.AppendEventsRequest(events=events))
    await api.append("user.image.a", metadata=OTHER, id="theirs", timestamp=at(NOW))


def expected(name: str, event: pb.Event) -> bool:
    """Say by hand what a filter of FILTERS means for an event."""
    number = int(event.id[2:])
    minutes = number * 7 % 40 // 2
    return {
        "everything": True,
        "one type": number % 4 == 0,
        "several types": number % 4 in (0, 2),
        "a prefix": number % 4 in (0, 1),
        "a glob": number % 4 in (0, 2),
        "a type that nobody has": False,
        "subtypes": number % 3 == 1,
        "errors": number % 7 == 0,
        "all levels": True,
        "resource types": number % 2 == 1,
        "a resource": number % 5 == 1,
        "resources": number % 5 in (1, 2),
        "users": number % 2 == 0,
        "a service": number % 3 == 1,
        "services": number % 3 in (1, 2),
        "a host": number % 4 == 0,
        "labels": number % 3 != 0,
        "a time": 10 < minutes <= 30,
        "a prefix in a time": number % 4 != 2 and minutes <= 30,
        "a condition": number >= 20 and number % 5 != 1,
        "much at once": number % 4 in (0, 1) and number % 7 != 0 and number < 33,
    }[name]


async def test_every_filter_in_both_orders(api: Api) -> None:
    """B12, XB18: all pages together are what is meant, in order; a total of it is exact below its bound."""
    await forty_events(api)
    everything = await listed(api)
    assert len(everything) == 40
    for name, criteria in FILTERS.items():
        wanted = [event.id for event in everything if expected(name, event)]
        assert [e.id for e in await listed(api, page_size=7, **criteria)] == wanted, name
        assert [e.id for e in await listed(api, page_size=7, newest_first=False, **criteria)] == wanted[::-1], name
        request = pb.ListEventsRequest(filter=pb.EventFilter(**criteria), page_size=1, with_total_size=True)
        page = await api.events.ListEvents(request)
        assert (page.total_size, page.total_size_capped) == (len(wanted), False), name
        whole = {"scope": pb.SCOPE_GLOBAL, **criteria}
        theirs = {"theirs"} & {e.id for e in await listed(api, page_size=7, **whole)}
        assert len(await listed(api, page_size=7, **whole)) == len(wanted) + len(theirs), name


async def test_a_total_is_not_counted_unless_it_is_asked_for(api: Api) -> None:
    await api.append("t")
    page = await api.events.ListEvents(pb.ListEventsRequest())
    assert (page.total_size, page.total_size_capped) == (0, False)


async def test_a_total_can_be_asked_with_the_first_page_only(api: Api) -> None:
    for _ in range(3):
        await api.append("t")
    request = pb.ListEventsRequest(page_size=2, with_total_size=True)
    first = await api.events.ListEvents(request)
    assert (first.total_size, len(first.events)) == (3, 2)
    request.page_token, request.with_total_size = first.next_page_token, False
    assert len((await api.events.ListEvents(request)).events) == 1


async def test_a_total_ends_at_ten_thousand(api: Api) -> None:
    batches = [[pb.Event(type="many") for _ in range(1000)] for _ in range(11)]
    await asyncio.gather(*(api.events.AppendEvents(pb.AppendEventsRequest(events=events)) for events in batches))
    page = await api.events.ListEvents(pb.ListEventsRequest(page_size=1, with_total_size=True))
    assert (page.total_size, page.total_size_capped) == (10_000, True)
    status = await api.events.GetLogStatus(pb.GetLogStatusRequest())
    assert (status.event_count, status.event_count_capped) == (11_000, False)


@pytest.mark.parametrize(
    "criteria", [{"types": ["user.*"]}, {"scope": pb.SCOPE_GLOBAL}, {"where": "event.details.n >= 0"}]
)
async def test_merged_and_asked_pages_skip_and_repeat_nothing_while_events_come_and_go(
    api: Api, criteria: dict[str, Any]
) -> None:
    """XB18: keyset paging where a page is merged from several runs, or asked event by event."""
    kept: list[str] = []
    for number in range(12):
        event = pb.Event(type=f"user.{'ab'[number % 2]}", id=f"e-{number}")
        event.details.struct_value.update({"n": number})
        await api.events.AppendEvent(pb.AppendEventRequest(event=event), metadata=OTHER if number % 5 == 4 else ())
        kept.append(event.id)
    if "scope" not in criteria:
        kept = [event_id for number, event_id in enumerate(kept) if number % 5 != 4]
    request = pb.ListEventsRequest(filter=pb.EventFilter(**criteria), page_size=3)
    seen: list[str] = []
    while True:
        page = await api.events.ListEvents(request)
        seen += [event.id for event in page.events]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        await api.append("user.a", id=f"late-{len(seen)}")
        if len(seen) == 3:
            await api.events.DeleteEvent(pb.DeleteEventRequest(id=kept[0]))
    assert seen == [event_id for event_id in reversed(kept) if event_id != kept[0]]


async def test_page_sizes(api: Api) -> None:
    """XB17: 0 is the default, too many is the most, less than nothing is refused."""
    batches = [pb.AppendEventsRequest(events=[pb.Event(type="t") for _ in range(600)]) for _ in range(2)]
    await asyncio.gather(*map(api.events.AppendEvents, batches))
    for size, wanted in ((0, 100), (7, 7), (1000, 1000), (1001, 1000), (1_000_000_000, 1000)):
        assert len((await api.events.ListEvents(pb.ListEventsRequest(page_size=size))).events) == wanted
    assert list((await refused(api.events.ListEvents(pb.ListEventsRequest(page_size=-1)))).fields) == ["page_size"]


async def test_times_of_a_filter(api: Api) -> None:
    """XB21: since after before is refused; any zone is the same moment in UTC; the last second of a leap day.

    A message has no place for a leap second: the ways in that read text refuse it (`tests/cli/test_help.py`).
    """
    early, late = Timestamp(seconds=10), Timestamp(seconds=20)
    request = pb.ListEventsRequest(filter=pb.EventFilter(since=late, before=early))
    refusal = await refused(api.events.ListEvents(request))
    assert refusal.fields == {"filter.since": "is later than before"}
    event = pb.Event(type="t", id="e")
    event.timestamp.FromJsonString("2024-02-29T23:59:59.999999+14:00")
    await api.events.AppendEvent(pb.AppendEventRequest(event=event))
    since, before = Timestamp(), Timestamp()
    since.FromJsonString("2024-02-29T09:59:59.999999Z")
    before.FromJsonString("2024-02-29T10:00:00Z")
    assert [e.id for e in await listed(api, since=since, before=before)] == ["e"]
    assert not await listed(api, since=before)
    assert not await listed(api, since=since, before=since)


async def test_type_patterns_are_literal_but_for_the_star(api: Api) -> None:
    """XB20: `_` is no wildcard, and a prefix does not reach its neighbours."""
    for name in ("user_checks.a", "userxchecks.a", "user_checks", "user_checkt.a"):
        await api.append(name)
    assert [e.type for e in await listed(api, types=["user_checks.*"])] == ["user_checks.a"]
    assert {e.type for e in await listed(api, types=["user_checks*"])} == {"user_checks.a", "user_checks"}
    request = pb.ListEventsRequest(filter=pb.EventFilter(types=["USER_CHECKS.*"]))
    assert list((await refused(api.events.ListEvents(request))).fields) == ["filter.types[0]"]
