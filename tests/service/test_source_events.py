"""The events of the source systems, as their documents show them, in the log."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf import json_format
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.domain.built_in_types import BUILT_IN

from tests.service.test_event_log import at, listed
from tests.support.servers import Api

SKOPEO = {
    "SkopeoError": {
        "cmd": '/bin/sh -c skopeo inspect --tls-verify=true --creds "${SKOPUSER}":"${SKOPPASS}" docker://a/b:latest',
        "exitcode": 1,
        "msg": "Error encountered in skopeo operation",
        "stderr": 'time="2018-06-30T03:56:27Z" level=fatal\nmsg="requested access to the resource is denied"',
        "stdout": None,
    }
}


async def test_a_failure_keeps_its_reason_whole(api: Api) -> None:
    """B02, B03, C07, C09, C10, C11: a watcher's failure, its structure, its resource and source, its sentence."""
    event = pb.Event(
        type="list_tags_fail", level=pb.LEVEL_ERROR, message="Failed to list tags in repository",
        resource=pb.EventResource(type="repository", id="docker.io/wazowskis/sixwheeldrive", user_id="admin"),
        source=pb.EventSource(service="catalog", host="dockerhostid-localhost", base_url="http://localhost:8082"),
        timestamp=at(datetime(2018, 6, 30, 3, 56, 27, 711071, UTC)),
    )  # fmt: skip
    json_format.ParseDict(SKOPEO, event.details)
    await api.events.AppendEvent(pb.AppendEventRequest(event=event))
    why = (
        "event.details.SkopeoError.exitcode == 1 && event.details.SkopeoError.stdout == null"
        " && event.details.SkopeoError.stderr.contains('denied')"
    )
    (found,) = await listed(api, where=why, resource_ids=["docker.io/wazowskis/sixwheeldrive"])
    assert json_format.MessageToDict(found.details) == SKOPEO
    assert (found.type, found.message, found.level) == (event.type, event.message, event.level)
    assert (found.resource, found.source, found.timestamp) == (event.resource, event.source, event.timestamp)


async def test_events_of_many_services_stand_side_by_side(api: Api) -> None:
    """B01, B38, C12: periodic jobs, failures, informational and system events of several services."""
    services = {"feed": "policy_engine", "list": "catalog", "user": "analyzer", "syst": "catalog", "com.": "compliance"}
    own = ("system.alerting.", "system.notifications.")
    written = [entry for entry in BUILT_IN if not entry.type.startswith(own)]
    events: list[pb.Event] = []
    for entry in written:
        event = pb.Event(
            type=entry.type, subtype=entry.subtype, level=pb.Level.ValueType(entry.level),
            resource=pb.EventResource(type=entry.resource_type, id="r"),
            source=pb.EventSource(service=services[entry.type[:4]], host="quickstart"),
        )  # fmt: skip
        json_format.ParseDict(entry.example, event.details)
        events.append(event)
    await api.events.AppendEvents(pb.AppendEventsRequest(events=events))
    assert [(e.type, e.subtype) for e in await listed(api, newest_first=False)] == [e.name for e in written]
    errors = {e.type for e in await listed(api, levels=[pb.LEVEL_ERROR])}
    assert {"list_tags_fail", "user.image.analysis_failed", "system.analysis_archive.image_archive_failed"} <= errors
    by_service = await api.events.SummarizeEvents(pb.SummarizeEventsRequest(group_by="service"))
    assert {group.value for group in by_service.groups} == set(services.values())
    feeds = await listed(api, resource_types=["feeds"], newest_first=False)
    assert [e.type for e in feeds] == ["feed_sync_start", "feed_sync_complete"]
