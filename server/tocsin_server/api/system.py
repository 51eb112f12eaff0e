"""The service System on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tocsin.v1 import system_pb2 as pb

from tocsin_server import __version__
from tocsin_server.api.auth import Caller
from tocsin_server.api.server import Service


class SystemService(Service):
    """What the server says about itself."""

    descriptor = pb.DESCRIPTOR.services_by_name["System"]

    def __init__(self, log_id: str, store: str, limits: Mapping[str, int], features: Sequence[str]) -> None:
        self._info = pb.GetInfoResponse(
            version=__version__, store=store, log_id=log_id, limits=limits, features=features
        )

    async def get_info(self, request: pb.GetInfoRequest, caller: Caller) -> pb.GetInfoResponse:
        """Answer version, store, log and limits."""
        return self._info
