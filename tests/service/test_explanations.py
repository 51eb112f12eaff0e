"""Quick selections, and explanations that equal what really happens."""

from __future__ import annotations

import itertools
import random

import pytest
from google.protobuf.duration_pb2 import Duration
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb

from tests.service.test_notifications import EVERYTHING, created, webhook
from tests.support.receivers import WebhookReceiver
from tests.support.servers import Api, refused

# The quick-selection table of the source: scope, level, type, resource type.
TABLE = {
    "checks": ("account", "*", "user.checks.*", "*"),
    "user-errors": ("account", "error", "user.*", "*"),
    "user-infos": ("account", "info", "user.*", "*"),
    "user": ("account", "*", "user.*", "*"),
    "system-errors": ("account", "error", "system.*", "*"),
    "system-infos": ("account", "info", "system.*", "*"),
    "system": ("account", "*", "system.*", "*"),
    "all": ("account", "*", "*", "*"),
    "all-accounts": ("global", "*", "*", "*"),
}


async def explained(api: Api, **request: object) -> pb.ExplainEventResponse:
    return await api.notifications.ExplainEvent(pb.ExplainEventRequest(**request))  # type: ignore[arg-type]


async def routed(api: Api, position: int) -> None:
    """Wait until the router has passed a position: deleting waits for it."""
    marker = await api.append("marker.of.the.test")
    await api.events.DeleteEvent(log_pb.DeleteEventRequest(id=marker.id))
    assert marker.position > position


async def test_the_quick_selections_are_those_of_the_table(api: Api, hook: WebhookReceiver) -> None:
    """A54, A55, A56, A57, A58, A59: and each can be used as it is."""
    presets = (await api.notifications.ListSelectorPresets(pb.ListSelectorPresetsRequest())).presets
    found = {p.id: (p.selector.scope, p.selector.level, p.selector.type, p.selector.resource_type) for p in presets}
    assert found == TABLE
    assert [p.id for p in presets if p.admin_only] == ["all-accounts"]
    configuration = await created(api, webhook(hook.url, *(p.selector for p in presets)))
    assert list(configuration.selectors) == [p.selector for p in presets]


async def test_each_selector_says_what_the_event_misses(api: Api, hook: WebhookReceiver) -> None:
    """A04, A36, A37: an event is judged by each selector, criterion by criterion."""
    selectors = [
        EVERYTHING,
        pb.Selector(scope="account", level="error", type="user.*", resource_type="image_tag"),
        pb.Selector(scope="account", level="*", type="a.b", resource_type="*", service="scanner", subtype="s"),
        pb.Selector(scope="account", level="*", type="*", resource_type="*", where="event.details.n > 3.0"),
    ]
    configuration = await created(api, webhook(hook.url, *selectors))
    event = log_pb.Event(type="a.c", details={"number_value": 1})  # type: ignore[arg-type]
    answer = await explained(api, event=event)
    (explanation,) = answer.explanations
    assert explanation.configuration_id == configuration.id
    assert explanation.fate == pb.EVENT_FATE_SENT
    missed = [[(m.criterion, m.wanted, m.found) for m in verdict.missed] for verdict in explanation.selectors]
    assert missed == [
        [],
        [("level", "error", "info"), ("type", "user.*", "a.c"), ("resource_type", "image_tag", "")],
        [("type", "a.b", "a.c"), ("subtype", "s", ""), ("service", "scanner", "")],
        [("where", "event.details.n > 3.0", "false, or cannot be asked about this event")],
    ]
    assert [verdict.matched for verdict in explanation.selectors] == [True, False, False, False]
    assert answer.event.level == log_pb.LEVEL_INFO
    assert not hook.posted


async def test_an_older_event_is_not_the_business_of_a_selector(api: Api, hook: WebhookReceiver) -> None:
    event = await api.append("a.b")
    await created(api, webhook(hook.url))
    (explanation,) = (await explained(api, event_id=event.id)).explanations
    assert explanation.fate == pb.EVENT_FATE_NOT_SELECTED
    assert [m.criterion for m in explanation.selectors[0].missed] == ["after_position"]
    assert explanation.changed_since


async def test_switches_are_told(api: Api, hook: WebhookReceiver) -> None:
    """A31: a switched-off endpoint sends nothing, whatever its selectors say."""
    configuration = webhook(hook.url)
    configuration.enabled = False
    off = await created(api, configuration)
    (explanation,) = (await explained(api, event=log_pb.Event(type="a"))).explanations
    assert (explanation.fate, explanation.reason) == (pb.EVENT_FATE_PAUSED, "DISABLED")
    await api.notifications.UpdateEndpoint(
        pb.UpdateEndpointRequest(endpoint=pb.Endpoint(kind="webhook", enabled=False))
    )
    (explanation,) = (await explained(api, event=log_pb.Event(type="a"), configuration_id=off.id)).explanations
    assert (explanation.fate, explanation.reason) == (pb.EVENT_FATE_PAUSED, "ENDPOINT_DISABLED")
    assert not explanation.endpoint_enabled


