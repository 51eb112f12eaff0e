"""The catalogue through a real server: what it ships with, registering, and the checks of payloads."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tocsin.v1 import event_log_pb2 as pb

from tests.service.test_ingest import Ingesting
from tests.support.servers import Api, Refusal, refused, serving

OTHER = (("x-tocsin-account", "acme"),)
SCHEMA = {
    "type": "object",
    "properties": {"exitcode": {"type": "integer", "minimum": 0}, "cmd": {"type": "string", "pattern": "^skopeo "}},
    "required": ["exitcode"],
}


def described(type: str = "user.run", schema: Any = SCHEMA, check: str = "ENFORCE", **fields: Any) -> pb.EventType:
    found: dict[str, Any] = {"type": type, "payload_check": f"PAYLOAD_CHECK_{check}", **fields}
    if schema is not None:
        found["payload_schema"] = schema
    return json_format.ParseDict(found, pb.EventType())


async def register(api: Api, *event_types: pb.EventType, metadata: Any = ()) -> list[pb.EventType]:
    request = pb.RegisterEventTypesRequest(event_types=event_types)
    return list((await api.events.RegisterEventTypes(request, metadata=metadata)).event_types)


async def unregister(api: Api, type: str, subtype: str = "") -> int:
    request = pb.UnregisterEventTypesRequest(names=[pb.EventTypeName(type=type, subtype=subtype)])
    return int((await api.events.UnregisterEventTypes(request)).removed_count)


async def tree(api: Api, type: str = "", page_size: int = 0, metadata: Any = ()) -> dict[tuple[str, str], pb.EventType]:
    """Read every page into one dictionary by type and subtype."""
    found: dict[tuple[str, str], pb.EventType] = {}
    request = pb.ListEventTypesRequest(type=type, page_size=page_size)
    while True:
        page = await api.events.ListEventTypes(request, metadata=metadata)
        for branch in page.types:
            if branch.HasField("event_type"):
                found[branch.type, ""] = branch.event_type
            found.update({(branch.type, entry.subtype): entry for entry in branch.subtypes})
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def event(details: Any = None, type: str = "user.run", **fields: Any) -> pb.Event:
    made = pb.Event(type=type, **fields)
    if details is not None:
        json_format.ParseDict(details, made.details)
    return made


async def append(api: Api, *events: pb.Event) -> list[tuple[str, str]]:
    """Append one or several events; give the warnings, of several with the index of the event."""
    if len(events) == 1:
        answer = await api.events.AppendEvent(pb.AppendEventRequest(event=events[0]))
        return [(warning.field, warning.description) for warning in answer.warnings]
    answers = await api.events.AppendEvents(pb.AppendEventsRequest(events=events))
    return [(f"{n}.{w.field}", w.description) for n, result in enumerate(answers.results) for w in result.warnings]


async def refusal_of(api: Api, *events: pb.Event) -> Refusal:
    return await refused(api.events.AppendEvents(pb.AppendEventsRequest(events=events)))


async def stored_count(api: Api) -> int:
    return int((await api.events.GetLogStatus(pb.GetLogStatusRequest())).event_count)


ROWS = {
    "A09": {"user.checks.policy_eval": "image_tag", "user.checks.vulnerability_update": "image_tag",
            "user.image.analysis_failed": "image_tag"},
    "B38": {"system.image_analysis.registry_lookup_failed": "image_reference",
            "system.image_analysis.restored_from_archive": "image_digest",
            "system.analysis_archive.image_archived": "image_digest",
            "system.analysis_archive.image_archive_failed": "image_digest"},
    "C12": {"feed_sync_start": "feeds", "feed_sync_complete": "feeds", "list_tags_fail": "repository"},
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
async def test_the_types_of_the_sources_are_there(api: Api, row: str) -> None:
    """A09, A51, B38, C12: described, with the resource, the level, a schema and an example."""
    there = await tree(api, metadata=OTHER)
    for name, resource_type in ROWS[row].items():
        entry = there[name, ""]
        assert entry.built_in
        assert entry.description
        assert entry.resource_type == resource_type
        assert entry.level == (pb.LEVEL_ERROR if name.endswith(("failed", "_fail")) else pb.LEVEL_INFO)
        assert entry.HasField("payload_schema")
        assert entry.HasField("example")


async def test_compliance_types_have_subtypes_with_the_documented_properties(api: Api) -> None:
    """D03, D28, D29: type and subtype, each with its own schema; times to the millisecond."""
    there = await tree(api, "com.ibm.cloud.compliance.*")
    posture = "com.ibm.cloud.compliance.posture"
    assert set(there) == {
        ("com.ibm.cloud.compliance.test", ""),
        (posture, "posture-scan-completed"),
        (posture, "posture-scan-failure-threshold-limit-exceeds"),
        (posture, "posture-scan-new-resource-in-inventory"),
    }
    assert all(entry.resource_type and entry.HasField("example") for entry in there.values())
    assert len({entry.payload_schema.SerializeToString(deterministic=True) for entry in there.values()}) == 4
    completed = there[posture, "posture-scan-completed"]
    properties = json_format.MessageToDict(completed.payload_schema)["properties"]
    assert set(properties) == {"action", "summary", "scope", "profile", "start_time", "end_time"}
    # The same schema, enforced for a type of one's own.
    mine = described("my.posture", check="ENFORCE")
    mine.payload_schema.CopyFrom(completed.payload_schema)
    await register(api, mine)
    example = json_format.MessageToDict(completed.example)
    assert await append(api, event(example, "my.posture")) == []
    for moment in ("2021-11-24T13:46:21.672Z", "2021-11-24 13:46:21", "2021-11-24 13:46:21.6720"):
        refusal = await refusal_of(api, event(example | {"start_time": moment}, "my.posture"))
        assert list(refusal.fields) == ["events[0].details.start_time"]


async def test_a_batch_names_every_bad_event_whatever_is_wrong_with_it(api: Api) -> None:
    """XC12: out of bounds, ahead of the clock, the server's own, against its schema, an id in use or twice."""
    await register(api, described("user.run"))
    await api.append("a", id="taken")
    ahead = pb.Event(type="ahead")
    ahead.timestamp.FromDatetime(datetime.now(UTC) + timedelta(hours=30))
    events = [
        pb.Event(type="Bad"),
        ahead,
        pb.Event(type="own", source=pb.EventSource(service="tocsin")),
        pb.Event(type="good", id="taken"),
        event({"cmd": "rm -rf"}, "user.run"),
        pb.Event(type="good", id="once"),
        pb.Event(type="good", id="once"),
        pb.Event(type="good"),
    ]
    refusal = await refusal_of(api, *events)
    assert (refusal.reason, refusal.metadata["bad_indexes"]) == ("INVALID_FIELD", "0-4,6")
    assert {path.partition("]")[0] for path in refusal.fields} == {f"events[{index}" for index in (0, 1, 2, 3, 4, 6)}
    stream = Ingesting(api)
    await stream.send(pb.IngestRequest(events=events))
    (batch,) = await stream.end()
    assert batch.refusal.metadata["bad_indexes"] == "0-4,6"


