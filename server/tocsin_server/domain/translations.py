"""The names of alert types in the language of whoever asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tocsin_server.domain.alerting import ActionGroup, ActionVariable, ActionVariables, AlertType, Names


def named(alert_type: AlertType, languages: Iterable[str]) -> AlertType:
    """Give a type with its names in the first language that it has; "de-AT" is looked for as "de" too."""
    known = {language.lower(): names for language, names in alert_type.translations.items()}
    for wanted in languages if known else ():
        parts = wanted.lower().split("-")
        for length in range(len(parts), 0, -1):
            found = known.get("-".join(parts[:length]))
            if found is not None:
                return _translated(alert_type, found)
    return alert_type


def _translated(alert_type: AlertType, names: Names) -> AlertType:
    def group(one: ActionGroup) -> ActionGroup:
        return ActionGroup(one.id, names.action_groups.get(one.id, one.name))

    def variables(root: str, declared: Iterable[ActionVariable]) -> tuple[ActionVariable, ...]:
        return tuple(ActionVariable(v.name, names.variables.get(f"{root}.{v.name}", v.description)) for v in declared)

    declared = alert_type.action_variables
    return replace(
        alert_type,
        name=names.name or alert_type.name,
        action_groups=tuple(map(group, alert_type.action_groups)),
        recovery_action_group=group(alert_type.recovery_action_group),
        action_variables=ActionVariables(
            context=variables("context", declared.context),
            state=variables("state", declared.state),
            params=variables("params", declared.params),
        ),
    )