async def test_explanations_come_in_pages(api: Api, hook: WebhookReceiver) -> None:
    made = {(await created(api, webhook(hook.url, name=str(n)))).id for n in range(5)}
    found: list[str] = []
    token = ""
    for _ in range(5):
        answer = await explained(api, event=log_pb.Event(type="a"), page_size=2, page_token=token)
        found += [e.configuration_id for e in answer.explanations]
        if not (token := answer.next_page_token):
            break
    assert found == sorted(made)
    refusal = await refused(explained(api, event=log_pb.Event(type="b"), page_token="x"))
    assert refusal.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [({"event": log_pb.Event(type="A")}, "event.type"), ({}, "subject"), ({"position": 0}, "position")],
)
async def test_a_bad_question_is_refused(api: Api, request_fields: dict[str, object], field: str) -> None:
    assert field in (await refused(explained(api, **request_fields))).fields


async def test_only_what_was_sent_is_complained_of(api: Api) -> None:
    assert set((await refused(explained(api))).fields) == {"subject"}
    assert set((await refused(explained(api, position=0))).fields) == {"position"}


async def test_a_deleted_event_cannot_be_explained(api: Api, hook: WebhookReceiver) -> None:
    event = await api.append("a.b")
    await api.events.DeleteEvent(log_pb.DeleteEventRequest(id=event.id))
    for question in ({"event_id": event.id}, {"position": event.position}):
        assert (await refused(explained(api, **question))).reason == "NOT_FOUND"


async def test_an_explanation_equals_what_happens(api: Api, hook: WebhookReceiver) -> None:
    """A05, A36: for many events and configurations, made up before and stored after."""
    chance = random.Random(7)
    types, levels, kinds = ["user.a", "user.a.b", "system.x"], ["info", "error", "*"], ["*", "image_tag"]
    combinations = list(itertools.product(levels, [*types, "user.*", "*", "*.b"], kinds))
    for number in range(12):
        chosen = [
            pb.Selector(
                scope="account", level=level, type=type_, resource_type=kind, subtype=chance.choice(["", "s"]),
                where=chance.choice(["", "", "event.details.n > 1.0"]),
            )
            for level, type_, kind in chance.sample(combinations, 2)
        ]  # fmt: skip
        configuration = webhook(hook.url, *chosen, name=str(number))
        configuration.enabled = number % 4 != 0
        if number % 5 == 0:
            configuration.options.grouping.by.append("type")
        await created(api, configuration)
    silence = pb.Silence(filter=log_pb.EventFilter(types=["system.x"], subtypes=["s"]), comment="c")
    request = pb.CreateSilenceRequest(silence=silence, duration=Duration(seconds=600))
    silence_id = (await api.notifications.CreateSilence(request)).silence.id
    seen: set[int] = set()
    for _ in range(30):
        event = log_pb.Event(
            type=chance.choice(types), level=chance.choice([log_pb.LEVEL_INFO, log_pb.LEVEL_ERROR]),
            subtype=chance.choice(["", "s"]), resource=log_pb.EventResource(type=chance.choice(["", "image_tag"])),
        )  # fmt: skip
        event.details.struct_value.update({"n": chance.choice([1, 2])})
        before = {e.configuration_id: e.fate for e in (await explained(api, event=event)).explanations}
        stored = (await api.events.AppendEvent(log_pb.AppendEventRequest(event=event))).event
        await routed(api, stored.position)
        after = await explained(api, event_id=stored.id)
        assert {e.configuration_id: e.fate for e in after.explanations} == before
        for explanation in after.explanations:
            assert not explanation.changed_since
            happened = [d.state for d in explanation.deliveries]
            seen.add(explanation.fate)
            if explanation.fate == pb.EVENT_FATE_NOT_SELECTED:
                assert not happened
            elif explanation.fate == pb.EVENT_FATE_PAUSED:
                assert happened == [pb.DELIVERY_STATE_PAUSED]
            elif explanation.fate == pb.EVENT_FATE_SILENCED:
                assert happened == [pb.DELIVERY_STATE_SILENCED]
                assert explanation.reason == explanation.deliveries[0].silence_id == silence_id
            elif explanation.fate == pb.EVENT_FATE_GROUPED:
                assert happened == [pb.DELIVERY_STATE_GROUPED]
            else:
                assert explanation.fate == pb.EVENT_FATE_SENT
                assert len(happened) == 1
                assert happened[0] != pb.DELIVERY_STATE_PAUSED
    assert hook.posted
    assert seen == set(pb.EventFate.values()) - {pb.EVENT_FATE_UNSPECIFIED, pb.EVENT_FATE_HELD}