async def test_a_repeat_by_request_id_warns_as_the_first_answer_did(api: Api) -> None:
    """P4, XA20."""
    await register(api, described("user.run", check="WARN"))
    one = pb.AppendEventRequest(event=event({"cmd": "x"}, "user.run"), request_id="r")
    many = pb.AppendEventsRequest(events=[pb.Event(type="other"), one.event], request_id="r")
    first, again = [await api.events.AppendEvent(one) for _ in range(2)]
    assert first == again
    assert again.warnings
    batch, repeated = [await api.events.AppendEvents(many) for _ in range(2)]
    assert batch == repeated
    assert [bool(result.warnings) for result in repeated.results] == [False, True]


async def test_the_first_segment_of_a_type_is_its_category(api: Api) -> None:
    """A50: `system` and `user` are found by their prefix."""
    names = {name for name, _ in await tree(api, "user.*")}
    assert names == {"user.checks.policy_eval", "user.checks.vulnerability_update", "user.image.analysis_failed"}
    assert {name.partition(".")[0] for name, _ in await tree(api, "system.*")} == {"system"}


async def test_an_entry_is_written_read_replaced_and_removed(api: Api) -> None:
    first = described(description="runs", resource_type="image_tag", level="LEVEL_ERROR", example={"exitcode": 1})
    (stored,) = await register(api, first)
    assert stored.HasField("update_time")
    assert not stored.built_in
    assert await register(api, first) == [stored]  # the same again changes nothing
    expected = pb.EventType()
    expected.CopyFrom(first)
    expected.update_time.CopyFrom(stored.update_time)
    assert (await tree(api, "user.run"))["user.run", ""] == expected
    first.description = "runs of skopeo"
    (changed,) = await register(api, first)
    assert changed.update_time.ToNanoseconds() > stored.update_time.ToNanoseconds()
    assert (await tree(api, "user.run"))["user.run", ""].description == "runs of skopeo"
    assert await unregister(api, "user.run") == 1
    assert await unregister(api, "user.run") == 0
    assert not await tree(api, "user.run")


