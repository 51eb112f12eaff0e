"""`tocsin event tail`: follow the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tocsin.cli import following
from tocsin.cli.events import group
from tocsin.cli.flags import FORMATS, Count, Criteria, Output, Place, flag
from tocsin.cli.misuse import EPILOG
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.v1.event_log_pb2 import Event, SubscribeResponse

if TYPE_CHECKING:  # gRPC is loaded by the first call, not by --help
    from tocsin.subscription import Subscription


@group.command("tail", epilog=EPILOG)
@takes
def tail(
    session: Session,
    place: Place,
    criteria: Criteria,
    output: Output,
    count: Count = None,
    once: Annotated[
        bool, flag("--no-follow", "TOCSIN_EVENT_NO_FOLLOW", "end when everything that stands is printed", None)
    ] = False,
) -> None:
    """Follows the log: prints events as they are appended, through restarts of the server.

    The order is that of storing. Each event is one line: of text (cut to the terminal), of json, of json-raw (a
    response with this one event), or its id. At its end it says where to go on with --after.
    """
    format = output.one_of(session, *FORMATS)
    start = place.start(session.now())
    wanted = criteria.filter()
    session.reach()
    known = following.Connectivity(session.screen)
    with session.client.subscribe(
        wanted, start=start, stop_when_caught_up=once, on_disconnect=known.lost
    ) as subscription:
        try:
            _print(session, subscription, known, format, count)
        finally:
            # A place that the server never confirmed is no place to go on from.
            if subscription.connections and (after := subscription.after) is not None:
                session.screen.note(f"Go on with --after {after.position}@{after.log_id}", "dim")


def _print(
    session: Session, subscription: Subscription, known: following.Connectivity, format: str, count: int | None
) -> None:
    printed = 0
    for item in subscription.items():
        known.saw(subscription.connections)
        if isinstance(item, Event):
            batch = SubscribeResponse.Batch(events=[item], position=item.position)
            following.show(session.screen, item, format, SubscribeResponse(batch=batch))
            printed += 1
            if printed == count:
                return
