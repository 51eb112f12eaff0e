"""The service Alerting on the wire: requests to checked alerts, alerts to answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from tocsin.v1 import alerting_pb2 as pb

from tocsin_server.api.alert_drafts import AlertDrafts
from tocsin_server.api.alert_messages import alert_message, failed_message, spec_of, state_message, type_message
from tocsin_server.api.auth import Caller
from tocsin_server.api.languages import accepted
from tocsin_server.api.paging import PageTokens, fitting, page_size
from tocsin_server.api.server import Service
from tocsin_server.domain.alerting import Alert, AlertSearch, AlertSpec
from tocsin_server.domain.errors import Reason, TocsinError, invalid_field
from tocsin_server.domain.ports import AlertStore
from tocsin_server.domain.translations import named
from tocsin_server.domain.where import WhereError

# What UpdateAlert can change, by the name in the mask: the fields of AlertSpec.
UPDATABLE = {
    "schedule": "interval",
    "throttle": "throttle",
    "notify_when": "notify_when",
    "name": "name",
    "tags": "tags",
    "params": "params",
    "actions": "actions",
}
MASK_ALIASES = {"schedule.interval": "schedule"}
ALWAYS_SHOWN = ("id", "alert_type_id", "consumer")  # whatever fields FindAlerts is asked for
UPDATE_TRIES = 3  # another change came between reading and writing; more often it is the caller's to decide


class AlertingService(Service):
    """Alert types, alerts and their state. Runs are not its business: `dispatch` has the clock."""

    descriptor = pb.DESCRIPTOR.services_by_name["Alerting"]

    def __init__(
        self,
        alerts: AlertStore,
        drafts: AlertDrafts,
        tokens: PageTokens,
        digest_key: bytes,
    ) -> None:
        self._alerts = alerts
        self._drafts = drafts
        self._types = drafts.types
        self._tokens = tokens
        self._digest_key = digest_key

    async def list_alert_types(self, request: pb.ListAlertTypesRequest, caller: Caller) -> pb.ListAlertTypesResponse:
        """Answer every registered type; to who may see what is installed, also what cannot be used."""
        languages = accepted(caller.accept_language)
        return pb.ListAlertTypesResponse(
            alert_types=(type_message(named(alert_type, languages)) for alert_type in self._types),
            failed=map(failed_message, self._types.failed if caller.is_admin else ()),
        )

    async def create_alert(self, request: pb.CreateAlertRequest, caller: Caller) -> pb.CreateAlertResponse:
        """Store a checked alert; its first run is at once."""
        as_sent = request.SerializeToString(deterministic=True)
        digest = hashlib.blake2b(as_sent, key=self._digest_key, digest_size=16).digest()
        alert = await self._drafts.draft(request.alert, caller)
        created = await self._alerts.create(alert, request.request_id, digest)
        return pb.CreateAlertResponse(alert=alert_message(created))

    async def get_alert(self, request: pb.GetAlertRequest, caller: Caller) -> pb.GetAlertResponse:
        """Answer one alert."""
        return pb.GetAlertResponse(alert=alert_message(await self._alerts.get(caller.account, request.id)))

    async def find_alerts(self, request: pb.FindAlertsRequest, caller: Caller) -> pb.FindAlertsResponse:
        """Answer a page of the account's alerts."""
        search = AlertSearch(
            account=caller.account,
            words=tuple(request.search.split()),
            fields=tuple(dict.fromkeys(request.search_fields)) or ("name", "tags"),
            every_word=request.default_search_operator == pb.SEARCH_OPERATOR_AND,
            sort_field=request.sort_field or "name",
            descending=request.sort_order == pb.SORT_ORDER_DESC,
            configuration_id=request.has_reference.id,
            meets=_filter(request.filter),
        )
        left_out = _left_out(request.fields)
        after = None
        if request.page_token:
            key, alert_id = self._tokens.read(caller.account, request, request.page_token)
            after = (key, str(alert_id))
        page = await self._alerts.find(search, after, page_size(request.page_size))
        alerts = fitting(_only(alert_message(one.alert), left_out) for one in page.found)
        token = ""
        if alerts and (page.more or len(alerts) < len(page.found)):
            token = self._tokens.make(caller.account, request, page.found[len(alerts) - 1].place)
        return pb.FindAlertsResponse(alerts=alerts, next_page_token=token, total_size=page.total)

    async def update_alert(self, request: pb.UpdateAlertRequest, caller: Caller) -> pb.UpdateAlertResponse:
        """Change the fields of the mask; a changed schedule runs at once."""
        if not request.alert.id:
            raise invalid_field("alert.id", "is required")
        names = _masked(request.update_mask)
        for left in range(UPDATE_TRIES - 1, -1, -1):
            alert = await self._alerts.get(caller.account, request.alert.id)
            spec = await self._drafts.checked(caller, _merged(alert.spec, spec_of(request.alert), names), names)
            changed = replace(alert, spec=spec, updated_by=caller.user)
            try:
                updated = await self._alerts.update(changed, run_now=spec.interval != alert.spec.interval)
            except TocsinError as error:
                if error.reason is not Reason.CONFLICT or not left:
                    raise
            else:
                break
        return pb.UpdateAlertResponse(alert=alert_message(updated))

    async def delete_alert(self, request: pb.DeleteAlertRequest, caller: Caller) -> pb.DeleteAlertResponse:
        """Delete an alert with its instances."""
        await self._alerts.delete(caller.account, request.id)
        return pb.DeleteAlertResponse(id=request.id)

    async def enable_alert(self, request: pb.EnableAlertRequest, caller: Caller) -> pb.EnableAlertResponse:
        """Let an alert run."""
        alert = await self._alerts.get(caller.account, request.id)
        if not alert.enabled:
            self._types.usable(alert.spec.alert_type_id)
        enabled = await self._alerts.enable(caller.account, request.id, caller.user)
        return pb.EnableAlertResponse(alert=alert_message(enabled))

    async def disable_alert(self, request: pb.DisableAlertRequest, caller: Caller) -> pb.DisableAlertResponse:
        """Stop an alert."""
        disabled = await self._alerts.disable(caller.account, request.id, caller.user)
        return pb.DisableAlertResponse(alert=alert_message(disabled))

    async def get_alert_state(self, request: pb.GetAlertStateRequest, caller: Caller) -> pb.GetAlertStateResponse:
        """Answer the state of an alert and of its active instances."""
        return state_message(await self._alerts.state(caller.account, request.id))