async def test_what_an_account_registers_is_its_own(api: Api) -> None:
    await register(api, described())
    await register(api, described(schema={"type": "string"}), metadata=OTHER)
    assert json_format.MessageToDict((await tree(api, "user.run"))["user.run", ""].payload_schema) == SCHEMA
    assert await append(api, event({"exitcode": 1})) == []
    theirs = pb.AppendEventRequest(event=event("a sentence"))
    await api.events.AppendEvent(theirs, metadata=OTHER)
    assert (await refused(api.events.AppendEvent(theirs))).reason == "INVALID_FIELD"


async def test_pages_of_the_catalogue_go_on_within_a_type(api: Api) -> None:
    entries = [described("user.many", subtype=f"s{n:02}", schema=None, check="OFF") for n in range(30)]
    await register(api, *entries)
    await register(api, described("user.many", schema=None, check="OFF"))
    names = [("user.many", ""), *(("user.many", f"s{n:02}") for n in range(30))]
    assert list(await tree(api, "user.many", page_size=7)) == names
    whole = await tree(api)
    assert list(whole) == sorted(whole)
    assert list(await tree(api, page_size=3)) == list(whole)


async def test_an_enforced_schema_refuses_by_path_and_nothing_is_stored(api: Api) -> None:
    """D28: every bad event of a batch is named."""
    await register(api, described())
    good, bad = event({"exitcode": 1, "cmd": "skopeo copy"}), event({"exitcode": -1, "cmd": "rm"})
    refusal = await refusal_of(api, good, bad, event({}), event("text"), event(), event({"exitcode": 1.5}))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refusal.fields == {
        "events[1].details.cmd": 'does not meet pattern: "^skopeo "',
        "events[1].details.exitcode": "does not meet minimum: 0",
        "events[2].details": "lacks exitcode",
        "events[3].details": 'does not meet type: "object"',
        "events[4].details": 'does not meet type: "object"',
        "events[5].details.exitcode": 'does not meet type: "integer"',
    }
    assert refusal.metadata["bad_indexes"] == "1-5"
    assert await stored_count(api) == 0
    single = await refused(api.events.AppendEvent(pb.AppendEventRequest(event=bad)))
    assert set(single.fields) == {"event.details.cmd", "event.details.exitcode"}
    assert await append(api, good) == []


async def test_a_warning_does_not_keep_an_event_out(api: Api) -> None:
    """D27: nothing of the details is repeated in it: they may hold a secret."""
    await register(api, described(check="WARN"))
    assert await append(api, event({"exitcode": "hunter2"})) == [("details.exitcode", 'does not meet type: "integer"')]
    assert await append(api, event({"exitcode": 1}), event({})) == [("1.details", "lacks exitcode")]
    assert await stored_count(api) == 3
    ingest = api.events.Ingest(iter([pb.IngestRequest(events=[event({"exitcode": 1}), event({}), event([])])]))
    results = [result for answer in [a async for a in ingest] for b in answer.batches for result in b.results]
    assert [[w.field for w in result.warnings] for result in results] == [[], ["details"], ["details"]]


async def test_no_check_where_none_is_asked_for(api: Api) -> None:
    await register(api, described(check="OFF"))
    assert (
        await append(api, event({"exitcode": -1}), event("x", "user.image.analysis_failed"), event(1, "any.type")) == []
    )


async def test_a_subtype_has_its_own_schema_or_that_of_its_type(api: Api) -> None:
    """D28: the entry of the subtype comes before that of the type."""
    await register(api, described(), described(subtype="loose", check="OFF"))
    assert (await refusal_of(api, event({}, subtype="strict"))).fields == {"events[0].details": "lacks exitcode"}
    assert await append(api, event({}, subtype="loose")) == []
    await unregister(api, "user.run", "loose")
    assert (await refusal_of(api, event({}, subtype="loose"))).fields == {"events[0].details": "lacks exitcode"}
    await unregister(api, "user.run")
    assert await append(api, event({})) == []


