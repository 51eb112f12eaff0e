"""The webhooks of the log itself, as the settings define them.

They are endpoint configurations of the account `admin` with scope global, so that they have deliveries,
health and tests as all others do; they are changed in the settings only. Exactly one of those that are
defined is used: the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tocsin_server.domain.notifications import EndpointConfiguration
from tocsin_server.domain.selection import Selector

PREFIX = "config:"
OWNER = "admin"
NAMES = ("event_update", "general")  # in the order in which they are asked


def is_configured(configuration_id: str) -> bool:
    """Tell whether a configuration belongs to the settings."""
    return configuration_id.startswith(PREFIX)


def configured(
    connections: Mapping[str, Mapping[str, object]], enabled: bool, levels: Sequence[str]
) -> list[EndpointConfiguration]:
    """Make the configurations of the webhooks that are defined, by name; the first is on if the switch is.

    One that is off has no selectors: nothing is kept for it.
    """
    selectors = tuple(Selector("global", level, "*", "*") for level in dict.fromkeys(levels) or ("*",))
    defined = [name for name in NAMES if name in connections]
    used = defined[0] if defined and enabled else ""
    return [
        EndpointConfiguration(
            id=PREFIX + name,
            account=OWNER,
            kind="webhook",
            name=f"webhooks.{name}",
            description="Defined by the settings of the server; it is changed there.",
            enabled=name == used,
            connection=connections[name],
            selectors=selectors if name == used else (),
        )
        for name in defined
    ]
