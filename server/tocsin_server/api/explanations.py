"""The calls of Notifications that only look: quick selections, and why an event is told to whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb

from tocsin_server.api import delivery_options
from tocsin_server.api.auth import Caller
from tocsin_server.api.delivery_messages import delivery_message
from tocsin_server.api.endpoint_configurations import selector_message
from tocsin_server.api.event_drafts import Drafts
from tocsin_server.api.event_filters import micros
from tocsin_server.api.paging import PageTokens, fitting, page_size
from tocsin_server.api.server import Service
from tocsin_server.api.timestamps import timestamp
from tocsin_server.domain.deliveries import DeliveryQuery
from tocsin_server.domain.delivery_ports import DeliveryStore
from tocsin_server.domain.errors import Reason, TocsinError, invalid_field
from tocsin_server.domain.event_log import EventHead
from tocsin_server.domain.explanation import Explanation, Missed, Subject, explain
from tocsin_server.domain.notifications import Delivery, EndpointConfiguration
from tocsin_server.domain.ports import EventLogStore, NotificationStore, Runtime
from tocsin_server.domain.selection import Selector
from tocsin_server.domain.selector_presets import PRESETS
from tocsin_server.domain.silence_ports import SilenceStore
from tocsin_server.domain.silences import Silences

DELIVERIES_MAX = 1000  # of one event and one account


class ExplanationService(Service):
    """Quick selections and explanations."""

    descriptor = pb.DESCRIPTOR.services_by_name["Notifications"]

    def __init__(
        self,
        log: EventLogStore,
        store: NotificationStore,
        deliveries: DeliveryStore,
        drafts: Drafts,
        silences: SilenceStore,
        tokens: PageTokens,
        runtime: Runtime,
    ) -> None:
        self._silences = silences
        self._log = log
        self._store = store
        self._deliveries = deliveries
        self._drafts = drafts
        self._tokens = tokens
        self._now = runtime.now

    async def list_selector_presets(
        self, request: pb.ListSelectorPresetsRequest, caller: Caller
    ) -> pb.ListSelectorPresetsResponse:
        """Answer the quick selections."""
        answer = pb.ListSelectorPresetsResponse()
        for preset in PRESETS:
            selector, everybody = selector_message(preset.selector), preset.selector.scope == "global"
            answer.presets.add(id=preset.id, title=preset.title, selector=selector, admin_only=everybody)
        return answer

    async def explain_event(self, request: pb.ExplainEventRequest, caller: Caller) -> pb.ExplainEventResponse:
        """Answer what each configuration of a page makes of an event."""
        event = await self._event(request, caller)
        subject = subject_of(event)
        found, more = await self._configurations(request, caller)
        switches, told = await self._store.switches(), await self._told(event, caller)
        now = self._now()
        silences = Silences(await self._silences.held(caller.account))
        shown = fitting(
            _message(
                explain(configuration, switches.get(configuration.kind, True), subject, silences, now),
                told.get(configuration.id, ()),
                micros(event.created_at),
            )
            for configuration in found
        )
        token = ""
        if more or len(shown) < len(found):
            token = self._tokens.make(caller.account, request, [shown[-1].configuration_id])
        return pb.ExplainEventResponse(event=event, explanations=shown, next_page_token=token)

    async def _event(self, request: pb.ExplainEventRequest, caller: Caller) -> log_pb.Event:
        """Read the event, or complete a made-up one as an append would, at the position that comes next."""
        kind = request.WhichOneof("subject")
        if kind == "event":
            return made_up(request.event, self._drafts, caller, self._log.head + 1, self._now())
        if kind is not None and not getattr(request, kind):
            raise invalid_field(kind, "is required")
        if kind == "event_id":
            return decoded(await self._log.get(caller.account, request.event_id))
        event = decoded(await self._log.get_at(request.position))
        if event.account != caller.account and not caller.is_admin:
            raise TocsinError(Reason.NOT_FOUND, f"there is no event at position {request.position}")
        return decoded(await self._log.get(event.account, event.id))  # one that is hidden is not there

    async def _configurations(
        self, request: pb.ExplainEventRequest, caller: Caller
    ) -> tuple[list[EndpointConfiguration], bool]:
        if request.configuration_id:
            return [await self._store.get(caller.account, request.configuration_id)], False
        after = ""
        if request.page_token:
            (place,) = self._tokens.read(caller.account, request, request.page_token)
            after = str(place)
        size = page_size(request.page_size)
        found = await self._store.page(caller.account, "", after, size + 1)
        return found[:size], len(found) > size

    async def _told(self, event: log_pb.Event, caller: Caller) -> Mapping[str, Sequence[Delivery]]:
        """Read the deliveries of a stored event in the caller's account, by configuration."""
        query = DeliveryQuery(caller.account, event_id=event.id)
        found: defaultdict[str, list[Delivery]] = defaultdict(list)
        for delivery in (await self._deliveries.page(query, None, DELIVERIES_MAX)).deliveries:
            if delivery.event_position == event.position:
                found[delivery.configuration_id].append(delivery)
        return found


def made_up(sent: log_pb.Event, drafts: Drafts, caller: Caller, position: int, now: int) -> log_pb.Event:
    """Complete a made-up event as an append would, at a position."""
    (draft,) = drafts.append(caller, log_pb.AppendEventRequest(event=sent)).drafts
    made = log_pb.Event.FromString(draft.body)
    made.position = position
    made.created_at.CopyFrom(timestamp(now))
    return made


def decoded(frame: bytes) -> log_pb.Event:
    """Decode a stored event."""
    return log_pb.GetEventResponse.FromString(frame).event


def subject_of(event: log_pb.Event) -> Subject:
    """Give an event as selectors see it."""
    head = EventHead(
        account=event.account,
        type=event.type,
        subtype=event.subtype,
        level=event.level,
        resource_type=event.resource.type,
        resource_id=event.resource.id,
        user_id=event.resource.user_id,
        service=event.source.service,
        host=event.source.host,
        labels=dict(event.labels),
        timestamp=micros(event.timestamp),
    )
    return Subject(
        event.position, micros(event.created_at), head, log_pb.GetEventResponse(event=event).SerializeToString()
    )


def _message(explanation: Explanation, told: Sequence[Delivery], stored_at: int) -> pb.EventExplanation:
    configuration = explanation.configuration
    return pb.EventExplanation(
        configuration_id=configuration.id,
        name=configuration.name,
        kind=configuration.kind,
        fate=pb.EventFate.Value(f"EVENT_FATE_{explanation.fate}"),
        reason=explanation.reason,
        selectors=[
            _verdict(selector, missed)
            for selector, missed in zip(configuration.selectors, explanation.missed, strict=True)
        ],
        enabled=configuration.enabled,
        endpoint_enabled=explanation.endpoint_enabled,
        health=delivery_options.health(configuration),
        deliveries=[delivery_message(delivery) for delivery in told],
        changed_since=configuration.updated_at > stored_at,
    )


def _verdict(selector: Selector, missed: Sequence[Missed]) -> pb.EventExplanation.SelectorVerdict:
    return pb.EventExplanation.SelectorVerdict(
        selector=selector_message(selector),
        matched=not missed,
        missed=[
            pb.EventExplanation.MissedCriterion(criterion=m.criterion, wanted=m.wanted[:1024], found=m.found[:1024])
            for m in missed
        ],
    )
