"""An explanation as a tree: the event, each receiver, and there why it is told or not. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tocsin.cli import choices, delivery_records, health
from tocsin.cli.outline import Node
from tocsin.cli.rendering import level_text
from tocsin.cli.selection import selector_text
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2 import Event

_COLOURS = {
    pb.EVENT_FATE_SENT: "green",
    pb.EVENT_FATE_GROUPED: "green",
    pb.EVENT_FATE_HELD: "yellow",
    pb.EVENT_FATE_PAUSED: "yellow",
    pb.EVENT_FATE_SILENCED: "yellow",
}
_FATES = {
    pb.EVENT_FATE_NOT_SELECTED: "not told: no selector chooses it",
    pb.EVENT_FATE_SENT: "told at once",
    pb.EVENT_FATE_HELD: "sent as soon as the receiver may be sent anything",
    pb.EVENT_FATE_PAUSED: "held until its switch is on, or its fault is repaired",
    pb.EVENT_FATE_SILENCED: "not told: a silence holds",
    pb.EVENT_FATE_GROUPED: "told in a digest",
}
_REASONS = {
    "ABOUT_ITSELF": "not told: the event is about this receiver itself",
    "NO_SELECTORS": "not told: it has no selectors",
}


def outline_of(response: pb.ExplainEventResponse, is_stored: bool) -> Node:
    """Answer the whole tree."""
    below = [_receiver(one) for one in response.explanations]
    return Node(_event_text(response.event, is_stored), below or [Node("nobody is told: there are no receivers")])


def _event_text(event: Event, is_stored: bool) -> str:
    parts = [event.type, event.subtype, level_text(event).upper()]
    parts += [f"{event.resource.type or 'resource'} {event.resource.id}" if event.resource.id else event.resource.type]
    parts += [f"of {event.source.service}" if event.source.service else ""]
    parts += [f"{event.id} at position {event.position}" if is_stored else "made up"]
    return "  ".join(part for part in parts if part)


def _receiver(one: pb.EventExplanation) -> Node:
    fate = choices.word(pb.EventFate, one.fate)
    meaning = _REASONS.get(one.reason) or _FATES.get(one.fate, "")
    below = [*_selectors(one), _switches(one), *_silence(one), _health(one), *_deliveries(one)]
    text = f"{fate}  {one.name} ({one.kind} {one.configuration_id}): {meaning}"
    return Node(text, below, _COLOURS.get(one.fate, ""))


def _selectors(one: pb.EventExplanation) -> Iterator[Node]:
    for verdict in one.selectors:
        text = f"selector {selector_text(verdict.selector)}: "
        if verdict.matched:
            yield Node(f"{text}matches", style="green")
        else:
            yield Node(f"{text}does not match", [_missed(missed) for missed in verdict.missed])


def _missed(missed: pb.EventExplanation.MissedCriterion) -> Node:
    if missed.criterion == "after_position":
        return Node(f"it is older than the selector, which chooses {missed.wanted}; it is at {missed.found}")
    return Node(f"{missed.criterion}: wanted {missed.wanted}, found {missed.found or 'nothing'}")


def _switches(one: pb.EventExplanation) -> Node:
    off = [name for name, on in ((f"endpoint {one.kind}", one.endpoint_enabled), ("receiver", one.enabled)) if not on]
    return Node(f"switch: {' and '.join(off)} off", style="yellow") if off else Node("switch: on")


def _silence(one: pb.EventExplanation) -> Iterator[Node]:
    if one.fate == pb.EVENT_FATE_SILENCED:
        yield Node(f"silence: {one.reason}", style="yellow")
    elif one.fate != pb.EVENT_FATE_NOT_SELECTED:
        yield Node("silence: none")


def _health(one: pb.EventExplanation) -> Node:
    state, why = health.state(one.health), health.why(one.health)
    style = health.COLOURS.get(state, "") if state != "HEALTHY" else ""
    return Node(f"health: {state}" + (f", {why}" if why else ""), style=style)


def _deliveries(one: pb.EventExplanation) -> Iterator[Node]:
    for delivery in one.deliveries:
        colour = delivery_records.COLOURS.get(delivery_records.state(delivery), "")
        yield Node(f"delivery {delivery.id}: {delivery_records.summary(delivery)}", style=colour)
    if one.changed_since:
        yield Node("the receiver was changed after the event was stored: today's rules may say something else")
