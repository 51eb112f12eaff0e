"""The entries of the catalogue that the server ships with: those of the services that tocsin was made
for, and those of the events that tocsin itself writes. Examples meet their schemas (a test sees to it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tocsin_server.domain.event_log import Level
from tocsin_server.domain.event_types import EventType

TEXT = {"type": "string"}
# 2021-11-24 13:46:21.672
SCAN_TIME = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}\.\d{3}$"}
DIGEST = "sha256:89020cd33be2767f3f894484b8dd77bc2e5a1ccc864350b92c53262213257dfc"


def _fields(properties: Mapping[str, Any], *required: str) -> Mapping[str, Any]:
    """Make the schema of details with these fields; others may stand beside them."""
    return {"type": "object", "properties": dict(properties), "required": list(required)}


# A sentence, or a structure that says more.
REASON: Mapping[str, Any] = {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}
TAG_CHANGE = {"tag": TEXT, "image_digest": TEXT, "policy_id": TEXT}

IMAGES = (
    EventType(
        "user.checks.policy_eval", "", "The result of evaluating a policy for an image tag has changed.",
        "image_tag", Level.INFO,
        _fields(TAG_CHANGE | {"last_eval": {}, "curr_eval": {}}),
        example={
            "tag": "docker.io/library/nginx:latest", "image_digest": DIGEST, "policy_id": "default",
            "last_eval": {"status": "pass"}, "curr_eval": {"status": "fail"},
        },
    ),
    EventType(
        "user.checks.vulnerability_update", "", "The vulnerabilities known for an image tag have changed.",
        "image_tag", Level.INFO,
        _fields({"tag": TEXT, "image_digest": TEXT, "diff": {"type": "object"}}),
        example={
            "tag": "docker.io/library/nginx:latest", "image_digest": DIGEST,
            "diff": {"added": ["CVE-2022-37434"], "updated": [], "removed": []},
        },
    ),
    EventType(
        "user.image.analysis_failed", "", "The analysis of an image has failed; details say why.",
        "image_tag", Level.ERROR, REASON,
        example={"name": "ImageAnalysisError", "msg": "no space left on device", "exitcode": 1},
    ),
    EventType(
        "system.image_analysis.registry_lookup_failed", "",
        "An image that is referred to was not found in its registry.", "image_reference", Level.ERROR, REASON,
        example="cannot fetch image digest/manifest from registry",
    ),
    EventType(
        "system.image_analysis.restored_from_archive", "", "The analysis of an image was restored from the archive.",
        "image_digest", Level.INFO, REASON, example={"archived_at": "2022-08-24T22:48:45Z"},
    ),
    EventType(
        "system.analysis_archive.image_archived", "", "The analysis of an image was put into the archive.",
        "image_digest", Level.INFO, REASON, example={"size_bytes": 1048576},
    ),
    EventType(
        "system.analysis_archive.image_archive_failed", "", "The analysis of an image could not be archived.",
        "image_digest", Level.ERROR, REASON, example="the object store refused the upload",
    ),
)  # fmt: skip

FEEDS = (
    EventType(
        "feed_sync_start", "", "A periodic synchronisation of vulnerability feeds has started.", "feeds", Level.INFO,
        REASON, example={"feeds": ["vulnerabilities", "nvdv2"]},
    ),
    EventType(
        "feed_sync_complete", "", "A periodic synchronisation of vulnerability feeds is complete.", "feeds",
        Level.INFO, REASON, example={"feeds": ["vulnerabilities", "nvdv2"], "records": 1200},
    ),
    EventType(
        "list_tags_fail", "", "The tags of a watched repository could not be listed.", "repository", Level.ERROR,
        REASON,
        example={
            "SkopeoError": {
                "cmd": '/bin/sh -c skopeo inspect --creds "${SKOPUSER}":"${SKOPPASS}" docker://docker.io/a/b:latest',
                "exitcode": 1, "msg": "Error encountered in skopeo operation", "stderr": "authentication required",
                "stdout": None,
            },
        },
    ),
)  # fmt: skip

POSTURE = "com.ibm.cloud.compliance.posture"
POSTURE_FIELDS = {
    "action": TEXT, "summary": TEXT, "scope": TEXT, "profile": TEXT, "start_time": SCAN_TIME, "end_time": SCAN_TIME,
}  # fmt: skip
SCAN_EXAMPLE = {
    "action": "Validation completed", "summary": "my-test-scan", "scope": "my-test-scope",
    "profile": "CIS IBM Foundations Benchmark 1.0.0", "start_time": "2021-11-24 13:46:21.672",
    "end_time": "2021-11-24 13:46:21.672",
}  # fmt: skip

COMPLIANCE = (
    EventType(
        "com.ibm.cloud.compliance.test", "", "Tests the connection between the compliance service and its receivers.",
        "compliance_instance", Level.INFO, _fields({"action": TEXT, "summary": TEXT}),
        example={"action": "Test", "summary": "It works."},
    ),
    EventType(
        POSTURE, "posture-scan-completed", "A scan is complete.", "posture_scan", Level.INFO,
        _fields(POSTURE_FIELDS, *POSTURE_FIELDS), example=SCAN_EXAMPLE,
    ),
    EventType(
        POSTURE, "posture-scan-failure-threshold-limit-exceeds", "The threshold of failed controls is met.",
        "posture_scan", Level.ERROR, _fields(POSTURE_FIELDS, "action", "summary", "scope", "profile"),
        example=SCAN_EXAMPLE | {"action": "Failure threshold exceeded"},
    ),
    EventType(
        POSTURE, "posture-scan-new-resource-in-inventory", "A new resource was found in the inventory.",
        "inventory_resource", Level.INFO, _fields(POSTURE_FIELDS, "action", "summary", "scope"),
        example={"action": "New resource", "summary": "my-bucket", "scope": "my-test-scope"},
    ),
)  # fmt: skip

ALERT = {"alert_id": TEXT, "alert_name": TEXT, "alert_type_id": TEXT, "scheduled_at": TEXT}
ALERT_EXAMPLE = {
    "alert_id": "0198c0ffee0000000000000000000000", "alert_name": "something keeps failing",
    "alert_type_id": ".event-threshold", "scheduled_at": "2026-01-02T03:04:05Z",
}  # fmt: skip
INSTANCE = ALERT | {"instance_id": TEXT, "action_group": TEXT, "action_subgroup": TEXT}
INSTANCE_EXAMPLE = ALERT_EXAMPLE | {"instance_id": "nginx", "action_group": "default"}
INSTANCE_REQUIRED = (*ALERT, "instance_id", "action_group")

RECEIVER = {"configuration_id": TEXT, "name": TEXT, "kind": TEXT}
RECEIVER_EXAMPLE = {"configuration_id": "0198c0ffee0000000000000000000001", "name": "pager", "kind": "webhook"}
PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
FAILURE = RECEIVER | {
    "reason": TEXT, "error": TEXT, "failures": {"type": "integer"}, "first_failure_at": TEXT, "percent": PERCENT,
}  # fmt: skip
FAILURE_EXAMPLE = RECEIVER_EXAMPLE | {
    "reason": "CONNECTION_REFUSED", "error": "CONNECTION_REFUSED: Connect call failed", "failures": 61,
    "first_failure_at": "2026-01-02T03:04:05Z", "percent": 50,
}  # fmt: skip
EXHAUSTION = {
    "delivery_id": TEXT, "configuration_id": TEXT, "reason": TEXT, "count": {"type": "integer", "minimum": 1},
    "event_id": TEXT, "alert_id": TEXT, "error": TEXT, "status_code": {"type": "integer"},
}  # fmt: skip
EXHAUSTION_EXAMPLE = {
    "delivery_id": "0198c0ffee0000000000000000000002", "configuration_id": "0198c0ffee0000000000000000000001",
    "reason": "ATTEMPTS", "count": 1, "event_id": "0198c0ffee0000000000000000000003", "alert_id": "",
    "error": "the receiver failed: it answered 500", "status_code": 500,
}  # fmt: skip

NOTIFICATIONS = (
    EventType(
        "system.notifications.test", "", "Tests an endpoint configuration or a source.", "", Level.INFO,
        _fields({"test": {"type": "boolean"}}, "test"), example={"test": True},
    ),
    EventType(
        "system.notifications.endpoint_failing", "",
        "Deliveries to a configuration fail: told at the first failure, then at 50, 70 and 90 % of five days.",
        "endpoint_configuration", Level.ERROR, _fields(FAILURE | {"disabled_at": TEXT}, *FAILURE),
        example=FAILURE_EXAMPLE | {"disabled_at": "2026-01-07T03:04:05Z"},
    ),
    EventType(
        "system.notifications.endpoint_disabled", "",
        "Nothing is sent to a configuration any more: its receiver is gone, or has only failed for five days.",
        "endpoint_configuration", Level.ERROR, _fields(FAILURE, *FAILURE),
        example=FAILURE_EXAMPLE | {"percent": 100},
    ),
    EventType(
        "system.notifications.endpoint_recovered", "", "Deliveries to a configuration that failed are taken again.",
        "endpoint_configuration", Level.INFO, _fields(RECEIVER, *RECEIVER), example=RECEIVER_EXAMPLE,
    ),
    EventType(
        "system.notifications.delivery_exhausted", "", "Deliveries were given up.", "endpoint_configuration",
        Level.ERROR, _fields(EXHAUSTION, "delivery_id", "configuration_id", "reason", "count"),
        example=EXHAUSTION_EXAMPLE,
    ),
)  # fmt: skip

SILENCE: dict[str, object] = {name: TEXT for name in ("silence_id", "author", "comment", "start_time", "end_time")}
SILENCE_EXAMPLE = {
    "silence_id": "019c1f0a7d7b4f5f8a3c5b6d7e8f9a0b", "author": "ops", "comment": "the registry moves",
    "start_time": "2026-01-02T03:04:05Z", "end_time": "2026-01-02T05:04:05Z",
}  # fmt: skip
SILENCES = (
    EventType(
        "system.notifications.silence_started", "", "A silence holds: what it means is not told.", "silence",
        Level.INFO, _fields(SILENCE, *SILENCE), example=SILENCE_EXAMPLE,
    ),
    EventType(
        "system.notifications.silence_ended", "", "A silence holds no more; `reason` is TIME or DELETED.", "silence",
        Level.INFO, _fields(SILENCE | {"reason": TEXT}, *SILENCE), example=SILENCE_EXAMPLE | {"reason": "TIME"},
    ),
)  # fmt: skip

COUNTS: dict[str, object] = {
    name: {"type": "number", "minimum": 0}
    for name in ("run_number", "missed", "duration_s", "active", "told", "not_told")
}  # fmt: skip
OWN = (
    EventType(
        "system.alerting.new_instance", "", "An instance of an alert has become active.", "alert", Level.INFO,
        _fields(INSTANCE, *INSTANCE_REQUIRED), example=INSTANCE_EXAMPLE,
    ),
    EventType(
        "system.alerting.recovered_instance", "", "An instance of an alert is active no more.", "alert", Level.INFO,
        _fields(
            INSTANCE | {"reason": TEXT, "started_at": TEXT, "duration_s": {"type": "number", "minimum": 0}},
            *INSTANCE_REQUIRED, "reason", "started_at", "duration_s",
        ),
        example=INSTANCE_EXAMPLE
        | {"reason": "recovered", "started_at": "2026-01-02T03:00:05Z", "duration_s": 240.0},
    ),
    EventType(
        "system.alerting.action_group_changed", "", "An active instance of an alert went to another action group.",
        "alert", Level.INFO, _fields(INSTANCE | {"previous_action_group": TEXT}, *INSTANCE_REQUIRED),
        example=INSTANCE_EXAMPLE | {"previous_action_group": "warning"},
    ),
    EventType(
        "system.alerting.status_changed", "", "The runs of an alert end with another status than before.", "alert", 0,
        _fields(
            ALERT | {"status": TEXT, "previous_status": TEXT, "error_reason": TEXT, "error_message": TEXT},
            *ALERT, "status", "previous_status",
        ),
        example=ALERT_EXAMPLE | {"status": "active", "previous_status": "ok"},
    ),
    EventType(
        "system.alerting.executed", "", "An alert has run; written where alerting.log_runs asks for it.", "alert", 0,
        _fields(
            ALERT | {"status": TEXT, "error_reason": TEXT, "error_message": TEXT} | COUNTS,
            *ALERT, "status", *COUNTS,
        ),
        example=ALERT_EXAMPLE | {"status": "OK"} | dict.fromkeys(COUNTS, 0),
    ),
)  # fmt: skip

BUILT_IN: tuple[EventType, ...] = (*IMAGES, *FEEDS, *COMPLIANCE, *NOTIFICATIONS, *SILENCES, *OWN)
