"""The calls of the blocking client about endpoints, their configurations, and who is told about what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tocsin import events, receivers
from tocsin.paging import pages
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2 import Event
from tocsin.v1.notifications_pb2_grpc import NotificationsStub


class EndpointCalls:
    """Switching endpoints, configuring receivers, asking who is told; a part of `tocsin.Client`."""

    notifications: NotificationsStub

    def list_endpoints(self) -> list[pb.Endpoint]:
        """Answer the kinds of endpoints ("webhook", "email" ...) and their switches."""
        return list(self.notifications.ListEndpoints(pb.ListEndpointsRequest()).endpoints)

    def switch_endpoint(self, kind: str, enabled: bool) -> pb.Endpoint:
        """Switch a kind of endpoint for all accounts. Raises NotFound, PermissionDenied."""
        return self.notifications.UpdateEndpoint(receivers.switch_request(kind, enabled)).endpoint

    def create_configuration(
        self, configuration: pb.EndpointConfiguration, *, request_id: str | None = None
    ) -> pb.EndpointConfiguration:
        """Create a `webhook(...)` or `mailbox(...)`; its selectors apply to events appended after it."""
        request = pb.CreateEndpointConfigurationRequest(
            configuration=configuration, request_id=request_id or events.fresh_request_id()
        )
        return self.notifications.CreateEndpointConfiguration(request).configuration

    def get_configuration(self, id: str) -> pb.EndpointConfiguration:
        """Answer a configuration, its secrets masked, with the health of its receiver. Raises NotFound."""
        request = pb.GetEndpointConfigurationRequest(id=id)
        return self.notifications.GetEndpointConfiguration(request).configuration

    def list_configurations(self, kind: str = "") -> Iterator[pb.EndpointConfiguration]:
        """Go through the configurations of the account by id, all or those of a kind."""
        request = pb.ListEndpointConfigurationsRequest(kind=kind)
        found = pages(self.notifications.ListEndpointConfigurations, request)
        return (configuration for page in found for configuration in page.configurations)

    def update_configuration(
        self, configuration: pb.EndpointConfiguration, fields: Iterable[str] = ()
    ) -> pb.EndpointConfiguration:
        """Change the named fields ("name", "enabled", "webhook", "selectors" ...), or all; its `id` says of which.

        A secret that is written back as it was shown is kept. Raises NotFound, ReadOnly.
        """
        request = receivers.update_request(configuration, fields)
        return self.notifications.UpdateEndpointConfiguration(request).configuration

    def delete_configuration(self, id: str) -> None:
        """Delete a configuration; what waits for it is cancelled. Raises NotFound, ReadOnly."""
        self.notifications.DeleteEndpointConfiguration(pb.DeleteEndpointConfigurationRequest(id=id))

    def test_configuration(self, target: str | pb.EndpointConfiguration) -> pb.TestEndpointConfigurationResponse:
        """Send a test message through a stored (by id) or an unsaved configuration; answers the real attempt."""
        return self.notifications.TestEndpointConfiguration(receivers.test_request(target))

    def list_selector_presets(self) -> list[pb.SelectorPreset]:
        """Answer the quick selections: selectors that are asked for again and again."""
        request = pb.ListSelectorPresetsRequest()
        return list(self.notifications.ListSelectorPresets(request).presets)

    def explain_event(self, event: str | Event, *, configuration_id: str = "") -> pb.ExplainEventResponse:
        """Answer who is told about an event, stored (by id) or made up, and why; all configurations, or one.

        Raises NotFound.
        """
        request = receivers.explain_request(event, configuration_id)
        everything = pb.ExplainEventResponse()
        for page in pages(self.notifications.ExplainEvent, request):
            everything.event.CopyFrom(page.event)
            everything.explanations.extend(page.explanations)
        return everything

    def preview_notification(
        self, target: str | pb.EndpointConfiguration, event: str | Event
    ) -> pb.PreviewNotificationResponse:
        """Answer what a configuration would send about an event; nothing is sent. Raises NotFound, RenderFailed."""
        return self.notifications.PreviewNotification(receivers.preview_request(target, event))
