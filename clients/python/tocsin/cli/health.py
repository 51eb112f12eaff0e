"""How a receiver does, in words: what follows for its deliveries, and why. Pure."""

from __future__ import annotations

from tocsin.cli import choices
from tocsin.cli.rendering import short_time_text
from tocsin.v1 import notifications_pb2 as pb

COLOURS = {"FAILING": "red", "DISABLED": "red", "THROTTLED": "yellow", "OFF": "yellow", "HEALTHY": "green"}
"""The colour of each word of `word`."""

_REASONS = {
    "CREDENTIALS": "it does not accept the credentials; deliveries are paused",
    "NOT_FOUND": "it does not know the address (404); deliveries are paused",
    "GONE": "it answered that it is gone for good (410); a passing test enables it again",
    "FAILURES": "nothing but failures for five days; a passing test enables it again",
    "SWITCHED_OFF": "it is switched off",
    "THROTTLED": "it asked to wait",
    "OVERLOADED": "it is overloaded",
}


def word(configuration: pb.EndpointConfiguration) -> str:
    """Answer the state in a word; OFF for what somebody has switched off."""
    health = configuration.health
    if not configuration.enabled or health.reason == "SWITCHED_OFF":
        return "OFF"
    return state(health)


def state(health: pb.Health) -> str:
    """Answer the state of a receiver in a word. One of which nothing is known yet is healthy."""
    return choices.word(pb.HealthState, health.state or pb.HEALTH_STATE_HEALTHY)


def why(health: pb.Health) -> str:
    """Answer why, since when and what comes next; empty when all is well."""
    parts = [_REASONS.get(health.reason, health.reason.lower().replace("_", " "))] if health.reason else []
    if health.consecutive_failures:
        count = health.consecutive_failures
        since = f" since {short_time_text(health.first_failure_time)}" if health.HasField("first_failure_time") else ""
        parts.append(f"{count} failure{'' if count == 1 else 's'}{since}")
    elif parts and health.HasField("since"):
        parts.append(f"since {short_time_text(health.since)}")
    if health.HasField("until"):
        parts.append(f"next attempt {short_time_text(health.until)}")
    return ", ".join(parts)
