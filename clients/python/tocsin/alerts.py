"""Requests of the alerting service, made from plain Python: alerts and their actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypedDict

from tocsin import arguments
from tocsin.v1.alerting_pb2 import (
    SEARCH_OPERATOR_AND,
    SORT_ORDER_DESC,
    Action,
    Alert,
    AlertStatus,
    FindAlertsRequest,
    GetAlertInstanceSummaryRequest,
    ListExecutionsRequest,
    NotifyWhen,
    PreviewAlertRequest,
    Reference,
    Schedule,
    UpdateAlertRequest,
)

RECOVERED = "recovered"
"""The group of an instance that is not active any more, unless its type names another."""


def action(configuration_id: str, group: str = "", **params: object) -> Action:
    """Say what to do when an instance is in a group (empty: the type's default group).

    Params belong to the kind of the configuration: email subject, body, to; webhook body. Every
    string is a mustache template.
    """
    return Action(id=configuration_id, group=group, params=arguments.struct("params", params))


def alert(
    name: str,
    alert_type_id: str,
    params: Mapping[str, object],
    *,
    actions: Iterable[Action] = (),
    interval: str = "",
    throttle: str = "",
    notify_when: str = "unspecified",
    tags: Iterable[str] = (),
    consumer: str = "tocsin",
    enabled: bool | None = None,
) -> Alert:
    """Describe an alert. `interval` and `throttle` are like "10s", "5m"; empty interval: the type's.

    `notify_when` is "on_active_alert", "on_throttle_interval" or "on_action_group_change".
    """
    return Alert(
        name=name,
        alert_type_id=alert_type_id,
        consumer=consumer,
        params=arguments.struct("params", params),
        actions=actions,
        schedule=Schedule(interval=interval) if interval else None,
        throttle=throttle,
        notify_when=arguments.member("notify_when", NotifyWhen, notify_when),
        tags=arguments.strings("tags", tags),
        enabled=enabled,
    )


def to_status(status: str) -> AlertStatus.ValueType:
    """Read a status: "pending", "ok", "active" or "error". Raises ValueError for others."""
    return arguments.member("status", AlertStatus, status)


class AlertCriteria(TypedDict, total=False):
    """Which alerts, and how they are answered: each criterion that is given has to be met.

    `search` is words, looked for in `search_fields` ("name" and "tags" unless it says otherwise); one is enough, or
    `all_words`. `configuration_id` finds alerts whose actions go there. `filter` is a CEL expression over `alert`.
    `fields` says which fields of each are answered.
    """

    search: str
    search_fields: Iterable[str]
    all_words: bool
    configuration_id: str
    filter: str
    fields: Iterable[str]


def find_request(
    *, sort_by: str = "", descending: bool = False, page_size: int = 0, **criteria: object
) -> FindAlertsRequest:
    """Ask for alerts. Raises TypeError or ValueError for what means nothing."""
    if unknown := criteria.keys() - AlertCriteria.__annotations__.keys():
        raise TypeError(f"alerts are not found by {', '.join(sorted(unknown))}")
    request = FindAlertsRequest(sort_field=sort_by, page_size=page_size)
    for name in ("search", "filter"):
        setattr(request, name, arguments.text(name, criteria.get(name) or ""))
    request.search_fields.extend(arguments.strings("search_fields", criteria.get("search_fields") or ()))
    request.fields.extend(arguments.strings("fields", criteria.get("fields") or ()))
    if criteria.get("all_words"):
        request.default_search_operator = SEARCH_OPERATOR_AND
    if descending:
        request.sort_order = SORT_ORDER_DESC
    if goes_to := arguments.text("configuration_id", criteria.get("configuration_id") or ""):
        request.has_reference.CopyFrom(Reference(type="endpoint_configuration", id=goes_to))
    return request


def update_request(alert: Alert, fields: Iterable[str]) -> UpdateAlertRequest:
    """Ask to change some fields of an alert, or all that can change where none is named."""
    request = UpdateAlertRequest(alert=alert)
    if paths := arguments.strings("fields", fields):
        request.update_mask.paths.extend(paths)
    return request


def executions_request(
    id: str,
    statuses: Iterable[str] = (),
    *,
    since: datetime | None = None,
    before: datetime | None = None,
    page_size: int = 0,
) -> ListExecutionsRequest:
    """Ask for executions that began in [since, before). Raises TypeError or ValueError."""
    request = ListExecutionsRequest(id=id, page_size=page_size)
    for status in arguments.strings("statuses", statuses):
        request.statuses.append(arguments.member("each of statuses", AlertStatus, status))
    if since is not None:
        request.since.CopyFrom(arguments.moment("since", since))
    if before is not None:
        request.before.CopyFrom(arguments.moment("before", before))
    return request


def summary_request(id: str, since: datetime | timedelta | None) -> GetAlertInstanceSummaryRequest:
    """Ask how an alert did since a time, or for so long. Raises TypeError or ValueError."""
    if since is None:
        return GetAlertInstanceSummaryRequest(id=id)
    if isinstance(since, timedelta):
        return GetAlertInstanceSummaryRequest(id=id, date_start=f"{round(since.total_seconds())}s")
    return GetAlertInstanceSummaryRequest(id=id, date_start=arguments.moment("since", since).ToJsonString())


def preview_request(
    subject: str | Alert, start: datetime | None, end: datetime | None, every_run: bool
) -> PreviewAlertRequest:
    """Ask what an alert, stored (by its id) or not, would have done in [start, end). Raises TypeError, ValueError."""
    request = PreviewAlertRequest(every_run=every_run)
    if isinstance(subject, Alert):
        request.alert.CopyFrom(subject)
    else:
        request.id = arguments.text("subject", subject)
    if start is not None:
        request.start_time.CopyFrom(arguments.moment("start", start))
    if end is not None:
        request.end_time.CopyFrom(arguments.moment("end", end))
    return request
