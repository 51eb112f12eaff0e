"""Requests about deliveries, made from plain Python: which ones, and what to do with them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

from tocsin import arguments
from tocsin.v1.notifications_pb2 import (
    DeliveryState,
    ErrorClass,
    ListDeliveriesRequest,
    RecoverDeliveriesRequest,
    WatchDeliveriesRequest,
)

ENDED = ("delivered", "exhausted", "cancelled", "silenced")
"""The states in which a delivery stays, unless somebody has it tried again."""


class DeliveryCriteria(TypedDict, total=False):
    """Which deliveries: each criterion that is given has to be met, by one of its values.

    `states` and `error_classes` are words ("retrying", "connection_refused") and those of the newest attempt,
    `status_codes` exact ("503") or a class ("5xx").
    """

    configuration_id: str
    event_id: str
    alert_id: str
    error_classes: Iterable[str]
    status_codes: Iterable[str]


def deliveries_request(
    states: Iterable[str] = (),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    page_size: int = 0,
    **criteria: object,
) -> ListDeliveriesRequest:
    """Ask for deliveries, routed in [since, until). Raises TypeError or ValueError for what means nothing."""
    request = ListDeliveriesRequest(page_size=page_size)
    _choose(request, states, criteria)
    if since is not None:
        request.since.CopyFrom(arguments.moment("since", since))
    if until is not None:
        request.until.CopyFrom(arguments.moment("until", until))
    return request


def watch_request(states: Iterable[str] = (), **criteria: object) -> WatchDeliveriesRequest:
    """Ask to be told of deliveries. Raises TypeError or ValueError for what means nothing."""
    request = WatchDeliveriesRequest()
    _choose(request, states, criteria)
    return request


def _choose(
    request: ListDeliveriesRequest | WatchDeliveriesRequest, states: Iterable[str], criteria: dict[str, object]
) -> None:
    if unknown := criteria.keys() - DeliveryCriteria.__annotations__.keys():
        raise TypeError(f"deliveries are not chosen by {', '.join(sorted(unknown))}")
    for state in arguments.strings("states", states):
        request.states.append(arguments.member("each of states", DeliveryState, state))
    for name in arguments.strings("error_classes", criteria.get("error_classes") or ()):
        request.error_classes.append(arguments.member("each of error_classes", ErrorClass, name))
    request.status_codes.extend(arguments.strings("status_codes", criteria.get("status_codes") or ()))
    for field in ("configuration_id", "event_id", "alert_id"):
        setattr(request, field, arguments.text(field, criteria.get(field) or ""))


def recover_request(
    configuration_id: str, since: datetime | None = None, until: datetime | None = None
) -> RecoverDeliveriesRequest:
    """Ask to have what was given up or cancelled begin anew."""
    request = RecoverDeliveriesRequest(configuration_id=configuration_id)
    if since is not None:
        request.since.CopyFrom(arguments.moment("since", since))
    if until is not None:
        request.until.CopyFrom(arguments.moment("until", until))
    return request
