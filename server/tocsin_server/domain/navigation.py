"""Where alerts are shown: paths below `ui_url` that applications register for their alerts.

A navigation of a consumer and a type goes before the consumer's default. The path is a template over the
alert; its values are percent-encoded, so that none of them can leave its place in the path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from unicodedata import category

from tocsin_server.domain.alerting import Alert
from tocsin_server.domain.errors import Reason, TocsinError, Violation, invalid_field
from tocsin_server.domain.templates import Escape, RenderError, TemplateError, parse, render, tags_of
from tocsin_server.domain.variables import Variables

NAVIGATIONS_MAX = 1000  # of one account
NAMES = (
    "alert.id", "alert.name", "alert.consumer", "alert.alertTypeId", "alert.tags", "alert.params", "spaceId",
)  # fmt: skip
ANY = "alert.params."  # what is below it is up to the type, or to nobody


@dataclass(frozen=True, slots=True)
class Navigation:
    """Where alerts of a consumer are shown; those of any type when `alert_type_id` is empty."""

    account: str
    consumer: str
    alert_type_id: str
    path_template: str

    @property
    def name(self) -> str:
        """Name it for people."""
        return f"of consumer {self.consumer!r} and " + (
            f"alert type {self.alert_type_id!r}" if self.alert_type_id else "any alert type"
        )

    def path(self, alert: Alert) -> str:
        """Give the path of an alert; RenderError when it cannot be made."""
        spec = alert.spec
        about = {
            "id": alert.id,
            "name": spec.name,
            "consumer": spec.consumer,
            "alertTypeId": spec.alert_type_id,
            "tags": list(spec.tags),
            "params": spec.params,
        }
        return render(self.path_template, Variables({"alert": about, "spaceId": alert.account}), Escape.URL)


def check(path_template: str) -> None:
    """Judge a template of a path; INVALID_FIELD or INVALID_TEMPLATE name what is wrong with it."""
    if not path_template.startswith("/") or path_template.startswith(("//", "/\\")):
        raise invalid_field("path_template", 'is no path below ui_url: it begins with one "/"')
    if any(category(letter)[0] in "CZ" or letter == "\\" for letter in _outside_tags(path_template)):
        raise invalid_field("path_template", "has spaces, control characters or backslashes")
    try:
        parse(path_template)
    except TemplateError as error:
        raise TocsinError(
            Reason.INVALID_TEMPLATE,
            f"path_template: {error}",
            violations=[Violation("path_template", str(error))],
        ) from None
    if "{{{" in path_template or "{{&" in path_template:
        raise invalid_field("path_template", "has values that are not encoded: write {{name}}")
    unknown = next(_unknown(path_template), None)
    if unknown is not None:
        raise invalid_field("path_template", f"there is no {unknown!r}: there are {', '.join(NAMES)}")


def _unknown(template: str) -> Iterator[str]:
    """Give the names that no alert has; a name in a section may be one of the section's value."""
    scopes: list[str] = []
    for kind, name in tags_of(template):
        if kind == "/":
            scopes.pop()
        elif kind != "!":
            found = _found(name, scopes)
            if found is None:
                yield name
            if kind in ("#", "^"):
                scopes.append(found or name)


def _found(name: str, scopes: Sequence[str]) -> str | None:
    """Give the whole name of what a name stands for within sections."""
    if name == ".":
        return scopes[-1] if scopes else None
    wholes = (*(f"{scope}.{name}" for scope in reversed(scopes)), name)
    return next((one for one in wholes if one in (*NAMES, "alert") or one.startswith(ANY)), None)


def _outside_tags(template: str) -> str:
    first, *rest = template.split("{{")
    return first + "".join(part.partition("}}")[2] for part in rest)


def path_of(navigation: Navigation | None, alert: Alert) -> str:
    """Give the path of an alert, empty where there is none or it cannot be made."""
    if navigation is None:
        return ""
    try:
        return navigation.path(alert)
    except RenderError:
        return ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an alert is shown: the path of its navigation, if it has one, and the link, if there is a `ui_url`."""

    path: str = ""
    link: str = ""

    @classmethod
    def of(cls, ui_url: str, path: str) -> Place:
        """Make a place of a path below `ui_url`; without a path it is `ui_url` itself."""
        return cls(path, ui_url.rstrip("/") + path if ui_url and path else ui_url)


NOWHERE = Place()


class NavigationStore(Protocol):
    """The registered navigations; every call is within one account."""

    async def register(self, navigation: Navigation) -> None:
        """Store a navigation; NAVIGATION_REGISTERED when there is one."""
        ...

    async def forget(self, account: str, consumer: str, alert_type_id: str) -> None:
        """Forget a navigation; NAVIGATION_NOT_REGISTERED when there is none."""
        ...

    async def holding(self, alert: Alert) -> Navigation | None:
        """Read the navigation that holds for an alert, stored or not."""
        ...

    async def of(self, account: str, alert_id: str) -> tuple[Alert, Navigation | None]:
        """Read an alert and the navigation that holds for it."""
        ...
