"""PreviewNotification on the wire: what a configuration would send about an event."""

from __future__ import annotations

from collections.abc import Mapping

from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb

from tocsin_server.api import endpoint_configurations as configurations
from tocsin_server.api.auth import Caller
from tocsin_server.api.event_drafts import Drafts
from tocsin_server.api.explanations import decoded, made_up
from tocsin_server.api.server import Service
from tocsin_server.domain.errors import Reason, TocsinError, invalid_field
from tocsin_server.domain.message_templates import templated
from tocsin_server.domain.notifications import EndpointConfiguration, Message
from tocsin_server.domain.ports import EndpointKind, EventLogStore, NotificationStore, Runtime

DELIVERY_ID = "0" * 32  # nothing is delivered


class PreviewService(Service):
    """Previews of notifications."""

    descriptor = pb.DESCRIPTOR.services_by_name["Notifications"]

    def __init__(
        self,
        log: EventLogStore,
        store: NotificationStore,
        drafts: Drafts,
        kinds: Mapping[str, EndpointKind],
        runtime: Runtime,
        ui_url: str,
    ) -> None:
        self._log = log
        self._store = store
        self._drafts = drafts
        self._kinds = kinds
        self._now = runtime.now
        self._ui_url = ui_url

    async def preview_notification(
        self, request: pb.PreviewNotificationRequest, caller: Caller
    ) -> pb.PreviewNotificationResponse:
        """Answer a message as it would be sent."""
        configuration = await self._configuration(request, caller)
        event = await self._event(request, caller)
        kind = self._kinds[configuration.kind]
        message = Message(
            delivery_id=DELIVERY_ID,
            sent_at=self._now(),
            event=self._log.decode(log_pb.GetEventResponse(event=event).SerializeToString()),
            ui_url=self._ui_url,
            options=configuration.options,
        )
        try:
            message, missing = templated(message, configuration, kind.default_escape)
            preview = kind.preview(message, configuration.connection)
        except ValueError as error:
            raise TocsinError(Reason.RENDER_FAILED, str(error)) from error
        return pb.PreviewNotificationResponse(
            subject=preview.subject,
            body=preview.body,
            content_type=preview.content_type,
            recipients=preview.recipients,
            missing=missing,
        )

    async def _configuration(self, request: pb.PreviewNotificationRequest, caller: Caller) -> EndpointConfiguration:
        if request.WhichOneof("target") == "id":
            if not request.id:
                raise invalid_field("id", "is required")
            return await self._store.get(caller.account, request.id)
        configuration = configurations.draft(request.configuration, caller)
        if request.configuration.id:
            old = await self._store.get(caller.account, request.configuration.id)
            configuration = configurations.with_kept_secrets(configuration, old, self._kinds)
        configurations.judge(configuration, self._kinds, caller)
        return configuration

    async def _event(self, request: pb.PreviewNotificationRequest, caller: Caller) -> log_pb.Event:
        if request.WhichOneof("subject") == "event":
            return made_up(request.event, self._drafts, caller, self._log.head + 1, self._now())
        if not request.event_id:
            raise invalid_field("event_id", "is required")
        return decoded(await self._log.get(caller.account, request.event_id))
