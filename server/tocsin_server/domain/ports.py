"""All that the domain and the loops need from outside, on one page.

`Runtime` is the only source of time, ids and chance. The other protocols are what `api` and
`dispatch` may ask of the store; `app.py` puts the parts together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from tocsin_server.domain.event_log import Append, Appended, Key, ListPage, LogStatus, Step
from tocsin_server.domain.selection import EventFilter


@dataclass(frozen=True, slots=True)
class Runtime:
    """Time, ids and chance, made once in `app.py` so that tests can hold them still.

    `now` gives microseconds since 1970 UTC; `monotonic` seconds from an arbitrary start, for
    durations only; `new_id` 32 hex digits that rise with time; `jitter` a number in [0, 1).
    """

    now: Callable[[], int]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    jitter: Callable[[], float]


class Cipher(Protocol):
    """Encrypts secret fields, bound to the place where they are kept."""

    def encrypt(self, secret: str, place: str) -> str:
        """Encrypt for `place` (account, configuration and field); the text moves nowhere else."""
        ...

    def decrypt(self, sealed: str, place: str) -> str:
        """Decrypt what was encrypted for `place`; TocsinError KEY_MISSING when that fails."""
        ...


class EventLogStore(Protocol):
    """The log, as the network's way in needs it."""

    @property
    def head(self) -> int:
        """The newest position of the log."""
        ...

    def append(self, append: Append) -> Awaitable[list[Appended]]:
        """Store events, all or none; durable when this returns."""
        ...

    async def status(self, account: str | None) -> LogStatus:
        """Read identity, head and oldest readable position."""
        ...

    async def get(self, account: str, event_id: str) -> bytes:
        """Read one event's frame by its id."""
        ...

    async def get_at(self, position: int) -> bytes:
        """Read one event's frame by its position, hidden ones too."""
        ...

    async def page(
        self, event_filter: EventFilter, newest_first: bool, after: Key | None, size: int
    ) -> ListPage:
        """Read one page by (timestamp, position)."""
        ...

    async def count(self, event_filter: EventFilter) -> int:
        """Count the events that match."""
        ...

    async def position_before(self, created_at: int) -> int:
        """Find the position before the first event stored at `created_at` or later."""
        ...

    def follow(
        self, event_filter: EventFilter, after: int, batch_max: int, heartbeat_s: float
    ) -> AsyncIterator[Step]:
        """Tell what matches after a position, without end."""
        ...

    async def delete(self, account: str, event_id: str) -> None:
        """Delete one event; it has vanished from every read when this returns."""
        ...

    async def delete_step(
        self, event_filter: EventFilter, after: int, upto: int, limit: int
    ) -> tuple[list[str], int]:
        """Delete some of the matching events; give their ids and the position that was reached."""
        ...

    async def routed(self, position: int) -> None:
        """Wait until the router has passed a position."""
        ...
