"""Whether an alert can be saved: its parameters, groups, durations and templates against its type.

Params are checked again before each run, because a type may have changed since.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from tocsin_server.domain.alerting import Action, Alert, AlertSpec, AlertType, Params, RunErrorReason
from tocsin_server.domain.errors import Reason, TocsinError, Violation, invalid_field, invalid_fields
from tocsin_server.domain.instances import RunFailure
from tocsin_server.domain.schedule import DurationError, duration_us
from tocsin_server.domain.templates import TemplateError, parse, strings

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

TEMPLATES_QUICK_MAX = 16 * 1024  # characters
_DESCRIPTION_MAX = 300  # characters of a violation: it may quote what was sent


# What is checked against things that change without the alert: its type, the templates' limits, its endpoints.
DEPENDENT = ("params", "actions")


def checked(
    spec: AlertSpec, alert_type: AlertType, path: str = "alert", changed: Collection[str] = DEPENDENT
) -> AlertSpec:
    """Check an alert against its type and fill in what it leaves open; TocsinError names each fault.

    Of `params` and `actions`, those that are not among the `changed` fields were checked when they
    were saved, and stay as they are.
    """
    if not spec.name:
        raise invalid_field(f"{path}.name", "is required")
    if "params" in changed:
        spec = replace(spec, params=with_defaults(alert_type.params_schema, spec.params))
    spec = replace(spec, interval=spec.interval or alert_type.default_interval)
    violations = [
        *_duration_violations(spec.interval, f"{path}.schedule.interval"),
        *(_duration_violations(spec.throttle, f"{path}.throttle") if spec.throttle else ()),
        *(_new_params_violations(alert_type, spec.params, f"{path}.params") if "params" in changed else ()),
        *(_group_violations(spec.actions, alert_type, f"{path}.actions") if "actions" in changed else ()),
    ]
    if violations:
        raise invalid_fields(violations)
    if "actions" not in changed:
        return spec
    _check_templates(spec.actions, f"{path}.actions")
    return replace(
        spec, actions=tuple(replace(a, group=a.group or alert_type.default_action_group_id) for a in spec.actions)
    )


def with_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """Copy a value with the defaults that a JSON Schema gives to missing properties."""
    if not isinstance(value, Mapping):
        return value
    completed = dict(value)
    for name, below in schema.get("properties", {}).items():
        if name not in completed and "default" in below:
            completed[name] = below["default"]
        if name in completed:
            completed[name] = with_defaults(below, completed[name])
    return completed


def fitting(alert: Alert, alert_type: AlertType) -> Alert:
    """Give an alert as its type now wants it: a type that has grown fills in what it did not ask for before.

    RunFailure when its params do not fit.
    """
    params = with_defaults(alert_type.params_schema, alert.spec.params)
    wrong = params_violations(alert_type, params, "params")
    if wrong:
        message = "; ".join(f"{v.path}: {v.description}" for v in wrong[:3])
        raise RunFailure(RunErrorReason.PARAMS, message)
    return alert if params == alert.spec.params else replace(alert, spec=replace(alert.spec, params=params))


def params_violations(alert_type: AlertType, params: Params, path: str) -> list[Violation]:
    """Tell what is wrong with the params of an alert: when it is saved, and before each run."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - a tenth of the time that a server needs to start

    errors = sorted(
        Draft202012Validator(alert_type.params_schema).iter_errors(params), key=lambda error: error.json_path
    )
    if errors:
        return [violation for error in errors for violation in _schema_violations(error, path)]
    return [Violation(f"{path}.{v.path}", v.description) for v in alert_type.check(params)]


def _new_params_violations(alert_type: AlertType, params: Params, path: str) -> list[Violation]:
    """Tell also what makes no sense and yet runs: an alert that has it already goes on."""
    found = params_violations(alert_type, params, path)
    return found or [Violation(f"{path}.{v.path}", v.description) for v in alert_type.check_new(params)]


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what is no JSON Schema, by the library's SchemaError: a fault of the author of a type."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - a tenth of the time that a server needs to start

    Draft202012Validator.check_schema(schema)


def _schema_violations(error: ValidationError, path: str) -> list[Violation]:
    """Name what does not fit: of properties that a schema does not know, each by its own path."""
    if error.validator == "anyOf":
        return _choice_violations(error, path)
    path += _place(error)
    if error.validator == "additionalProperties" and error.validator_value is False:
        schema, given = cast("Mapping[str, Any]", error.schema), cast("Mapping[str, Any]", error.instance)
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        unknown = (name for name in given if name not in known and not any(re.search(p, name) for p in patterns))
        return [Violation(f"{path}.{name}"[:_DESCRIPTION_MAX], "is unknown") for name in sorted(unknown)]
    return [Violation(path, error.message[:_DESCRIPTION_MAX])]


def _choice_violations(error: ValidationError, path: str) -> list[Violation]:
    """Say of a value that may be one of several kinds what is wrong with it as that kind which it is."""
    kinds: dict[object, list[ValidationError]] = {}
    for below in error.context or ():
        kinds.setdefault(below.relative_schema_path[0], []).append(below)
    for errors in kinds.values():
        if not any(below.validator == "type" and not below.relative_path for below in errors):
            return [violation for below in errors for violation in _schema_violations(below, path)]
    types = [str(below["type"]) for below in cast("Sequence[Mapping[str, Any]]", error.validator_value)]
    text = f"{error.instance!r} is of none of the types {', '.join(types)}"
    return [Violation(path + _place(error), text[:_DESCRIPTION_MAX])]


def _place(error: ValidationError) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)


def _duration_violations(text: str, path: str) -> list[Violation]:
    try:
        duration_us(text)
    except DurationError as error:
        return [Violation(path, str(error))]
    return []


def _group_violations(actions: Sequence[Action], alert_type: AlertType, path: str) -> list[Violation]:
    unknown = [(i, a.group) for i, a in enumerate(actions) if a.group and alert_type.group_name(a.group) is None]
    names = ", ".join(dict.fromkeys(group for _, group in unknown))
    return [Violation(f"{path}[{i}].group", f"Invalid action groups: {names}") for i, _ in unknown]


def is_long(actions: Sequence[Action]) -> bool:
    """Tell whether the templates of actions take more than some ten milliseconds to read."""
    return sum(len(source) for action in actions for _, source in strings(action.params, "")) > TEMPLATES_QUICK_MAX


def _check_templates(actions: Sequence[Action], path: str) -> None:
    violations = [
        violation
        for index, action in enumerate(actions)
        for where, source in strings(action.params, f"{path}[{index}].params")
        for violation in _template_violations(source, where)
    ]
    if violations:
        first = violations[0]
        message = f"{first.path}: {first.description}"
        raise TocsinError(Reason.INVALID_TEMPLATE, message, violations=violations)


def _template_violations(source: str, path: str) -> list[Violation]:
    try:
        parse(source)
    except TemplateError as error:
        return [Violation(path, str(error))]
    return []
