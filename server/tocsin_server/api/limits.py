"""Every limit that a client may meet, as System.GetInfo shows them; each is named with its reason where it holds."""

from __future__ import annotations

from tocsin_server.api.server import STREAMS_MAX
from tocsin_server.domain import (
    alerting,
    consumers,
    deliveries,
    event_log,
    event_types,
    lanes,
    notifications,
    silences,
    summary,
    templates,
    where,
)

LIMITS = {
    "event_bytes": event_log.EVENT_BYTES_MAX,
    "batch_events": event_log.BATCH_EVENTS_MAX,
    "batch_bytes": event_log.BATCH_BYTES_MAX,
    "page_size": event_log.PAGE_EVENTS_MAX,
    "page_bytes": event_log.PAGE_BYTES_MAX,
    "scan_events": event_log.SCAN_EVENTS_MAX,
    "total_size": event_log.TOTAL_SIZE_MAX,
    "summary_events": summary.SUMMARY_EVENTS_MAX,
    "summary_buckets": summary.BUCKETS_MAX,
    "where_characters": where.WHERE_LENGTH_MAX,
    "event_types": event_types.EVENT_TYPES_MAX,
    "subscribe_batch_events": event_log.SUBSCRIBE_BATCH_EVENTS,
    "subscribe_batch_bytes": event_log.SUBSCRIBE_BATCH_BYTES,
    "consumers": consumers.CONSUMERS_MAX,
    "consumer_parked_events": consumers.PARKED_MAX,
    "consumer_waiting_events": consumers.WAITING_MAX,
    "endpoint_configurations": notifications.CONFIGURATIONS_MAX,
    "deliveries_in_flight": lanes.IN_FLIGHT_MAX,
    "recovered_deliveries": deliveries.RECOVERED_MAX,
    "response_excerpt_bytes": notifications.EXCERPT_BYTES_MAX,
    "attempts_shown": notifications.ATTEMPTS_SHOWN_MAX,
    "silences": silences.SILENCES_MAX,
    "streams": STREAMS_MAX,
    "alerts": alerting.ALERTS_MAX,
    "alert_instances": alerting.INSTANCES_MAX,
    "alert_instance_bytes": alerting.INSTANCE_BYTES_MAX,
    "template_characters": templates.TEMPLATE_CHARACTERS_MAX,
    "template_tags": templates.TEMPLATE_TAGS_MAX,
    "template_depth": templates.TEMPLATE_DEPTH_MAX,
}
