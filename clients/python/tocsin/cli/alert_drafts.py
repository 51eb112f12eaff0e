"""An alert as a file describes it, with flags over that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from tocsin.cli import documents
from tocsin.cli.flags import flag
from tocsin.cli.misuse import Misuse
from tocsin.v1 import alerting_pb2 as pb

FIELDS = ("name", "tags", "schedule", "throttle", "notify_when", "params", "actions")
"""What an update can change."""

_KEPT = {
    "alert_type_id": "it cannot change",
    "consumer": "it cannot change",
    "enabled": 'use "tocsin alert enable" or "disable"',
}

File = Annotated[
    str,
    flag(
        "-f",
        "TOCSIN_ALERT_FILE",
        "the alert in YAML or JSON, as get prints it; - reads standard input",
        "FILE",
        also=("--file",),
    ),
]


@dataclass(frozen=True)
class Draft:
    """An alert by a file, or by flags that stand over its fields."""

    file: File = ""
    name: Annotated[str, flag("--name", "TOCSIN_ALERT_NAME", "its name for people")] = ""
    interval: Annotated[str, flag("--interval", "TOCSIN_ALERT_INTERVAL", "how often it runs: 10s, 5m", "STRETCH")] = ""
    throttle: Annotated[
        str,
        flag("--throttle", "TOCSIN_ALERT_THROTTLE", "least time between messages about an instance: 10m", "STRETCH"),
    ] = ""

    def new(self) -> pb.Alert:
        """Make an alert that is not stored yet. Raises Misuse."""
        if not self.file:
            raise Misuse("--file", "is missing: give the alert in YAML or JSON")
        made = read(self.file)
        self._put_onto(made)
        return made

    def change(self, id: str, stored: Callable[[str], pb.Alert]) -> tuple[pb.Alert, list[str]]:
        """Answer the new values for a stored alert, and which fields they are. Raises Misuse.

        `stored` is asked for the alert where the file has something that cannot change.
        """
        data = documents.read("--file", self.file) if self.file else {}
        made = documents.message("--file", pb.Alert, data)
        if made.id not in ("", id):
            raise Misuse("--file", f"it is about {made.id!r}, not about {id!r}")
        changed = [name for name in FIELDS if _has(data, name)] + self._put_onto(made)
        if not changed:
            raise Misuse("update", f"give what is to change: flags, or -f FILE with any of {', '.join(FIELDS)}")
        if kept := [name for name in _KEPT if _has(data, name)]:
            _judge_kept(made, stored(id), kept)
        made.id = id
        return made, list(dict.fromkeys(changed))

    def _put_onto(self, made: pb.Alert) -> list[str]:
        changed = []
        for name in ("name", "throttle"):
            if value := getattr(self, name):
                setattr(made, name, value)
                changed.append(name)
        if self.interval:
            made.schedule.interval = self.interval
            changed.append("schedule")
        return changed


def read(file: str) -> pb.Alert:
    """Read an alert that is not stored. Raises Misuse."""
    made = documents.message("--file", pb.Alert, documents.read("--file", file))
    made.ClearField("id")
    return made


def _judge_kept(made: pb.Alert, stored: pb.Alert, kept: Iterable[str]) -> None:
    for name in kept:
        if getattr(made, name) != (there := getattr(stored, name)):
            raise Misuse("--file", f"{name} of the alert is {there!r}: {_KEPT[name]}")


def _has(data: dict[str, Any], name: str) -> bool:
    return name in data or pb.Alert.DESCRIPTOR.fields_by_name[name].camelcase_name in data
