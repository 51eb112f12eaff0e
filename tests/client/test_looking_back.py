"""Looking back with both clients: many events, the status, summaries, conditions, the catalogue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import tocsin
from tocsin import catalogue, events
from tocsin.v1 import event_log_pb2 as pb

from tests.client.scripted import Script, answer, fail

SCHEMA = {"type": "object", "required": ["exitcode"]}


def test_many_events_come_in_their_order(live: Any) -> None:
    stored = live.append_many([tocsin.draft("a.b", id=f"e-{n}") for n in range(3)])
    found = live.get_many(["e-2", "nobody", "e-0"])
    assert [event.position for event in found.events] == [stored[2].position, stored[0].position]
    assert found.missing == ["nobody"]
    assert live.get_many([]) == tocsin.Found([], [])


def test_what_does_not_fit_one_answer_is_asked_for_again(script: Script, client: Any) -> None:
    first = pb.BatchGetEventsResponse(events=[pb.Event(id="a")], missing_ids=["b"], remaining_ids=["c"])
    script.on("BatchGetEvents", fail(grpc.StatusCode.UNAVAILABLE), answer(first))
    script.on("BatchGetEvents", answer(pb.BatchGetEventsResponse(events=[pb.Event(id="c")])))
    found = client.get_many(["a", "b", "c"])
    assert ([event.id for event in found.events], found.missing) == (["a", "c"], ["b"])
    assert [list(request.ids) for request in script.requests("BatchGetEvents")] == [["a", "b", "c"]] * 2 + [["c"]]


def test_more_ids_than_one_call_takes_are_split() -> None:
    assert [len(part) for part in events.batches(str(n) for n in range(2001))] == [1000, 1000, 1]


def test_a_single_text_is_no_list_of_ids(client: Any) -> None:
    with pytest.raises(TypeError, match="ids is a list of strings"):
        client.get_many("e-1")


def test_the_status_of_the_log(live: Any) -> None:
    assert live.log_status().event_count == 0
    position = live.append("a.b").position
    status = live.log_status()
    assert (status.event_count, status.log_id) == (1, live.info().log_id)
    assert status.head >= position
    with pytest.raises(tocsin.PermissionDenied):
        live.log_status(all_accounts=True)


def test_a_summary_of_what_a_filter_means(live: Any) -> None:
    noon = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    for minutes, kind in ((0, "x"), (1, "x"), (7, "y")):
        live.append(f"user.{kind}", timestamp=noon + timedelta(minutes=minutes), labels={"region": kind})
    answered = live.summarize(bucket_width=timedelta(minutes=5), group_by="labels.region", types=["user.*"])
    assert [(group.value, group.count) for group in answered.groups] == [("x", 2), ("y", 1)]
    assert [tocsin.to_datetime(bucket.start) for bucket in answered.buckets] == [noon, noon + timedelta(minutes=5)]
    assert [bucket.count for bucket in live.summarize(bucket_count=1).buckets] == [3]
    assert live.summarize(types=["user.x"]).total_count == 2
    with pytest.raises(TypeError, match="not both"):
        live.summarize(bucket_width=timedelta(minutes=5), bucket_count=1)


def test_a_condition_is_a_criterion_of_every_call(live: Any) -> None:
    for exitcode in (0, 1, 2):
        live.append("user.run", id=f"r-{exitcode}", details={"exitcode": exitcode})
    failed = "event.details.exitcode > 0"
    assert {event.id for event in live.list_events(where=failed)} == {"r-1", "r-2"}
    with live.subscribe(start="beginning", where=failed, stop_when_caught_up=True) as subscription:
        assert [event.id for event in subscription] == ["r-1", "r-2"]
    assert live.delete_events(where=failed) == ["r-1", "r-2"]
    with pytest.raises(tocsin.InvalidField) as refusal:
        list(live.list_events(where="event.nope == 1"))
    assert [violation.field for violation in refusal.value.violations] == ["filter.where"]


def test_types_are_registered_listed_checked_and_removed(live: Any) -> None:
    entry = tocsin.event_type(
        "user.run", "fast", description="a run", level="error", schema=SCHEMA, check="warn", example={"exitcode": 1}
    )
    (stored,) = live.register_event_types([entry])
    assert live.register_event_types([entry]) == [stored]
    assert list(live.list_event_types("user.run")) == [stored]
    builtin = {(found.type, found.subtype) for found in live.list_event_types() if found.built_in}
    assert ("com.ibm.cloud.compliance.posture", "posture-scan-completed") in builtin
    appended = live.append("user.run", subtype="fast", details={})
    assert appended.warnings == (tocsin.Violation("details", "lacks exitcode"),)
    good, bad = live.append_many(
        [
            tocsin.draft("user.run", subtype="fast", details={"exitcode": 1}),
            tocsin.draft("user.run", subtype="fast", details={}),
        ]
    )
    assert (good.warnings, bad.warnings) == ((), (tocsin.Violation("details", "lacks exitcode"),))
    live.register_event_types([tocsin.event_type("user.run", "fast", schema=SCHEMA, check="enforce")])
    with pytest.raises(tocsin.InvalidField):
        live.append("user.run", subtype="fast", details={})
    assert live.unregister_event_types([("user.run", "fast"), "user.run"]) == 1
    assert not list(live.list_event_types("user.run"))


def test_what_is_no_event_type_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match='check is one of "off", "warn", "enforce"'):
        tocsin.event_type("a", check="maybe")
    with pytest.raises(TypeError, match="schema is a mapping"):
        tocsin.event_type("a", schema=["x"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a list of event types"):
        catalogue.register_request(tocsin.event_type("a"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a list of types"):
        catalogue.unregister_request("a")
