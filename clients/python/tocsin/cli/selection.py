"""Which events a receiver is told about: presets and selectors, as flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tocsin import receivers
from tocsin.cli import criteria
from tocsin.cli.flags import flag
from tocsin.cli.misuse import Misuse
from tocsin.cli.session import Session
from tocsin.v1.notifications_pb2 import Selector

_FIELDS = tuple(Selector.DESCRIPTOR.fields_by_name)


def _presets() -> list[str]:
    return ["checks", "user-errors", "user-infos", "user", "system-errors", "system-infos", "system", "all"]


@dataclass(frozen=True)
class Selection:
    """Which events; one match is enough."""

    preset: Annotated[
        list[str] | None,
        flag(
            "--preset",
            "TOCSIN_PRESET",
            'a quick selection by its ID (see "tocsin endpoint presets"), may be given again',
            "ID",
            autocompletion=_presets,
        ),
    ] = None
    selector: Annotated[
        list[str] | None,
        flag(
            "--selector",
            "TOCSIN_SELECTOR",
            'a selection of one\'s own, may be given again: "type=user.*,level=error", also resource_type, subtype, '
            "service, scope; where=CONDITION is the last one",
            "FIELD=VALUE,...",
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Whether anything is chosen."""
        return bool(self.preset or self.selector)

    def selectors(self, session: Session) -> list[Selector]:
        """Answer the selectors; presets are those of the server. Raises Misuse."""
        own = [selector_of(text) for text in self.selector or ()]
        if not self.preset:
            return own
        known = {preset.id: preset.selector for preset in session.client.list_selector_presets()}
        for name in self.preset:
            if name not in known:
                raise Misuse("--preset", f"{name!r} is none of {', '.join(known)}")
        return [*(known[name] for name in self.preset), *own]


def selector_of(text: str) -> Selector:
    """Read FIELD=VALUE,...; a `where` takes all that follows it. Pure. Raises Misuse."""
    before, sign, where = f",{text}".partition(",where=")
    fields = criteria.pairs("--selector", filter(None, before.split(",")))
    if sign:
        fields["where"] = where
    for name in fields:
        if name not in _FIELDS:
            raise Misuse("--selector", f"{name!r} is none of {', '.join(_FIELDS)}")
    if "resource_type" in fields:
        fields["resource_type"] = criteria.resource_type(fields["resource_type"])
    if not fields:
        raise Misuse("--selector", "is empty: give for example type=user.*,level=error")
    return receivers.selector(**fields)


def selector_text(selector: Selector) -> str:
    """Answer a selector as `--selector` takes it, without what chooses everything. Pure."""
    found = {name: getattr(selector, name) for name in _FIELDS}
    said = [f"{name}={value}" for name, value in found.items() if value not in ("", "*", "account")]
    return ",".join(said) or "type=*"
