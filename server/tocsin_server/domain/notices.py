"""What tocsin writes into the log about its own deliveries.

Each is about a configuration, as its resource: the router never sends it to that one.
"""

from __future__ import annotations

from collections.abc import Sequence

from tocsin_server.domain.event_log import Level, OwnEvent
from tocsin_server.domain.health import DISABLED_AFTER_US, Health, Told
from tocsin_server.domain.notifications import Delivery, Outcome
from tocsin_server.domain.settlement import Settlement
from tocsin_server.domain.variables import time_text

PREFIX = "system.notifications."
RESOURCE = "endpoint_configuration"


def of_health(told: Told, row: Delivery, name: str, health: Health, outcome: Outcome) -> OwnEvent:
    """Tell of a receiver that fails, is given up or works again."""
    details: dict[str, object] = {"configuration_id": row.configuration_id, "name": name, "kind": row.kind}
    if told is Told.RECOVERED:
        text = f"Deliveries to {row.kind} {name!r} are taken again."
        return _event(row, "endpoint_recovered", text, details, Level.INFO)
    details |= {
        "reason": health.reason or str(outcome.error_class),
        "error": outcome.error,
        "failures": health.failures,
        "first_failure_at": time_text(health.first_failure_at),
        "percent": health.told_percent,
    }
    if told is Told.DISABLED:
        why = "it is gone" if health.reason == "GONE" else "it has only failed for five days"
        text = f"Nothing is sent to {row.kind} {name!r} any more: {why}. A test that passes enables it again."
        return _event(row, "endpoint_disabled", text, details, Level.ERROR)
    end = time_text(health.first_failure_at + DISABLED_AFTER_US)
    text = f"Deliveries to {row.kind} {name!r} fail: {outcome.error}. If nothing else happens it is disabled at {end}."
    return _event(row, "endpoint_failing", text, {**details, "disabled_at": end}, Level.ERROR)


def of_exhaustion(row: Delivery, settlement: Settlement, outcome: Outcome) -> OwnEvent:
    """Tell of a delivery that was given up."""
    details: dict[str, object] = {
        "delivery_id": row.id,
        "configuration_id": row.configuration_id,
        "reason": settlement.reason,
        "count": 1,
        "event_id": row.event_id,
        "alert_id": row.alert_id,
        "error": outcome.error,
        "status_code": outcome.status_code,
    }
    text = f"Delivery {row.id} to {row.kind} {row.configuration_id} was given up: {outcome.error}."
    return _event(row, "delivery_exhausted", text, details, Level.ERROR)


def of_expiry(key: tuple[str, str], ids: Sequence[str]) -> OwnEvent:
    """Tell of deliveries to one configuration that were open for too long."""
    account, configuration_id = key
    details = {"delivery_id": ids[0], "configuration_id": configuration_id, "reason": "EXPIRED", "count": len(ids)}
    text = f"{len(ids)} deliveries to {configuration_id} were given up: they had been open for seven days."
    return OwnEvent(account, f"{PREFIX}delivery_exhausted", text, details, Level.ERROR, RESOURCE, configuration_id)


def _event(row: Delivery, name: str, text: str, details: dict[str, object], level: Level) -> OwnEvent:
    return OwnEvent(row.account, PREFIX + name, text, details, level, RESOURCE, row.configuration_id)
