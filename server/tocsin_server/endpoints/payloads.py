"""What a webhook posts: JSON as Standard Webhooks suggests, `{type, timestamp, data}`, or a CloudEvent.

The whole event is in `data`, the same in both formats. Source: Standard Webhooks 1.0.0, CloudEvents 1.0.2
(structured mode).
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from tocsin_server.domain.event_log import Event
from tocsin_server.domain.notifications import Message
from tocsin_server.domain.variables import event_data, time_text

DIGEST_TYPE = "system.notifications.digest"
DIGEST_BYTES_MAX = 1024 * 1024  # of whole events in one body
TEST_TYPE = "system.notifications.test"
ACTION_TYPE = "system.alerting.action"
JSON_TYPE = "application/json"
CLOUD_EVENT_TYPE = "application/cloudevents+json; charset=utf-8"
CLOUD_EVENTS = "CLOUDEVENTS"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def payload_of(message: Message) -> dict[str, Any]:
    """Give the payload of a message that has no body of its own."""
    event = message.event
    if event is not None:
        return {"type": event.type, "timestamp": time_text(event.timestamp), "data": event_data(event)}
    sent = time_text(message.sent_at)
    if message.events:
        return {"type": DIGEST_TYPE, "timestamp": sent, "data": _digest(message)}
    kind = ACTION_TYPE if message.subject.get("alert_id") else TEST_TYPE
    link = {"url": message.alert_link} if message.alert_link else {}
    return {"type": kind, "timestamp": sent, "data": {**message.subject, **link}}


def cloud_event_of(message: Message) -> dict[str, Any]:
    """Give the payload as a CloudEvent: its id is that of the event, or of the delivery where that is no event."""
    payload, event = payload_of(message), message.event
    found = {
        "specversion": "1.0",
        "id": event.id if event is not None else message.delivery_id,
        "source": _source(event),
        "type": payload["type"],
        "time": payload["timestamp"],
        "datacontenttype": JSON_TYPE,
        "data": payload["data"],
    }
    if event is not None:
        optional = {
            "subject": event.resource["id"],
            "traceparent": event.traceparent,
            "correlationid": event.correlation_id,
        }
        found |= {name: value for name, value in optional.items() if value}
    return found


def _source(event: Event | None) -> str:
    """Give a URI reference: the account and the service that the event is from."""
    if event is None:
        return "/tocsin"
    service = event.source["service"]
    return f"/accounts/{quote(event.account, safe='')}" + (f"/services/{quote(service, safe='')}" if service else "")


def encoded(payload: dict[str, Any]) -> bytes:
    """Encode a payload, as short as JSON can be."""
    return _encode(payload).encode()


def _digest(message: Message) -> dict[str, object]:
    """Give several events, whole as long as they fit; of the others what names them."""
    events: list[dict[str, object]] = []
    size = 0
    for event in message.events:
        whole = event_data(event)
        size += len(json.dumps(whole, ensure_ascii=False))
        brief = {name: whole[name] for name in ("id", "position", "type", "level", "message", "timestamp")}
        events.append(whole if size <= DIGEST_BYTES_MAX else {**brief, "truncated": True})
    lost = {"missing": message.missing} if message.missing else {}
    return {**message.subject["digest"], "count": len(events), **lost, "events": events}
