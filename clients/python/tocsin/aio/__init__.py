"""The asyncio side of the client: the same calls, awaited."""

from tocsin.aio.client import AsyncClient, connect_async
from tocsin.aio.consumption import AsyncConsumption
from tocsin.aio.ingestion import AsyncIngestion
from tocsin.aio.subscription import AsyncSubscription
from tocsin.aio.watching import AsyncDeliveryWatch

__all__ = [
    "AsyncClient",
    "AsyncConsumption",
    "AsyncDeliveryWatch",
    "AsyncIngestion",
    "AsyncSubscription",
    "connect_async",
]
