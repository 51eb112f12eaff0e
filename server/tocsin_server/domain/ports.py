"""All that the domain and the loops need from outside, on one page.

`Runtime` is the only source of time, ids and chance. The other protocols are what `api` and
`dispatch` may ask of the store; `app.py` puts the parts together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tocsin_server.domain.alerting import Alert, AlertPage, AlertSearch
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.event_log import (
    Append,
    Appended,
    Event,
    Found,
    Identity,
    Key,
    ListPage,
    LogStatus,
    Step,
    TotalSize,
)
from tocsin_server.domain.event_types import EventType
from tocsin_server.domain.execution import AlertState, Claim, Claims, Performed, Work
from tocsin_server.domain.message_templates import Preview
from tocsin_server.domain.notifications import Attempt, Delivery, EndpointConfiguration, Message, Outcome
from tocsin_server.domain.selection import EventFilter
from tocsin_server.domain.summary import Summary, SummaryQuery
from tocsin_server.domain.templates import Escape


@dataclass(frozen=True, slots=True)
class Runtime:
    """Time, ids and chance, made once in `app.py` so that tests can hold them still.

    `now` gives microseconds since 1970 UTC; `monotonic` seconds from an arbitrary start, for
    durations only; `new_id` 32 hex digits that rise with time; `jitter` a number in [0, 1). `moment` is
    told of moments at which a crash must lose nothing, by their names: tests crash there. `host` names this
    server in the events that it writes itself.
    """

    now: Callable[[], int]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    jitter: Callable[[], float]
    moment: Callable[[str], None] = lambda name: None
    host: str = ""


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
        """Store events, all or none; durable when the answer is there. Stored in the order of these calls."""
        ...

    async def reused(self, account: str, identities: Sequence[Identity]) -> list[Violation]:
        """Name the events of a batch whose id is stored with other content, or occurs twice."""
        ...

    def refuse(self, size: int) -> None:
        """Refuse an append of so many bytes before it is made, if it could not be stored soon; OVERLOADED."""
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

    def decode(self, frame: bytes) -> Event:
        """Decode a stored event."""
        ...

    async def batch(self, account: str, ids: Sequence[str]) -> Found:
        """Read several events by their ids, as many as fit into one answer."""
        ...

    async def standing(self, account: str | None) -> TotalSize:
        """Count the events that can be read."""
        ...

    async def page(self, event_filter: EventFilter, newest_first: bool, after: Key | None, size: int) -> ListPage:
        """Read one page by (timestamp, position)."""
        ...

    async def total(self, event_filter: EventFilter) -> TotalSize:
        """Count what a list has on all its pages, to a bound."""
        ...

    async def summarize(self, query: SummaryQuery) -> Summary:
        """Count events per bucket of time and value of a field."""
        ...

    async def count(self, event_filter: EventFilter) -> int:
        """Count the events that match."""
        ...

    async def position_before(self, created_at: int) -> int:
        """Find the position before the first event stored at `created_at` or later."""
        ...

    def follow(
        self, event_filter: EventFilter, after: int | None, batch_max: int, heartbeat_s: float
    ) -> AsyncIterator[Step]:
        """Tell what matches after a position, or (None) from the oldest event on, without end."""
        ...

    async def delete(self, account: str, event_id: str, upto: int) -> None:
        """Delete one event that stood when the head was `upto`; it has vanished from every read when this returns."""
        ...

    async def delete_step(self, event_filter: EventFilter, after: int, upto: int, limit: int) -> tuple[list[str], int]:
        """Delete some of the matching events; give their ids and the position that was reached."""
        ...

    async def routed(self, position: int) -> None:
        """Wait until the router has passed a position."""
        ...


class EventTypeStore(Protocol):
    """The entries of the catalogue that accounts have registered."""

    async def register(self, account: str, entries: Sequence[EventType]) -> list[EventType]:
        """Store entries, all or none; LIMIT_REACHED when they are too many."""
        ...

    async def unregister(self, account: str, names: Sequence[tuple[str, str]]) -> int:
        """Remove entries by type and subtype; give how many there were."""
        ...


class EndpointKind(Protocol):
    """One kind of endpoint: how its connection is checked and how a message is sent. One file each."""

    kind: str
    description: str
    required_fields: tuple[str, ...]
    secret_fields: tuple[str, ...]
    secrets_bound_to: Mapping[str, tuple[str, ...]]  # the fields that say where a secret is sent
    action_params: tuple[str, ...]
    default_escape: Escape  # of values in templates of notifications
    refused_options: Mapping[str, str]  # options that mean nothing here, and why
    attempt_max_s: float  # no attempt takes longer; shorter than a lease

    def check(self, connection: Mapping[str, Any]) -> list[Violation]:
        """Judge what the bounds of single fields cannot say; paths are relative to the connection."""
        ...

    def check_action(self, params: Mapping[str, Any]) -> list[Violation]:
        """Judge the params of an alert's action; paths are relative to the params."""
        ...

    def succeed(self, old: Mapping[str, Any], new: Mapping[str, Any], now: int) -> Mapping[str, Any]:
        """Complete a changed connection with what goes on from the old one: an old key that still signs."""
        ...

    def preview(self, message: Message, connection: Mapping[str, Any]) -> Preview:
        """Write a message as it would be sent; ValueError when it cannot be."""
        ...

    async def send(self, message: Message, connection: Mapping[str, Any]) -> Outcome:
        """Send one message once and judge the answer; never raises but on cancellation."""
        ...

    async def close(self) -> None:
        """Close what is kept open from one message to the next."""
        ...


