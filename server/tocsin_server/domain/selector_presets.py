"""The quick selections: selectors that people ask for again and again, by name."""

from __future__ import annotations

from dataclasses import dataclass

from tocsin_server.domain.selection import Selector


@dataclass(frozen=True, slots=True)
class SelectorPreset:
    """One quick selection; those of scope `global` are the account `admin`'s."""

    id: str
    title: str
    selector: Selector


PRESETS = (
    SelectorPreset(
        "checks", "Policy evaluation and vulnerability updates", Selector("account", "*", "user.checks.*", "*")
    ),
    SelectorPreset("user-errors", "User errors", Selector("account", "error", "user.*", "*")),
    SelectorPreset("user-infos", "User infos", Selector("account", "info", "user.*", "*")),
    SelectorPreset("user", "Everything user related", Selector("account", "*", "user.*", "*")),
    SelectorPreset("system-errors", "System errors", Selector("account", "error", "system.*", "*")),
    SelectorPreset("system-infos", "System infos", Selector("account", "info", "system.*", "*")),
    SelectorPreset("system", "Everything system related", Selector("account", "*", "system.*", "*")),
    SelectorPreset("all", "All", Selector("account", "*", "*", "*")),
    SelectorPreset("all-accounts", "All for every account", Selector("global", "*", "*", "*")),
)
