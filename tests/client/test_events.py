"""Requests are made as they were meant, and what cannot be meant is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tocsin import alerts, deliveries, events, receivers
from tocsin.v1 import alerting_pb2 as alerting
from tocsin.v1 import event_log_pb2 as pb
from tocsin.v1 import notifications_pb2 as notifications
from tocsin.values import to_datetime, to_python

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_draft_with_everything() -> None:
    event = events.draft(
        "image.analysis.failed",
        id="a-1",
        subtype="layers",
        level="error",
        message="no such layer",
        category="analysis",
        details={"layer": 3},
        resource={"type": "image_tag", "id": "nginx:latest"},
        source="analyzer",
        labels={"team": "red"},
        timestamp=NOON,
        correlation_id="c-1",
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )
    assert (event.type, event.id, event.subtype, event.level) == (
        "image.analysis.failed",
        "a-1",
        "layers",
        pb.LEVEL_ERROR,
    )
    assert (event.message, event.category, event.correlation_id) == ("no such layer", "analysis", "c-1")
    assert to_python(event.details) == {"layer": 3}
    assert event.resource == pb.EventResource(type="image_tag", id="nginx:latest")
    assert event.source.service == "analyzer"
    assert dict(event.labels) == {"team": "red"}
    assert to_datetime(event.timestamp) == NOON
    assert event.traceparent.startswith("00-")


def test_a_draft_with_nothing_leaves_all_unset() -> None:
    assert events.draft("a.b") == pb.Event(type="a.b")


def test_details_can_be_null() -> None:
    assert events.draft("a.b", details=None).HasField("details")


@pytest.mark.parametrize("level", ["error", "ERROR", pb.LEVEL_ERROR, 2])
def test_levels(level: Any) -> None:
    assert events.draft("a.b", level=level).level == pb.LEVEL_ERROR


@pytest.mark.parametrize(("name", "value"), [("level", "fatal"), ("level", 7), ("timestamp", datetime(2026, 1, 1))])
def test_a_wrong_value_is_refused(name: str, value: Any) -> None:
    fields: Any = {name: value}
    with pytest.raises(ValueError, match=r"\w"):
        events.draft("a.b", **fields)


# What a type checker would find already.
draft: Any = events.draft
event_filter: Any = events.event_filter
alert: Any = alerts.alert


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: draft("a", level="warn"), ValueError, 'level is one of "info", "error", not \'warn\''),
        (lambda: draft("a", level=7), ValueError, 'level is one of "info", "error", not \'7\''),
        (lambda: draft("a", level=[]), TypeError, 'level is one of "info", "error", not []'),
        (lambda: draft("a", resource="x"), TypeError, "resource is a mapping with type, id, user_id, not 'x'"),
        (lambda: draft("a", resource={"kind": "x"}), ValueError, "resource has no 'kind': it takes type, id"),
        (lambda: draft("a", resource={"id": 7}), TypeError, "resource['id'] is a string, not 7"),
        (lambda: draft("a", source=7), TypeError, "source is a mapping with service, host"),
        (lambda: draft("a", timestamp="x"), TypeError, "timestamp is a datetime with a time zone, not 'x'"),
        (lambda: draft("a", timestamp=datetime(2026, 1, 1)), ValueError, "timestamp: a time needs a time zone"),
        (lambda: draft("a", message=7), TypeError, "message is a string, not 7"),
        (lambda: draft(7), TypeError, "type is a string, not 7"),
        (lambda: draft("a", labels="x"), TypeError, "labels is a mapping of strings to strings, not 'x'"),
        (lambda: draft("a", labels={"k": 1}), TypeError, "labels['k'] is a string, not 1"),
        (lambda: draft("a", details={"k": b"x"}), TypeError, "details: bytes is not JSON-like"),
        (lambda: draft("a", details=2**60), ValueError, "details: 1152921504606846976 does not fit"),
        (lambda: event_filter(types=7), TypeError, "types is a list of strings, not 7"),
        (lambda: event_filter(hosts=[7]), TypeError, "each of hosts is a string, not 7"),
        (lambda: event_filter(levels="error"), TypeError, "levels is a list of levels, not 'error'"),
        (lambda: event_filter(levels=["warn"]), ValueError, 'each of levels is one of "info", "error"'),
        (lambda: event_filter(since="now"), TypeError, "since is a datetime with a time zone, not 'now'"),
        (lambda: alert("n", "t", []), TypeError, "params is a mapping, not []"),
        (lambda: alert("n", "t", {"k": b""}), TypeError, "params: bytes is not JSON-like"),
        (lambda: alert("n", "t", {}, tags="red"), TypeError, "tags is a list of strings, not 'red'"),
        (lambda: alert("n", "t", {}, notify_when="x"), ValueError, 'notify_when is one of "on_active_alert"'),
        (lambda: alerts.to_status("fine"), ValueError, 'status is one of "pending", "ok", "active", "error"'),
        (lambda: deliveries.deliveries_request("delivered"), TypeError, "states is a list of strings"),
        (lambda: deliveries.deliveries_request(["gone"]), ValueError, "each of states is one of"),
        (lambda: mailbox(security="ssl"), ValueError, "security is one of"),
        (lambda: mailbox(recipients="a@b.c"), TypeError, "recipients is a list of strings, not 'a@b.c'"),
    ],
)
def test_a_refusal_names_the_argument_and_what_it_takes(make: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind) as refused:
        make()
    assert str(refused.value).startswith(says)


def mailbox(**changes: Any) -> notifications.EndpointConfiguration:
    return receivers.mailbox("n", "localhost", **{"from_address": "a@b.c", "recipients": ["d@e.f"], **changes})


def test_an_unknown_field_is_refused() -> None:
    fields: Any = {"colour": "red"}
    with pytest.raises(TypeError, match="an event has no colour"):
        events.draft("a.b", **fields)
    with pytest.raises(TypeError, match="a filter has no colour"):
        events.event_filter(**fields)


def test_a_filter_with_everything() -> None:
    wanted = events.event_filter(
        types=["a.*"],
        levels=["error"],
        services=["s"],
        labels={"k": "v"},
        since=NOON,
        before=NOON,
        all_accounts=True,
    )
    assert (list(wanted.types), list(wanted.levels), list(wanted.services)) == (
        ["a.*"],
        [pb.LEVEL_ERROR],
        ["s"],
    )
    assert dict(wanted.labels) == {"k": "v"}
    assert wanted.since == wanted.before
    assert wanted.scope == pb.SCOPE_GLOBAL


def test_a_string_is_no_list() -> None:
    with pytest.raises(TypeError, match="types is a list"):
        events.event_filter(types="a.*")


def test_filter_or_criteria() -> None:
    assert events.one_filter(None, {}) is None
    with pytest.raises(TypeError):
        events.one_filter(pb.EventFilter(), {"types": ["a"]})


def test_an_append_can_always_be_repeated() -> None:
    first, second = events.append_request("a.b", None, {}), events.append_request("a.b", None, {})
    assert first.request_id and first.request_id != second.request_id
    assert events.append_request("a.b", "mine", {}).request_id == "mine"
    assert events.append_request("a.b", None, {"id": "x"}).request_id == ""
    assert events.append_many_request([pb.Event(id="x"), pb.Event()], None).request_id
    assert events.append_many_request([pb.Event(id="x"), pb.Event(id="y")], None).request_id == ""


def test_a_ready_event_takes_no_fields() -> None:
    with pytest.raises(TypeError):
        events.append_request(pb.Event(type="a.b"), None, {"message": "m"})


def test_deleting_needs_a_filter_or_all() -> None:
    assert events.delete_request(None, True, validate_only=False).all
    for wanted, everything in ((None, False), (pb.EventFilter(types=["a"]), True)):
        with pytest.raises(TypeError):
            events.delete_request(wanted, everything, validate_only=False)


def test_receivers() -> None:
    hook = receivers.webhook("ops", "https://example.com/x", "whsec_x", [receivers.selector(level="error")])
    assert hook.webhook.url == "https://example.com/x"
    assert hook.selectors[0] == notifications.Selector(scope="account", level="error", type="*", resource_type="*")
    assert not hook.HasField("enabled")
    mail = receivers.mailbox(
        "ops",
        "localhost",
        from_address="a@b.c",
        recipients=["d@e.f"],
        port=25,
        security="none",
        enabled=False,
    )
    assert mail.email.security == notifications.EMAIL_SECURITY_NONE
    assert mail.HasField("enabled")
    assert deliveries.deliveries_request(["delivered"]).states == [notifications.DELIVERY_STATE_DELIVERED]


def test_alerts() -> None:
    action = alerts.action("c1", group="recovered", body={"text": "{{context.count}}"})
    alert = alerts.alert(
        "failing",
        ".event-threshold",
        {"threshold": 3},
        actions=[action],
        interval="1s",
        notify_when="on_active_alert",
    )
    assert alert.schedule.interval == "1s"
    assert alert.notify_when == alerting.NOTIFY_WHEN_ON_ACTIVE_ALERT
    assert to_python(alert.actions[0].params) == {"body": {"text": "{{context.count}}"}}
    assert not alerts.alert("x", "t", {}).HasField("schedule")
    assert alerts.to_status("ok") == alerting.ALERT_STATUS_OK
