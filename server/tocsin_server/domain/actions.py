"""What the actions of an alert say: one message for each action of the group that an instance is in.

The templates were read when the alert was saved; here they are rendered. Nothing here sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tocsin_server.domain.alerting import Action, Alert, AlertType
from tocsin_server.domain.instances import Instance
from tocsin_server.domain.message_templates import is_json
from tocsin_server.domain.templates import Escape, RenderError, TemplateError, render_params
from tocsin_server.domain.variables import Json, Variables, time_text


@dataclass(frozen=True, slots=True)
class Notification:
    """One message of one action about one instance; `error` says why it could not be rendered.

    `silence_id` names the silence that withholds it.
    """

    instance_id: str
    group: str
    action_index: int
    configuration_id: str
    params: Json
    error: str = ""
    silence_id: str = ""


def messages(
    alert: Alert, alert_type: AlertType, instance: Instance, scheduled_at: int, link: str = ""
) -> Iterator[Notification]:
    """Render the messages about one instance in its group."""
    actions = [(i, a) for i, a in enumerate(alert.spec.actions) if a.group == instance.group]
    if not actions:
        return
    variables = _variables(alert, alert_type, instance, scheduled_at, link)
    for index, action in actions:
        params: Json = None
        error = ""
        try:
            params = _rendered(action, variables)
        except (RenderError, TemplateError) as fault:  # the limits may have become tighter since it was saved
            error = str(fault)
        yield Notification(instance.id, instance.group, index, action.configuration_id, params, error)


def _rendered(action: Action, variables: Variables) -> Json:
    params = render_params(action.params, variables, Escape(action.escape or Escape.HTML))
    body = params.get("body") if isinstance(params, dict) else None
    if action.escape == Escape.JSON and isinstance(body, str) and not is_json(body.encode()):
        raise RenderError("body: is not JSON when rendered; with another escape it may be any text")
    return params


def _variables(alert: Alert, alert_type: AlertType, instance: Instance, scheduled_at: int, link: str) -> Variables:
    return Variables(
        {
            "context": instance.context,
            "state": instance.state,
            "params": alert.spec.params,
            "alertId": alert.id,
            "alertInstanceId": instance.id,
            "alertName": alert.spec.name,
            "alertUrl": link,
            "spaceId": alert.account,
            "tags": list(alert.spec.tags),
            "date": time_text(scheduled_at),
            "alertActionGroup": instance.group,
            "alertActionGroupName": alert_type.group_name(instance.group) or instance.group,
            "alertActionSubgroup": instance.subgroup,
            "alertInstanceStartedAt": time_text(instance.started_at),
            "alertInstanceDurationSeconds": instance.duration_s(scheduled_at),
        }
    )
