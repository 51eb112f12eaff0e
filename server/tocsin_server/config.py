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
SECRET_NAMES = ("secret", "password", "token")  # no value of such a setting is ever shown


class ConfigError(Exception):
    """A setting cannot be used; the message names it and where it came from."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value and where it came from."""

    name: str
    value: Any
    origin: str

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
) -> Settings:
    """Load the settings; `flags` are by dotted name, those that are None were not given."""
    defaults = _flatten(tomllib.loads(DEFAULTS.read_text(encoding="utf-8")))
    settings = {name: Setting(name, value, "default") for name, value in defaults.items()}

    def take(name: str, value: Any, origin: str) -> None:
        if name not in defaults:
            raise ConfigError(f"{origin}: there is no setting {name!r}")
        settings[name] = Setting(name, _typed(name, value, defaults[name], origin), origin)

    if config_file is not None:
        for name, value in _flatten(_read(config_file)).items():
            take(name, value, str(config_file))
    for name in defaults:
        variable = variable_of(name)
        given = (os.environ if environment is None else environment).get(variable)
        if given is not None:
            take(name, _parsed(given, defaults[name]), variable)
    for name, value in (flags or {}).items():
        if value is not None:
            take(name, value, "flag")
    return Settings(settings)


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
    return value