def _filter(text: str) -> Callable[[Alert], bool] | None:
    if not text:
        return None
    try:
        from tocsin_server.domain.alert_filter import compiled  # noqa: PLC0415 - CEL takes long to load

        return compiled(text).matches
    except WhereError as error:
        raise invalid_field("filter", str(error)) from None


def _left_out(fields: Sequence[str]) -> frozenset[str]:
    """Give the fields that are left out of each alert."""
    known = pb.Alert.DESCRIPTOR.fields_by_name
    for index, name in enumerate(fields):
        if name not in known:
            raise invalid_field(f"fields[{index}]", f"{name!r} is no field of an alert: it has {', '.join(known)}")
    return frozenset(known) - {*fields, *ALWAYS_SHOWN} if fields else frozenset()


def _only(alert: pb.Alert, left_out: Collection[str]) -> pb.Alert:
    for name in left_out:
        alert.ClearField(name)  # type: ignore[arg-type]
    return alert


def _masked(mask: FieldMask) -> list[str]:
    """Give the fields of AlertSpec that a mask names; an empty one names all that can change."""
    names = [MASK_ALIASES.get(path, path) for path in mask.paths] or list(UPDATABLE)
    unknown = [path for path in names if path not in UPDATABLE]
    if unknown:
        allowed = ", ".join(UPDATABLE)
        raise invalid_field("update_mask", f"{unknown[0]!r} cannot be changed: name {allowed}")
    return [UPDATABLE[name] for name in names]


def _merged(old: AlertSpec, sent: AlertSpec, names: Sequence[str]) -> AlertSpec:
    changes: dict[str, Any] = {name: getattr(sent, name) for name in names}
    return replace(old, **changes)
