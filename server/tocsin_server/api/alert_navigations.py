"""The part of the service Alerting that says where alerts are shown."""

from __future__ import annotations

from tocsin.v1 import alerting_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.server import Service
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.navigation import Navigation, NavigationStore, Place, check, path_of


class NavigationService(Service):
    """Navigations."""

    descriptor = pb.DESCRIPTOR.services_by_name["Alerting"]

    def __init__(self, store: NavigationStore, ui_url: str) -> None:
        self._store = store
        self._ui_url = ui_url

    async def register_navigation(
        self, request: pb.RegisterNavigationRequest, caller: Caller
    ) -> pb.RegisterNavigationResponse:
        """Say where alerts of a consumer and a type are shown."""
        await self._register(caller, request.consumer, request.alert_type_id, request.path_template)
        return pb.RegisterNavigationResponse()

    async def register_default_navigation(
        self, request: pb.RegisterDefaultNavigationRequest, caller: Caller
    ) -> pb.RegisterDefaultNavigationResponse:
        """Say where alerts of a consumer are shown whose type has no navigation of its own."""
        await self._register(caller, request.consumer, "", request.path_template)
        return pb.RegisterDefaultNavigationResponse()

    async def _register(self, caller: Caller, consumer: str, alert_type_id: str, path_template: str) -> None:
        check(path_template)
        await self._store.register(Navigation(caller.account, consumer, alert_type_id, path_template))

    async def delete_navigation(
        self, request: pb.DeleteNavigationRequest, caller: Caller
    ) -> pb.DeleteNavigationResponse:
        """Forget a navigation."""
        await self._store.forget(caller.account, request.consumer, request.alert_type_id)
        return pb.DeleteNavigationResponse()

    async def get_alert_navigation(
        self, request: pb.GetAlertNavigationRequest, caller: Caller
    ) -> pb.GetAlertNavigationResponse:
        """Answer where an alert is shown."""
        alert, navigation = await self._store.of(caller.account, request.id)
        path = path_of(navigation, alert)
        if not path:
            text = f"Navigation for alerts of consumer {alert.spec.consumer!r} is not registered."
            raise TocsinError(Reason.NAVIGATION_NOT_REGISTERED, text, metadata={"consumer": alert.spec.consumer})
        return pb.GetAlertNavigationResponse(path=path, url=Place.of(self._ui_url, path).link)