async def test_checks_go_on_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        await register(api, described(example={"exitcode": 1}))
        before = await tree(api, "user.run")
    async with serving(tmp_path) as api:
        assert await tree(api, "user.run") == before
        assert (await refusal_of(api, event({}))).fields == {"events[0].details": "lacks exitcode"}


def faulty(**schema: Any) -> pb.EventType:
    return described("user.a", schema=schema)


SCHEMA_PATH = "event_types[1].payload_schema"
REF = {"$ref": "http://127.0.0.1:9/"}, {"$ref": "file:///etc/passwd"}, {"$ref": "#/$defs/none"}, {"$ref": "#name"}
LOOKAHEAD = {"x": {"pattern": "(?=a)"}}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
FAULTS: list[tuple[pb.EventType, str, str]] = [
    (described("user.image.analysis_failed"), "event_types[1]", "is built in"),
    (faulty(type="text"), f"{SCHEMA_PATH}.type", "does not meet"),
    (faulty(**{"$id": "x"}), f"{SCHEMA_PATH}.$id", "is not offered"),
    (faulty(patternProperties={"a": {}}), f"{SCHEMA_PATH}.patternProperties", "is not offered"),
    *((faulty(**ref), f"{SCHEMA_PATH}.$ref", "leads to no place") for ref in REF),
    (faulty(properties=LOOKAHEAD), f"{SCHEMA_PATH}.properties.x.pattern", "is no RE2"),
    (faulty(**DRAFT_7), f'{SCHEMA_PATH}["$schema"]', "only"),
    (described("user.a", schema=None), SCHEMA_PATH, "is needed"),
    (described("user.a", example={"exitcode": -1}), "event_types[1].example.exitcode", "does not meet minimum"),
    (described("user.good"), "event_types[1]", "is the same type and subtype as event_types[0]"),
]


@pytest.mark.parametrize(("entry", "field", "says"), FAULTS, ids=range(len(FAULTS)))
async def test_an_entry_that_cannot_be_used_is_refused_with_all_others(
    api: Api, entry: pb.EventType, field: str, says: str
) -> None:
    """All or none: the good one beside it is not stored."""
    request = pb.RegisterEventTypesRequest(event_types=[described("user.good"), entry])
    refusal = await refused(api.events.RegisterEventTypes(request))
    assert list(refusal.fields) == [field]
    assert says in refusal.fields[field]
    assert not await tree(api, "user.good")


async def test_built_in_entries_cannot_be_removed(api: Api) -> None:
    request = pb.UnregisterEventTypesRequest(names=[pb.EventTypeName(type="feed_sync_start")])
    assert list((await refused(api.events.UnregisterEventTypes(request))).fields) == ["names[0]"]


async def test_an_account_has_so_many_entries_and_no_more(api: Api) -> None:
    for start in range(0, 1000, 100):
        await register(api, *[described(f"user.t{start + n}", schema=None, check="OFF") for n in range(100)])
    request = pb.RegisterEventTypesRequest(event_types=[described("user.more")])
    refusal = await refused(api.events.RegisterEventTypes(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
    await register(api, described("user.t7"))  # one that is there can be changed
    assert len([name for name in await tree(api, "user.t*", page_size=1000)]) == 1000


HOSTILE: dict[str, Any] = {
    "each definition twice the next": {
        "$ref": "#/$defs/d0",
        "$defs": {
            **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}, "d30": {"type": "object"},
        },
    },
    "a circle": {"$ref": "#"},
    "a circle of two": {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
    "a text of the regular expression that never ends": {"additionalProperties": {"pattern": "(a+)+$"}},
    "a list without equal entries": {"properties": {"list": {"uniqueItems": True}}},
    "many looks at each entry": {"properties": {"list": {"items": {"allOf": [{"minimum": 0}] * 300}}}},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_schema_ends_soon(api: Api, name: str) -> None:
    """XE13: schemas that multiply, go in circles, or have an expression that doubles with each character."""
    await register(api, described(schema=HOSTILE[name]))
    large = event({"list": list(range(15_000)), "text": "a" * 50_000 + "b"})
    began = time.perf_counter()
    try:
        await append(api, large)
    except grpc.aio.AioRpcError as error:
        refusal = Refusal(error)
        assert refusal.reason == "INVALID_FIELD"
        (description,) = refusal.fields.values()
        assert description in ("cannot be checked against the schema in 20000 steps", 'does not meet pattern: "(a+)+$"')
    assert time.perf_counter() - began < 2
