"""Alerts as clients send them, checked against their type and against the configurations of their actions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from tocsin.v1 import alerting_pb2 as pb

from tocsin_server.api.alert_messages import spec_of
from tocsin_server.api.auth import Caller
from tocsin_server.domain.alert_checks import DEPENDENT, checked, is_long
from tocsin_server.domain.alerting import Action, Alert, AlertSpec, AlertTypes
from tocsin_server.domain.errors import Violation, invalid_field, invalid_fields
from tocsin_server.domain.ports import AlertStore, EndpointKind

REQUIRED = ("name", "alert_type_id", "consumer")  # of a new alert; an update names what it changes


class AlertDrafts:
    """Makes alerts of messages."""

    def __init__(self, alerts: AlertStore, types: AlertTypes, kinds: Mapping[str, EndpointKind]) -> None:
        self._alerts = alerts
        self._kinds = kinds
        self.types = types

    async def draft(self, sent: pb.Alert, caller: Caller) -> Alert:
        """Make a new alert, not stored yet; INVALID_FIELD or INVALID_TEMPLATE name each fault."""
        if sent.id:
            raise invalid_field("alert.id", "is made by the server: leave it empty")
        missing = [name for name in REQUIRED if not getattr(sent, name)]
        if missing:
            raise invalid_fields([Violation(f"alert.{name}", "is required") for name in missing])
        self.types.usable(sent.alert_type_id)
        return Alert(
            account=caller.account,
            id="",
            version=0,
            enabled=sent.enabled if sent.HasField("enabled") else True,
            spec=await self.checked(caller, spec_of(sent)),
            created_by=caller.user,
            updated_by=caller.user,
            created_at=0,
            updated_at=0,
        )

    async def checked(self, caller: Caller, spec: AlertSpec, changed: Collection[str] = DEPENDENT) -> AlertSpec:
        """Check an alert against its type, and its actions against the configurations they go to.

        Actions that are not changed are let be: a configuration that was deleted is no reason to refuse
        another name. A type that is off is as good for this as one that is on.
        """
        alert_type = self.types.registered(spec.alert_type_id)
        if is_long(spec.actions):
            # Reading a megabyte of templates takes most of a second: others are answered meanwhile.
            complete = await asyncio.to_thread(checked, spec, alert_type, changed=changed)
        else:
            complete = checked(spec, alert_type, changed=changed)
        if "actions" not in changed:
            return complete
        kinds = await self._alerts.kinds(caller.account, [a.configuration_id for a in complete.actions])
        violations = [
            violation
            for index, action in enumerate(complete.actions)
            for violation in self._action_violations(action, kinds, f"alert.actions[{index}]")
        ]
        if violations:
            raise invalid_fields(violations)
        return complete

    def _action_violations(self, action: Action, kinds: Mapping[str, str], path: str) -> list[Violation]:
        name = kinds.get(action.configuration_id)
        if name is None:
            missing = f"endpoint configuration {action.configuration_id!r} does not exist"
            return [Violation(f"{path}.id", missing)]
        kind = self._kinds[name]
        unknown = [key for key in action.params if key not in kind.action_params]
        if unknown:
            allowed = f"is none of {', '.join(kind.action_params)}, which {name} takes"
            return [Violation(f"{path}.params.{key}", allowed) for key in unknown]
        return [Violation(f"{path}.params.{v.path}", v.description) for v in kind.check_action(action.params)]
