"""Selectors: which values they take, and which events they choose."""

from __future__ import annotations

from typing import Any

import pytest
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb

from tests.service.test_explanations import explained
from tests.service.test_notifications import created, webhook
from tests.support.servers import Api, refused

NOWHERE = "http://127.0.0.1:9/"
OTHER = (("x-tocsin-account", "acme"),)
KINDS_OF_RESOURCES = (
    "*", "image_digest", "image_tag", "image_reference", "repository", "feeds", "feed", "feed_group",
)  # fmt: skip


def selector(**criteria: str) -> pb.Selector:
    return pb.Selector(**({"scope": "account", "level": "*", "type": "*", "resource_type": "*"} | criteria))


async def chosen(api: Api, event: log_pb.Event, **criteria: str) -> bool:
    """Tell whether a selector chooses an event."""
    await created(api, webhook(NOWHERE, selector(**criteria), name=f"{event.type} {criteria}"))
    answers = (await explained(api, event=event)).explanations
    (verdict,) = next(answer for answer in answers if answer.name == f"{event.type} {criteria}").selectors
    return verdict.matched


@pytest.mark.parametrize("missing", ["scope", "level", "type", "resource_type"])
async def test_all_four_criteria_are_needed(api: Api, missing: str) -> None:
    """A37, A38: scope, level, type and resource type."""
    refusal = await refused(created(api, webhook(NOWHERE, selector(**{missing: ""}))))
    assert f"configuration.selectors[0].{missing}" in refusal.fields


@pytest.mark.parametrize(
    ("criterion", "good", "bad"),
    [
        ("scope", ["account", "global"], ["*", "accounts", "ACCOUNT"]),
        ("level", ["info", "error", "*"], ["INFO", "warn", "in*"]),
        ("type", ["*", "user.*", "user.checks.policy_eval", "*.b*c"], ["User.*", "a b", "a?", "*" * 9]),
    ],
)
async def test_some_criteria_are_closed_and_others_take_wildcards(
    api: Api, criterion: str, good: list[str], bad: list[str]
) -> None:
    """A39, A40, A43."""
    for value in good:
        await created(api, webhook(NOWHERE, selector(**{criterion: value})))
    for value in bad:
        refusal = await refused(created(api, webhook(NOWHERE, selector(**{criterion: value}))))
        assert f"configuration.selectors[0].{criterion}" in refusal.fields, value


async def test_scope_account_chooses_events_of_the_account(api: Api) -> None:
    """A41: an event belongs to the account that caused it."""
    await created(api, webhook(NOWHERE, selector()))
    theirs = await api.append("a", metadata=OTHER)
    (answer,) = (await explained(api, position=theirs.position)).explanations
    assert [(m.criterion, m.found) for m in answer.selectors[0].missed] == [("scope", "acme")]
    mine = await api.append("a")
    (answer,) = (await explained(api, position=mine.position)).explanations
    assert answer.selectors[0].matched


@pytest.mark.parametrize(("level", "info", "error"), [("info", True, False), ("error", False, True), ("*", True, True)])
async def test_a_level_chooses_events_of_that_level(api: Api, level: str, info: bool, error: bool) -> None:
    """A44, A45, A46: completions are infos, failures are errors, `*` is every event."""
    completed = log_pb.Event(type="user.image.analysis_completed", level=log_pb.LEVEL_INFO)
    failed = log_pb.Event(type="user.image.analysis_failed", level=log_pb.LEVEL_ERROR)
    assert await chosen(api, completed, level=level) is info
    assert await chosen(api, failed, level=level) is error


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*", ["a", "user.image.analysis_failed", "system.x", "feed_sync_start"], []),
        ("system.*", ["system.analysis_archive.image_archived"], ["user.a", "systems.a", "system"]),
        ("user.*", ["user.checks.policy_eval", "user.a.b.c.d"], ["system.user.a", "user"]),
        ("user.checks.policy_eval", ["user.checks.policy_eval"], ["user.checks.policy_eval2", "user.checks"]),
        ("*.image*failed", ["user.image.analysis_failed"], ["user.image.analysis_completed"]),
    ],
)
async def test_a_type_is_exact_or_a_glob(api: Api, pattern: str, matches: list[str], others: list[str]) -> None:
    """A47, A48, A49: with an asterisk any run of characters, without one an exact match."""
    for event_type in matches:
        assert await chosen(api, log_pb.Event(type=event_type), type=pattern), event_type
    for event_type in others:
        assert not await chosen(api, log_pb.Event(type=event_type), type=pattern), event_type


async def test_a_regular_expression_over_the_type(api: Api) -> None:
    """A47: by `where`."""
    condition = "event.type.matches('^user[.](image|checks)[.].*_(failed|eval)$')"
    assert await chosen(api, log_pb.Event(type="user.checks.policy_eval"), where=condition)
    assert not await chosen(api, log_pb.Event(type="user.image.analysis_completed"), where=condition)


async def test_a_resource_type_is_of_the_resource_of_the_operation(api: Api) -> None:
    """A52, A53: the listed ones, any other that is used, and `*` when unsure, which needs no resource."""
    evaluation = log_pb.Event(
        type="user.checks.policy_eval", resource=log_pb.EventResource(type="image_tag", id="nginx:latest")
    )
    for kind in KINDS_OF_RESOURCES:
        assert await chosen(api, evaluation, resource_type=kind) is (kind in ("*", "image_tag"))
    host: Any = log_pb.Event(type="a", resource=log_pb.EventResource(type="host", id="h"))
    assert await chosen(api, host, resource_type="host")
    assert await chosen(api, log_pb.Event(type="b"), resource_type="*")
    assert not await chosen(api, log_pb.Event(type="c"), resource_type="image_tag")


async def test_every_kind_has_a_switch_that_is_on(api: Api) -> None:
    """A29, A30, A33: on out of the box; other accounts can read it."""
    for metadata in ((), OTHER):
        found = (await api.notifications.ListEndpoints(pb.ListEndpointsRequest(), metadata=metadata)).endpoints
        assert {endpoint.kind for endpoint in found} >= {"webhook", "email"}
        assert all(endpoint.enabled for endpoint in found)
    off = pb.UpdateEndpointRequest(endpoint=pb.Endpoint(kind="email", enabled=False))
    refusal = await refused(api.notifications.UpdateEndpoint(off, metadata=OTHER))
    assert refusal.reason == "PERMISSION_DENIED"
    await api.notifications.UpdateEndpoint(off)
    found = (await api.notifications.ListEndpoints(pb.ListEndpointsRequest(), metadata=OTHER)).endpoints
    assert {endpoint.kind: endpoint.enabled for endpoint in found} == {"email": False, "webhook": True}
