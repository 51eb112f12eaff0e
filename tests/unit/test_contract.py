"""The protos, the domain and the API say the same."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from tocsin.v1 import annotations_pb2, notifications_pb2
from tocsin_server.api.errors import STATUS
from tocsin_server.api.redaction import secret_fields
from tocsin_server.api.server import action_of
from tocsin_server.domain.errors import Reason
from tocsin_server.domain.health import HealthState
from tocsin_server.domain.notifications import State
from tocsin_server.domain.verdicts import ErrorClass, Verdict
from tocsin_server.endpoints import discover
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.http import HttpDoor

from tests.support.bounds import methods


def names(enum: Any, prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name in enum.keys()} - {"UNSPECIFIED"}  # noqa: SIM118


def test_every_reason_has_a_status_and_stands_in_the_protos() -> None:
    assert set(STATUS) == set(Reason)
    assert names(annotations_pb2.ErrorReason, "ERROR_REASON_") == {str(reason) for reason in Reason}


def test_states_and_verdicts_are_those_of_the_protos() -> None:
    assert names(notifications_pb2.DeliveryState, "DELIVERY_STATE_") == {str(state) for state in State}
    assert names(notifications_pb2.Verdict, "VERDICT_") == {str(verdict) for verdict in Verdict}
    assert names(notifications_pb2.HealthState, "HEALTH_STATE_") == {str(state) for state in HealthState}
    assert names(notifications_pb2.ErrorClass, "ERROR_CLASS_") == {str(name) for name in ErrorClass if name}


@pytest.mark.parametrize("method", methods(), ids=lambda method: str(method.full_name))
def test_every_method_states_its_action(method: MethodDescriptor) -> None:
    assert action_of(method)


@pytest.mark.parametrize("method", methods(), ids=lambda method: str(method.full_name))
def test_requests_and_responses_are_named_after_their_method(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"


@pytest.mark.parametrize(
    "method", [m for m in methods() if m.name.startswith(("List", "Find"))], ids=lambda m: str(m.name)
)
def test_lists_have_pages_or_say_why_not(method: MethodDescriptor) -> None:
    if method.name in ("ListEndpoints", "ListAlertTypes", "ListSelectorPresets"):
        return  # the kinds and the types are few; the protos say so
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    assert "next_page_token" in method.output_type.fields_by_name


def test_the_secret_fields_of_the_kinds_are_those_that_the_protos_redact() -> None:
    connections = notifications_pb2.EndpointConfiguration.DESCRIPTOR.oneofs_by_name["connection"].fields
    redacted = {f.name: secret_fields(f.message_type) for f in connections if f.message_type is not None}
    kinds = discover(HttpDoor(Egress([])))
    assert {name: kind.secret_fields for name, kind in kinds.items()} == redacted
