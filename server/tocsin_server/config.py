"""Settings, frozen at start: defaults file < config file < TOCSIN_* environment < flags.

The only reader of the environment. A setting's type is that of its default; an unknown name is an
error, so that a misspelt setting is noticed.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULTS = Path(__file__).with_name("config.default.toml")
ENVIRONMENT_PREFIX = "TOCSIN_"
CONFIG_VARIABLE = "TOCSIN_CONFIG"
RANGES = {
    "event_log.retention.max_age": (0, 100 * 365 * 86_400),
    "event_log.retention.max_events": (0, 10**12),
    "server.port": (0, 65_535),
    "server.metrics.port": (0, 65_535),
    "notifications.cycle_timers.notifications": (1, 3600),
    "notifications.paused_max_age": (0, 7 * 86_400),
    "notifications.ended_max_age": (8 * 86_400, 100 * 365 * 86_400),
}
CHOICES = {
    "server.authorization_handler": ("internal",),
    "event_log.notification.level": ("info", "error"),
}
RELOADED = frozenset({"log.level"})  # what a SIGHUP takes over; all else waits for a restart
SECRET_NAMES = ("secret", "password", "token")  # no value of such a setting is ever shown


class ConfigError(Exception):
    """A setting cannot be used; the message names it and where it came from."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value and where it came from."""

    name: str
    value: Any
    origin: str

    @property
    def effect(self) -> str:
        """When a change takes effect."""
        return "reload" if self.name in RELOADED else "restart"

    def shown(self) -> str:
        """Give the value as TOML would, or masked."""
        if any(secret in self.name for secret in SECRET_NAMES) and self.value:
            return '"****"'
        return json.dumps(self.value)


class Settings:
    """All effective settings by their dotted names."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._settings = dict(settings)

    def __getitem__(self, name: str) -> Any:
        return self._settings[name].value

    def all(self) -> list[Setting]:
        """Give every setting, in the order of the defaults file."""
        return list(self._settings.values())


def load(
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    additions: Mapping[str, list[str]] | None = None,
) -> Settings:
    """Load the settings. Flags that are None were not given; `additions` go behind the values of lists."""
    given = os.environ if environment is None else environment
    defaults = _flatten(tomllib.loads(DEFAULTS.read_text(encoding="utf-8")))
    settings = {name: Setting(name, value, "default") for name, value in defaults.items()}

    def take(name: str, value: Any, origin: str) -> None:
        if name not in defaults:
            raise ConfigError(f"{origin}: there is no setting {name!r}")
        settings[name] = Setting(name, _typed(name, value, defaults[name], origin), origin)

    file = config_file or (Path(given[CONFIG_VARIABLE]) if given.get(CONFIG_VARIABLE) else None)
    if file is not None:
        for name, value in _flatten(_read(file)).items():
            take(name, value, str(file))
    for name, text in _variables(given, defaults).items():
        take(name, _parsed(text, defaults[name]), variable_of(name))
    for name, value in (flags or {}).items():
        if value is not None:
            take(name, value, "flag")
    for name, more in (additions or {}).items():
        old = settings[name]
        settings[name] = Setting(name, [*old.value, *more], f"{old.origin} and --dev")
    return Settings(settings)


def _variables(environment: Mapping[str, str], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Find the settings among the variables; one of a known section that is no setting is an error."""
    names = {variable_of(name): name for name in defaults}
    sections = tuple({f"{ENVIRONMENT_PREFIX}{name.partition('.')[0].upper()}_" for name in defaults})
    for variable in environment:
        if variable.startswith(sections) and variable not in names:
            raise ConfigError(f"{variable}: there is no such setting")
    return {name: environment[variable] for variable, name in names.items() if variable in environment}


def variable_of(name: str) -> str:
    """Give the environment variable of a setting: server.port is TOCSIN_SERVER_PORT."""
    return ENVIRONMENT_PREFIX + name.replace(".", "_").upper()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the config file {path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the config file {path} is not TOML: {error}") from error


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _parsed(text: str, default: Any) -> Any:
    """Read a variable's text as the type of the default."""
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if isinstance(default, int):
        return int(text) if text.removeprefix("-").isdigit() else text
    if isinstance(default, list):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _typed(name: str, value: Any, default: Any, origin: str) -> Any:
    if type(value) is not type(default):
        wanted = {bool: "true or false", int: "a whole number", str: "a text", list: "a list"}[type(default)]
        raise ConfigError(f"{origin}: {name} = {value!r} is not {wanted}")
    if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:
        least, most = RANGES[name]
        raise ConfigError(f"{origin}: {name} = {value} is outside {least} to {most}")
    for one in (value if isinstance(value, list) else [value]) if name in CHOICES else []:
        if one not in CHOICES[name]:
            raise ConfigError(f"{origin}: {name} = {one!r} is none of {', '.join(CHOICES[name])}")
    return value
