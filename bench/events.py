"""The event that every figure is taken with."""

from __future__ import annotations

from tocsin.v1 import event_log_pb2 as pb


def sample_event() -> pb.Event:
    """Make an event of about 700 bytes with a structure in its details."""
    event = pb.Event(
        type="user.image.analysis_failed",
        level=pb.LEVEL_ERROR,
        message="Failed to analyze the image: no space left on device",
        resource=pb.EventResource(type="image_tag", id="docker.io/library/nginx:latest", user_id="admin"),
        source=pb.EventSource(service="analyzer", host="analyzer-7d9f6c", base_url="http://analyzer:8082"),
        labels={"region": "eu-1", "tier": "gold"},
    )
    event.details.struct_value.update({
        "cmd": "skopeo copy docker://docker.io/library/nginx:latest", "exitcode": 1, "stderr": "no space left " * 10,
        "attempts": [1, 2, 3], "digest": "sha256:" + "ab" * 32,
    })  # fmt: skip
    return event


def append_request() -> bytes:
    """Encode an AppendEvent of one event."""
    return pb.AppendEventRequest(event=sample_event()).SerializeToString()


def batch_request(events: int) -> bytes:
    """Encode an AppendEvents of so many events."""
    return pb.AppendEventsRequest(events=[sample_event()] * events).SerializeToString()
