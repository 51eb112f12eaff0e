"""`tocsin delivery watch`: deliveries as they change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import tocsin
from tocsin.cli import delivery_records, rendering
from tocsin.cli.deliveries import group
from tocsin.cli.delivery_choice import Choice
from tocsin.cli.flags import FORMATS, Output, flag
from tocsin.cli.following import Connectivity
from tocsin.cli.misuse import EPILOG
from tocsin.cli.screen import Screen
from tocsin.cli.session import Session
from tocsin.cli.tables import cut
from tocsin.cli.taking import takes
from tocsin.v1 import notifications_pb2 as pb
from tocsin.values import to_datetime

if TYPE_CHECKING:  # gRPC is loaded by the first call, not by --help
    from tocsin.client import Client

_KNOWN_MAX = 100_000  # deliveries whose last word is remembered
_OVERLAP = timedelta(seconds=10)  # clocks differ a little


@group.command("watch", epilog=EPILOG)
@takes
def watch(
    session: Session,
    choice: Choice,
    output: Output,
    count: Annotated[
        int | None,
        flag("-n", "TOCSIN_COUNT", "end after so many changes", "int32", also=("--count",), min=1),
    ] = None,
) -> None:
    """Prints deliveries as they change, through restarts of the server.

    Changes that come faster than they are read are told as one. Each change is one line: of text (cut to the
    terminal), of json, of json-raw (a response with this one delivery), or the delivery's ID. After a break, what
    changed meanwhile is looked up: deliveries that are new, and those that were printed before.
    """
    format = output.one_of(session, *FORMATS)
    wanted = choice.criteria()
    session.reach()
    known = Connectivity(session.screen)
    memory = Memory()
    printed, owed = 0, False
    with session.client.watch_deliveries(on_disconnect=known.lost, **wanted) as messages:
        for message in messages:
            known.saw(messages.connections)
            begins = not message.deliveries
            owed = owed or begins
            if owed and (missed := _missed(session.client, wanted, memory)) is not None:
                owed, found = False, [*missed, *message.deliveries]
            else:
                found = list(message.deliveries)
            news = [delivery for delivery in found if memory.is_news(delivery)]
            if begins and messages.connections == 1:
                session.screen.note("Watching")  # and what stood before is no change
                continue
            for delivery in news[: None if count is None else count - printed]:
                _show(session.screen, delivery, format)
                printed += 1
            if printed == count:
                return


class Memory:
    """What was said last of each delivery, so that nothing is said twice, and where to look after a break."""

    def __init__(self) -> None:
        self.since = datetime.now(UTC)
        self._last: dict[str, tuple[int, int, datetime | None]] = {}

    def is_news(self, delivery: pb.Delivery) -> bool:
        """Tell whether a delivery stands otherwise than it did when it was told last; takes note of it."""
        due = to_datetime(delivery.next_attempt_at) if delivery.HasField("next_attempt_at") else None
        state = (delivery.state, delivery.attempt_count, due)
        if self._last.pop(delivery.id, None) == state:
            self._last[delivery.id] = state
            return False
        self._last[delivery.id] = state
        if len(self._last) > _KNOWN_MAX:
            del self._last[next(iter(self._last))]
        self.since = min(self.since, to_datetime(delivery.create_time))
        return True


def _missed(client: Client, wanted: dict[str, Any], memory: Memory) -> list[pb.Delivery] | None:
    """Answer what may have changed before a connection, the oldest first; None where the server is away again."""
    try:
        found = list(client.list_deliveries(since=memory.since - _OVERLAP, page_size=1000, **wanted))
    except (tocsin.Unavailable, tocsin.DeadlineExceeded):
        return None
    return found[::-1]


def _show(screen: Screen, delivery: pb.Delivery, format: str) -> None:
    if format == "json":
        screen.line(rendering.json_text(rendering.plain(delivery), indent=None))
    elif format == "json-raw":
        screen.line(rendering.raw_text(pb.WatchDeliveriesResponse(deliveries=[delivery]), indent=None))
    elif format == "id":
        screen.line(delivery.id)
    else:
        line, state = delivery_records.change(delivery), delivery_records.state(delivery)
        start = len(delivery.id) + 2
        colour = delivery_records.COLOURS.get(state)
        spans = [(start, start + len(state), colour)] if colour else []
        screen.line(line if screen.width is None else cut(line, screen.width), *spans)
    screen.flush()
