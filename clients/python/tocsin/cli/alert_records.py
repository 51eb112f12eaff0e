"""Alerts and their types as text. Pure."""

from __future__ import annotations

from tocsin.cli import choices
from tocsin.cli.printing import Columns
from tocsin.cli.rendering import short_time_text
from tocsin.v1 import alerting_pb2 as pb

COLOURS = {"ACTIVE": "red", "ERROR": "red", "OK": "green", "PENDING": "yellow", "OFF": "yellow"}
"""The colour of each word of `word`."""

_TITLES = ("ID", "NAME", "STATUS", "TYPE", "CONSUMER", "EVERY", "MUTED", "LAST RUN", "TAGS")
_ID, _NAME, _STATUS, _TYPE, _CONSUMER, _EVERY, _MUTED, _LAST, _TAGS = range(len(_TITLES))
ALERTS = Columns(
    _TITLES,
    (
        ((_ID, _NAME, _STATUS, _TYPE, _CONSUMER, _EVERY, _MUTED, _LAST, _TAGS),),
        ((_ID, _STATUS, _NAME), (_TYPE, _CONSUMER, _EVERY, _MUTED, _LAST, _TAGS)),
        ((_ID, _STATUS), (_NAME,), (_TYPE, _CONSUMER), (_EVERY, _MUTED, _LAST, _TAGS)),
    ),
    {_NAME: 16, _TYPE: 12, _CONSUMER: 8, _TAGS: 8},
    _STATUS,
    COLOURS,
)
TYPES = Columns(
    ("ID", "NAME", "PRODUCER", "GROUPS", "EVERY", "ENABLED"),
    (((0, 1, 2, 3, 4, 5),), ((0, 4, 5), (1, 2, 3)), ((0,), (1,), (2, 3, 4, 5))),
    {1: 16, 2: 8, 3: 12},
    5,
    {"no": "red"},
)


def word(alert: pb.Alert) -> str:
    """Answer how an alert is in a word; OFF for what somebody has switched off."""
    return choices.word(pb.AlertStatus, alert.execution_status.status) if alert.enabled else "OFF"


def why(alert: pb.Alert) -> str:
    """Answer why its newest run failed; empty where it did not."""
    error = alert.execution_status.error
    return f"{error.reason}: {error.message}" if alert.execution_status.HasField("error") else ""


def muted(alert: pb.Alert) -> str:
    """Answer what nobody is told of: `all`, so many instances, or nothing."""
    return "all" if alert.mute_all else str(len(alert.muted_instance_ids) or "")


def cells(alert: pb.Alert) -> list[str]:
    """Answer the columns of `ALERTS`."""
    status = alert.execution_status
    last = short_time_text(status.last_execution_time) if status.HasField("last_execution_time") else ""
    every = alert.schedule.interval
    return [
        alert.id,
        alert.name,
        word(alert),
        alert.alert_type_id,
        alert.consumer,
        every,
        muted(alert),
        last,
        " ".join(alert.tags),
    ]


def type_cells(found: pb.AlertType) -> list[str]:
    """Answer the columns of `TYPES`."""
    groups = [*found.action_groups, found.recovery_action_group]
    enabled = "yes" if found.enabled else "no"
    return [
        found.id,
        found.name,
        found.producer,
        " ".join(group.id for group in groups),
        found.default_interval,
        enabled,
    ]
