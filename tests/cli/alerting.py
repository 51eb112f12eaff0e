"""Alerts for tests of the command line: written as files, and run by hand."""

from __future__ import annotations

import yaml

from tests.cli.conftest import Cli

FILE = {
    "name": "image analyses fail",
    "alert_type_id": ".event-threshold",
    "consumer": "ops",
    "tags": ["images"],
    "schedule": {"interval": "1h"},
    "params": {"source": {"levels": ["error"]}, "window": "1h", "threshold": 1, "group_by": ["resource_id"]},
}
"""An alert of which one failure of a resource is enough."""


def text(**changes: object) -> str:
    """Write an alert as YAML."""
    return yaml.safe_dump(FILE | changes)


def created(cli: Cli, *words: str, **changes: object) -> str:
    """Create an alert and run it in place of the first run, which is at once; answers its id."""
    made = cli("alert", "create", "-f", "-", "-o", "id", *words, stdin=text(**changes))
    assert made.code == 0, made.err
    id = made.out.strip()
    if "--disabled" not in words:
        cli.client.run_alert(id)
    return id


def receiver(cli: Cli) -> str:
    """Create a receiver at which nobody listens: what it is told waits."""
    made = cli("endpoint", "configuration", "create", "ops", "--url", "http://127.0.0.1:1/", "-o", "id")
    return made.out.strip()


def fail(cli: Cli, *resources: str) -> None:
    """Append a failure of each."""
    for resource in resources:
        cli.client.append("a.b", level="error", resource={"type": "image_tag", "id": resource})