class NotificationStore(Protocol):
    """Endpoints, configurations and deliveries, as the network's way in needs them."""

    async def switches(self) -> dict[str, bool]:
        """Read the switches that were ever set, by kind."""
        ...

    async def set_switch(self, kind: str, enabled: bool) -> None:
        """Set a kind's switch; pause or resume what waits."""
        ...

    async def create(self, draft: EndpointConfiguration, request_id: str, digest: bytes) -> EndpointConfiguration:
        """Store a new configuration, or answer the one that this request id has made."""
        ...

    async def get(self, account: str, configuration_id: str) -> EndpointConfiguration:
        """Read one configuration."""
        ...

    async def page(self, account: str, kind: str, after: str, size: int) -> list[EndpointConfiguration]:
        """Read configurations with an id after the given one."""
        ...

    async def update(
        self,
        account: str,
        configuration_id: str,
        change: Callable[[EndpointConfiguration], EndpointConfiguration],
    ) -> EndpointConfiguration:
        """Change a configuration in one transaction."""
        ...

    async def delete(self, account: str, configuration_id: str) -> None:
        """Delete a configuration and cancel what waits for it."""
        ...


class Tester(Protocol):
    """Sends test messages."""

    async def test(self, configuration: EndpointConfiguration, stored: bool) -> tuple[Delivery, Attempt]:
        """Send one test message and tell how it went; a stored configuration gets a delivery row."""
        ...


class AlertStore(Protocol):
    """Alerts, as the network's way in needs them; every call is within one account."""

    async def create(self, alert: Alert, request_id: str, digest: bytes) -> Alert:
        """Store an alert; its first run is at once. A known request id answers the alert it made."""
        ...

    async def get(self, account: str, alert_id: str) -> Alert:
        """Read one alert."""
        ...

    async def find(self, search: AlertSearch, after: tuple[str | int, str] | None, size: int) -> AlertPage:
        """Read a page of what a search finds."""
        ...

    async def update(self, alert: Alert, *, run_now: bool) -> Alert:
        """Store a changed alert over the version that it was read as; CONFLICT if there is a newer."""
        ...

    async def delete(self, account: str, alert_id: str) -> None:
        """Delete an alert; its instances end."""
        ...

    async def enable(self, account: str, alert_id: str, user: str) -> Alert:
        """Let an alert run, at once and with empty state; nothing when it does already."""
        ...

    async def disable(self, account: str, alert_id: str, user: str) -> Alert:
        """Stop an alert; its instances end. Nothing when it is stopped already."""
        ...

    async def mute(self, account: str, alert_id: str, user: str, change: Callable[[Alert], Alert]) -> Alert:
        """Change what is muted; nothing when that is as it was. A run under way is written with it."""
        ...

    async def state(self, account: str, alert_id: str) -> AlertState:
        """Read what the runs of an alert left behind."""
        ...

    async def kinds(self, account: str, configuration_ids: Sequence[str]) -> Mapping[str, str]:
        """Read the kinds of those endpoint configurations that exist in the account."""
        ...


class AlertRuns(Protocol):
    """The runs of all alerts, as the loop that executes them needs them."""

    async def release(self) -> None:
        """Give back what a process that has ended had claimed."""
        ...

    async def claim(self, limit: int, lease_us: int) -> Claims:
        """Begin runs that are due; every append stamped before their times is stored when this returns."""
        ...

    async def perform(self, claim: Claim, work: Work, timeout_s: float) -> Performed | None:
        """Do the work of a run on a thread that can read the log as the alert's owner; a run that failed when too late.

        None when the claim does not hold any more.
        """
        ...

    async def perform_apart(self, claim: Claim, work: Work, timeout_s: float) -> Performed | None:
        """Do the same for work that may wait for anything: it has a thread that can read only while it reads."""
        ...

    async def settle(self, performed: Performed) -> bool:
        """Write all that a run leaves behind, or nothing: False when the claim does not hold any more."""
        ...
