"""The service Notifications on the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tocsin.v1 import notifications_pb2 as pb

from tocsin_server.api import endpoint_configurations as configurations
from tocsin_server.api.auth import Caller
from tocsin_server.api.delivery_messages import attempt_message, recipient_messages
from tocsin_server.api.paging import PageTokens, fitting, page_size
from tocsin_server.api.server import Service
from tocsin_server.domain.config_webhooks import is_configured
from tocsin_server.domain.errors import Reason, TocsinError, invalid_field, not_found
from tocsin_server.domain.notifications import EndpointConfiguration
from tocsin_server.domain.ports import EndpointKind, NotificationStore, Runtime, Tester


class NotificationsService(Service):
    """Endpoints and their configurations."""

    descriptor = pb.DESCRIPTOR.services_by_name["Notifications"]

    def __init__(
        self,
        store: NotificationStore,
        tester: Tester,
        kinds: Mapping[str, EndpointKind],
        tokens: PageTokens,
        digest_key: bytes,
        runtime: Runtime,
    ) -> None:
        self._now = runtime.now
        self._store = store
        self._tester = tester
        self._kinds = kinds
        self._tokens = tokens
        self._digest_key = digest_key

    async def list_endpoints(self, request: pb.ListEndpointsRequest, caller: Caller) -> pb.ListEndpointsResponse:
        """Answer every kind and its switch."""
        switches = await self._store.switches()
        return pb.ListEndpointsResponse(endpoints=[self._endpoint(kind, switches) for kind in self._kinds])

    async def get_endpoint(self, request: pb.GetEndpointRequest, caller: Caller) -> pb.GetEndpointResponse:
        """Answer one kind and its switch."""
        self._known(request.kind)
        return pb.GetEndpointResponse(endpoint=self._endpoint(request.kind, await self._store.switches()))

    async def update_endpoint(self, request: pb.UpdateEndpointRequest, caller: Caller) -> pb.UpdateEndpointResponse:
        """Switch a kind on or off, for all accounts."""
        caller.require_admin("switching an endpoint")
        kind = request.endpoint.kind
        self._known(kind)
        unknown = set(request.update_mask.paths) - {"enabled"}
        if unknown:
            raise invalid_field("update_mask", f"{', '.join(sorted(unknown))} cannot be changed; this can: enabled")
        if not request.endpoint.HasField("enabled"):
            raise invalid_field("endpoint.enabled", "is required")
        await self._store.set_switch(kind, request.endpoint.enabled)
        return pb.UpdateEndpointResponse(endpoint=self._endpoint(kind, await self._store.switches()))

    def _known(self, kind: str) -> None:
        if kind not in self._kinds:
            raise not_found("endpoint", kind)

    def _endpoint(self, kind: str, switches: Mapping[str, bool]) -> pb.Endpoint:
        known = self._kinds[kind]
        return pb.Endpoint(
            kind=kind,
            enabled=switches.get(kind, True),
            description=known.description,
            required_fields=known.required_fields,
        )

    async def create_endpoint_configuration(
        self, request: pb.CreateEndpointConfigurationRequest, caller: Caller
    ) -> pb.CreateEndpointConfigurationResponse:
        """Create a configuration; the same request id again answers the first."""
        sent = request.configuration
        if sent.id:
            raise invalid_field("configuration.id", "is made by the server: leave it empty")
        # Keyed, because the request holds secrets.
        as_sent = sent.SerializeToString(deterministic=True)
        digest = hashlib.blake2b(as_sent, key=self._digest_key, digest_size=16).digest()
        draft = configurations.draft(sent, caller)
        configurations.judge(draft, self._kinds, caller)
        created = await self._store.create(draft, request.request_id, digest)
        return pb.CreateEndpointConfigurationResponse(configuration=configurations.answer(created))

    async def get_endpoint_configuration(
        self, request: pb.GetEndpointConfigurationRequest, caller: Caller
    ) -> pb.GetEndpointConfigurationResponse:
        """Answer one configuration."""
        found = await self._store.get(caller.account, request.id)
        return pb.GetEndpointConfigurationResponse(configuration=configurations.answer(found))

    async def list_endpoint_configurations(
        self, request: pb.ListEndpointConfigurationsRequest, caller: Caller
    ) -> pb.ListEndpointConfigurationsResponse:
        """Answer a page of configurations, by id."""
        after = ""
        if request.page_token:
            (place,) = self._tokens.read(caller.account, request, request.page_token)
            after = str(place)
        size = page_size(request.page_size)
        found = await self._store.page(caller.account, request.kind, after, size + 1)
        shown = fitting(configurations.answer(c) for c in found[:size])
        token = self._tokens.make(caller.account, request, [shown[-1].id]) if len(found) > len(shown) else ""
        return pb.ListEndpointConfigurationsResponse(configurations=shown, next_page_token=token)

    async def update_endpoint_configuration(
        self, request: pb.UpdateEndpointConfigurationRequest, caller: Caller
    ) -> pb.UpdateEndpointConfigurationResponse:
        """Change the fields that the mask names."""
        sent = request.configuration
        if not sent.id:
            raise invalid_field("configuration.id", "is required")

        def change(old: EndpointConfiguration) -> EndpointConfiguration:
            _refuse_configured(old.id)
            new = configurations.changed(old, sent, request.update_mask.paths, self._kinds, self._now())
            configurations.judge(new, self._kinds, caller)
            return new

        updated = await self._store.update(caller.account, sent.id, change)
        return pb.UpdateEndpointConfigurationResponse(configuration=configurations.answer(updated))

    async def delete_endpoint_configuration(
        self, request: pb.DeleteEndpointConfigurationRequest, caller: Caller
    ) -> pb.DeleteEndpointConfigurationResponse:
        """Delete a configuration and cancel what waits for it."""
        found = await self._store.get(caller.account, request.id)
        _refuse_configured(found.id)
        await self._store.delete(caller.account, request.id)
        return pb.DeleteEndpointConfigurationResponse(id=request.id)

    async def test_endpoint_configuration(
        self, request: pb.TestEndpointConfigurationRequest, caller: Caller
    ) -> pb.TestEndpointConfigurationResponse:
        """Send a test message and answer the real attempt."""
        stored = request.WhichOneof("target") == "id"
        if stored:
            if not request.id:
                raise invalid_field("id", "is required")
            configuration = await self._store.get(caller.account, request.id)
        else:
            configuration = configurations.draft(request.configuration, caller)
            if request.configuration.id:
                old = await self._store.get(caller.account, request.configuration.id)
                configuration = configurations.with_kept_secrets(configuration, old, self._kinds)
            configurations.judge(configuration, self._kinds, caller)
        if not (await self._store.switches()).get(configuration.kind, True):
            text = f"endpoint {configuration.kind!r} is switched off for all accounts: nothing of this kind is sent"
            raise TocsinError(Reason.ENDPOINT_DISABLED, text, metadata={"kind": configuration.kind})
        delivery, attempt = await self._tester.test(configuration, stored)
        return pb.TestEndpointConfigurationResponse(
            delivered=attempt.verdict == "DELIVERED",
            attempt=attempt_message(attempt),
            delivery_id=delivery.id if stored else "",
            recipients=recipient_messages(delivery.recipients),
        )


def _refuse_configured(configuration_id: str) -> None:
    if is_configured(configuration_id):
        text = f"{configuration_id} is defined by the settings of the server: change it there, and restart"
        raise TocsinError(Reason.READ_ONLY, text, metadata={"id": configuration_id})
