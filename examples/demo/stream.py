"""What happens in the demo's little company: a made-up but always equal stream of events."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import tocsin
from tocsin import Event
from tocsin.v1.event_log_pb2 import LEVEL_ERROR

ROUTINE_EVENTS = 150
PAUSE_S = 0.08
# Where in the stream the server is killed, and where one image begins to fail again and again.
KILL_AT = 40
OUTAGE_AT = 70

SICK_IMAGE = "docker.io/acme/payments:2.4"
SICK_FAILURES = 4

_IMAGES = tuple(f"docker.io/acme/{name}" for name in ("web:5.1", "search:1.9", "mail:3.0", "billing:7.2"))
_FEEDS = ("vulnerabilities", "packages", "malware", "licenses")


@dataclass(frozen=True, slots=True)
class Step:
    """One event to append, and how long the producer rests before it, in seconds."""

    event: Event
    pause_s: float

    @property
    def failed(self) -> bool:
        """True for what people have to hear of."""
        return self.event.level == LEVEL_ERROR


def stream() -> Iterator[Step]:
    """Make the whole stream. One event in seven is a failure, but only one image fails again and again."""
    chance = random.Random(1)
    for number in range(ROUTINE_EVENTS):
        if number == OUTAGE_AT:
            yield from _outage()
        make = (_analysis, _sync, _check)[number % 3]
        failed = number % 7 == 3
        yield Step(make(number, chance, failed), PAUSE_S * chance.uniform(0.5, 1.5))


def _outage() -> Iterator[Step]:
    for layer in range(SICK_FAILURES):
        event = tocsin.draft(
            "image.analysis.failed",
            level="error",
            message=f"layer {layer} cannot be read",
            details={"layer": layer, "attempt": layer + 1},
            resource={"type": "image_tag", "id": SICK_IMAGE},
            source={"service": "analyzer", "host": "node-3"},
        )
        yield Step(event, 0.25)


def _analysis(number: int, chance: random.Random, failed: bool) -> Event:
    details = {"layers": chance.randint(3, 20), "seconds": round(chance.uniform(1, 40), 1)}
    return _event("image.analysis", failed, "image_tag", _IMAGES[number % len(_IMAGES)], "analyzer", details)


def _sync(number: int, chance: random.Random, failed: bool) -> Event:
    details = {"records": chance.randint(0, 5000)}
    return _event("feed.sync", failed, "feed", _FEEDS[number % len(_FEEDS)], "feeds", details)


def _check(number: int, chance: random.Random, failed: bool) -> Event:
    details = {"digest": f"sha256:{chance.randbytes(8).hex()}"}
    return _event("tag.check", failed, "image_tag", _IMAGES[number % len(_IMAGES)], "watcher", details)


def _event(
    kind: str,
    failed: bool,
    resource_type: str,
    resource: str,
    service: str,
    details: Mapping[str, object],
) -> Event:
    return tocsin.draft(
        f"{kind}.failed" if failed else f"{kind}.completed",
        level="error" if failed else "info",
        message=f"{kind.replace('.', ' ')} {'failed' if failed else 'is done'}",
        details=details,
        resource={"type": resource_type, "id": resource},
        source={"service": service, "host": "node-1"},
    )
