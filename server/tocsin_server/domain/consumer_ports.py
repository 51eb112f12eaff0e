"""What `api` may ask of durable consumers; `ports.py` has the rest of the outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tocsin_server.domain.consumers import Choice, Consumer, ConsumerStatus, Handed, Nack, Parked


class ConsumerStream(Protocol):
    """One client of a consumer: takes events, settles them, leaves."""

    @property
    def consumer(self) -> Consumer:
        """The consumer with its settings as they are now."""
        ...

    @property
    def floor(self) -> int:
        """Every matching event up to here is settled or parked."""
        ...

    async def next(self, timeout_s: float) -> Sequence[Handed]:
        """Wait for events and lease some; none when `timeout_s` went by. TocsinError when the stream has to end."""
        ...

    def ack(self, lease_ids: Sequence[int]) -> None:
        """Settle events; leases that have ended are passed over."""
        ...

    def nack(self, lease_ids: Sequence[int], action: Nack, reason: str) -> None:
        """Refuse events; leases that have ended are passed over."""
        ...

    async def finish(self) -> int:
        """Store what was settled; tell how many events are held."""
        ...

    def close(self, *, broken: bool) -> None:
        """Give back what is held; of a broken stream the oldest event counts as failed. May be called again."""
        ...


class ConsumerStore(Protocol):
    """Durable consumers, as the network's way in needs them; every call is within one account."""

    async def create(self, draft: Consumer, position: int, request_id: str, digest: bytes) -> Consumer:
        """Store a consumer that begins after a position, or answer the one that this request id has made."""
        ...

    async def get(self, account: str, name: str) -> Consumer:
        """Read one consumer."""
        ...

    async def status(self, account: str, name: str) -> tuple[Consumer, ConsumerStatus]:
        """Read one consumer and how far it is."""
        ...

    async def page(self, account: str, after: str, size: int) -> list[Consumer]:
        """Read consumers with a name after the given one."""
        ...

    async def update(self, account: str, name: str, change: Callable[[Consumer], Consumer]) -> Consumer:
        """Change a consumer's settings in one transaction."""
        ...

    async def seek(self, account: str, name: str, position: int) -> None:
        """Go on after a position; what is open is forgotten."""
        ...

    async def delete(self, account: str, name: str) -> None:
        """Delete a consumer; its streams end with NOT_FOUND."""
        ...

    async def parked(self, account: str, name: str, after: int, size: int) -> list[Parked]:
        """Read parked events with a position after the given one."""
        ...

    async def replay(self, account: str, name: str, choice: Choice) -> int:
        """Hand out parked events anew; tell how many."""
        ...

    async def purge(self, account: str, name: str, choice: Choice) -> int:
        """Forget parked events; tell how many."""
        ...

    async def open(self, account: str, name: str, limit: int, user: str) -> ConsumerStream:
        """Add a client that holds at most `limit` events; 0 is a fair share."""
        ...
