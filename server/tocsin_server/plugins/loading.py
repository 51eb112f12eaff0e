"""Loading the alert types of plug-ins: what cannot be used is named, and keeps nothing else from working.

an entry point that cannot be loaded, or gives no type    that one is left out
an id that begins with a dot, the producer "tocsin"       for the server's own distribution only
an id that is there already                               the first by the distribution's name stays
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

import structlog

from tocsin_server.domain.alert_checks import check_schema
from tocsin_server.domain.alerting import OWN_PRODUCER, AlertType, AlertTypes, FailedType
from tocsin_server.plugins.running import PluginThreads
from tocsin_server.plugins.spec import AlertTypeSpec

ENTRY_POINTS = "tocsin.alert_types"
OWN_DISTRIBUTION = "tocsin-server"
ERROR_SHOWN_MAX = 500  # characters

Types: TypeAlias = dict[str, tuple[AlertType, str]]  # by id, with whose they are

log = structlog.get_logger("tocsin.alerting")


def with_plugins(own: Iterable[AlertType], found: Iterable[EntryPoint] | None = None) -> AlertTypes:
    """Give the server's own types and those of the plug-ins that are installed."""
    types = {alert_type.id: (alert_type, OWN_DISTRIBUTION) for alert_type in own}
    failed: list[FailedType] = []
    threads = PluginThreads()
    for point in sorted(entry_points(group=ENTRY_POINTS) if found is None else found, key=_order):
        distribution = _distribution(point)
        try:
            loaded = _loaded(point, distribution, types, threads)
        except (Exception, SystemExit) as error:  # the code of others: whatever it does
            told = f"{type(error).__name__}: {error}"[:ERROR_SHOWN_MAX]
            failed.append(FailedType(point.name, distribution, told))
            log.error(
                "an alert type cannot be used",
                entry_point=point.name,
                distribution=distribution,
                error=told,
                exc_info=not isinstance(error, ValueError),
            )
            continue
        types |= loaded
        log.info("alert types were loaded", distribution=distribution, ids=list(loaded))
    return AlertTypes((alert_type for alert_type, _ in types.values()), failed)


def _loaded(point: EntryPoint, distribution: str, types: Types, threads: PluginThreads) -> Types:
    """Load all types of an entry point, or none."""
    loaded: Types = {}
    for spec in _specs(point):
        loaded[spec.id] = (_checked(spec, distribution, types | loaded, threads), distribution)
    return loaded


def _order(point: EntryPoint) -> tuple[str, str]:
    return _distribution(point), point.name


def _distribution(point: EntryPoint) -> str:
    """Give the normalised name of the distribution."""
    name = point.dist.name if point.dist is not None else ""
    return re.sub(r"[-_.]+", "-", name).lower()


def _specs(point: EntryPoint) -> Iterator[AlertTypeSpec]:
    value = point.load()
    if callable(value):
        value = value()
    specs = [value] if isinstance(value, AlertTypeSpec) else list(value)
    if not specs or not all(isinstance(spec, AlertTypeSpec) for spec in specs):
        raise ValueError(f"{point.value} gives no AlertTypeSpec")
    yield from specs


def _checked(spec: AlertTypeSpec, distribution: str, types: Types, threads: PluginThreads) -> AlertType:
    alert_type = spec.alert_type(distribution, threads)
    check_schema(alert_type.params_schema)
    if distribution != OWN_DISTRIBUTION:
        if spec.id.startswith("."):
            raise ValueError(f"alert type {spec.id!r} begins with a dot, as only those that come with the server do")
        if alert_type.producer == OWN_PRODUCER:
            raise ValueError(f"alert type {spec.id!r} names the producer {OWN_PRODUCER!r}, which is the server")
    if spec.id in types:
        raise ValueError(f"alert type {spec.id!r} is already registered by {types[spec.id][1]}")
    return alert_type
