"""What `api` may ask of silences; `ports.py` has the rest of the outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tocsin_server.domain.silences import Silence, SilenceState


class SilenceStore(Protocol):
    """Silences; every call is within one account."""

    async def create(self, draft: Silence, judge: Callable[[int], None], request_id: str, digest: bytes) -> Silence:
        """Store a silence (from now on where it has no start), or answer the one that this request id has made.

        `judge` is given the time and raises when the silence makes no sense at it; a repeat is not judged again.
        """
        ...

    async def get(self, account: str, silence_id: str) -> Silence:
        """Read one silence."""
        ...

    async def page(
        self, account: str, states: Sequence[SilenceState], now: int, after: tuple[int, str] | None, size: int
    ) -> list[Silence]:
        """Read silences, the latest start first."""
        ...

    async def held(self, account: str) -> list[Silence]:
        """Read all silences by which events of an account are judged, those that were deleted too."""
        ...

    async def update(self, account: str, silence_id: str, change: Callable[[Silence], Silence]) -> Silence:
        """Change a silence in one transaction; SILENCE_ENDED when it has."""
        ...

    async def delete(self, account: str, silence_id: str) -> None:
        """End a silence, if it holds, and forget it."""
        ...
