"""The entries that the server ships with."""

from __future__ import annotations

import pytest
from tocsin_server.domain.built_in_types import BUILT_IN
from tocsin_server.domain.event_types import Catalogue, EventType, PayloadCheck, violations
from tocsin_server.domain.transitions import EVENT_TYPE_PREFIX, RESOURCE_TYPE, TransitionKind
from tocsin_server.endpoints.payloads import TEST_TYPE


@pytest.mark.parametrize("entry", BUILT_IN, ids=lambda entry: f"{entry.type} {entry.subtype}")
def test_a_built_in_entry_is_complete_and_its_example_meets_its_schema(entry: EventType) -> None:
    assert entry.description
    assert entry.check == PayloadCheck.OFF
    assert (entry.schema is None) == (entry.example is None)
    assert violations(entry, "entry") == []


def test_every_type_that_tocsin_writes_is_in_the_catalogue() -> None:
    """B01: what the server itself records is described too."""
    there = {entry.type: entry for entry in BUILT_IN}
    for kind in TransitionKind:
        assert there[EVENT_TYPE_PREFIX + kind.value].resource_type == RESOURCE_TYPE
    assert TEST_TYPE in there


def test_an_account_without_checks_has_nothing_to_look_up() -> None:
    catalogue = Catalogue(BUILT_IN, {"acme": [EventType("a", check=PayloadCheck.OFF, schema={})]})
    assert catalogue._checks == {}
    catalogue.put("acme", [EventType("a", check=PayloadCheck.WARN, schema={})])
    assert list(catalogue._checks) == ["acme"]
    catalogue.drop("acme", [("a", "")])
    assert catalogue._checks == {}
