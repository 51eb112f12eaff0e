"""Those who use tocsin in the demo, each on a thread of its own: the producer and the subscriber."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

import tocsin
from tocsin import Client, Event

from examples.demo.ledger import Acknowledged, Arrived, Ledger
from examples.demo.narrator import Narrator
from examples.demo.stream import stream

# The server is away for about two seconds in the middle; appends wait that long and more.
APPEND_TIMEOUT_S = 30.0
OWN_SERVICE = "tocsin"


class Actor:
    """A thread with a client of its own. Leaving its block ends it."""

    def __init__(self, address: str, ledger: Ledger, narrator: Narrator) -> None:
        self._ledger = ledger
        self._narrator = narrator
        self._client = tocsin.connect(address, timeout_s=APPEND_TIMEOUT_S)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._guarded, args=(self.act,), daemon=True)

    def act(self, client: Client) -> None:
        """Do the actor's part."""
        raise NotImplementedError

    def _guarded(self, act: Callable[[Client], None]) -> None:
        try:
            act(self._client)
        except Exception as error:
            if not self._stopping.is_set():  # what breaks because the demo ends is no fault
                fault = f"{type(self).__name__.lower()}: {type(error).__name__}: {error}"
                self._ledger.note(self._ledger.faults, fault)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._client.close()
        self._thread.join(5)


class Producer(Actor):
    """Appends the stream, one event after the other, each confirmed before the next."""

    def act(self, client: Client) -> None:
        """Append until the stream ends."""
        for step in stream():
            if self._stopping.wait(step.pause_s):
                return
            began_at = monotonic()
            stored = client.append(step.event)
            resource = step.event.resource.id
            entry = Acknowledged(stored.id, stored.position, resource, step.failed, began_at, monotonic())
            self._ledger.note(self._ledger.acknowledged, entry)
            if step.failed:
                self._narrator.tell("append", f"{step.event.type} {resource}")
        self._ledger.close_production()


class Subscriber(Actor):
    """Follows the whole log from its beginning."""

    def act(self, client: Client) -> None:
        """Follow until the demo ends."""
        with client.subscribe(start="beginning", on_disconnect=self._disconnected) as subscription:
            for event in subscription:
                if subscription.connections != self._ledger.connections:
                    self._connected(subscription.connections, event)
                own = event.source.service == OWN_SERVICE
                entry = Arrived(event.id, event.position, event.type, own, monotonic())
                self._ledger.note(self._ledger.arrived, entry)
                if len(self._ledger.arrived) % 25 == 0:
                    self._narrator.tell("follow", f"{len(self._ledger.arrived)} events came")
                if own:
                    self._narrator.tell("follow", f"{event.type} {event.message}")

    def _connected(self, connections: int, event: Event) -> None:
        self._ledger.connections = connections
        if connections > 1:
            self._narrator.tell("follow", f"resumed; the next event is at position {event.position}")

    def _disconnected(self, error: tocsin.TocsinError | None, wait_s: float) -> None:
        self._narrator.tell("follow", f"lost the server ({error.code.name if error else 'end of stream'})")
