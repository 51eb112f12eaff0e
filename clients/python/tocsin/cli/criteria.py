"""What the flags of a filter mean. Pure: the time is given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from tocsin.cli.misuse import Misuse
from tocsin.cli.times import NoTime, time_of
from tocsin.events import to_level
from tocsin.following import After, Start
from tocsin.v1.event_log_pb2 import SCOPE_GLOBAL, EventFilter

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d|w)")
_AFTER = re.compile(r"([0-9]+)(?:@([0-9a-f]{32}))?")
_RESOURCE_TYPES = {"tag": "image_tag", "imageDigest": "image_digest"}


def moment(where: str, text: str, now: datetime) -> datetime:
    """Read an ISO 8601 time, UTC unless it says otherwise, or a stretch back from now such as 90s, 15m, 1h, 7d."""
    if ago := _AGO.fullmatch(text):
        return _shifted(where, now, -span(where, ago[0]))
    return _time(where, text, "for so long ago")


def coming(where: str, text: str, now: datetime) -> datetime:
    """Read an ISO 8601 time, UTC unless it says otherwise, or a stretch from now on such as 90s, 15m, 1h, 7d."""
    if stretch := _AGO.fullmatch(text):
        return _shifted(where, now, span(where, stretch[0]))
    return _time(where, text, "from now on")


def _shifted(where: str, now: datetime, by: timedelta) -> datetime:
    try:
        return now + by
    except OverflowError:
        raise Misuse(where, "is too far away") from None


def _time(where: str, text: str, meaning: str) -> datetime:
    try:
        return time_of(text)
    except NoTime as error:
        said = f"is {error}" if str(error) else f"is no time: give 2022-08-24T22:08:28Z, or 15m, 1h, 7d {meaning}"
        raise Misuse(where, f"{text!r} {said}") from None


def span(where: str, text: str) -> timedelta:
    """Read a stretch of time such as 30s, 15m, 1h, 7d, 2w."""
    found = _AGO.fullmatch(text)
    if found is None:
        raise Misuse(where, f"{text!r} is no stretch of time: give a number and s, m, h, d or w, such as 15m")
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        raise Misuse(where, f"{text!r} is too long") from None


def start(after: str | None, since: datetime | None, beginning: bool, new: bool) -> Start:
    """Settle on where to begin reading: at most one of them; "new" where there is none."""
    given = [after is not None, since is not None, beginning, new]
    if sum(given) > 1:
        raise Misuse("start", "give only one of --after, --since, --beginning and --new")
    if after is not None:
        found = _AFTER.fullmatch(after)
        if found is None:
            raise Misuse("--after", f"{after!r} is no place: give POSITION or POSITION@LOG_ID")
        return After(int(found[1]), found[2] or "")
    if since is not None:
        return since
    return "beginning" if beginning else "new"


def prefixed(event_type: str) -> list[str]:
    """Answer the globs of `--event-type`: the type itself and every one that begins so; a glob is taken as it is."""
    return [event_type] if "*" in event_type else [event_type, f"{event_type}*"]


def pairs(where: str, given: Iterable[str]) -> dict[str, str]:
    """Read KEY=VALUE."""
    found = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise Misuse(where, f"{text!r} is no pair: give KEY=VALUE")
        found[key] = value
    return found


def resource_type(name: str) -> str:
    """Answer the name of a resource type; `tag` and `imageDigest` are aliases."""
    return _RESOURCE_TYPES.get(name, name)


def event_filter(given: Mapping[str, Iterable[str]], where: str = "", all_accounts: bool = False) -> EventFilter:
    """Make a filter from what stands behind each flag, by the flag's name without dashes."""
    wanted = EventFilter(where=where, labels=pairs("--label", given.get("label", ())))
    for event_type in given.get("event-type", ()):
        wanted.types.extend(prefixed(event_type))
    for level in given.get("level", ()):
        try:
            wanted.levels.append(to_level(level))
        except ValueError:
            raise Misuse("--level", f"{level!r} is no level: give INFO or ERROR") from None
    wanted.hosts.extend(given.get("host", ()))
    wanted.services.extend(given.get("service", ()))
    wanted.subtypes.extend(given.get("subtype", ()))
    wanted.user_ids.extend(given.get("user", ()))
    wanted.resource_types.extend(resource_type(name) for name in given.get("resource-type", ()))
    wanted.resource_ids.extend(given.get("resource", ()))
    if all_accounts:
        wanted.scope = SCOPE_GLOBAL
    return wanted


def bounded(wanted: EventFilter, since: datetime | None, before: datetime | None) -> EventFilter:
    """Bound a filter by times of occurrence: since <= timestamp < before."""
    if since is not None:
        wanted.since.FromDatetime(since)
    if before is not None:
        wanted.before.FromDatetime(before)
    return wanted
