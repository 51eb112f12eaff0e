"""`tocsin event tail`: follow the log."""

from __future__ import annotations

from typing import Annotated

from tocsin.cli import following
from tocsin.cli.events import EPILOG, group
from tocsin.cli.flags import Count, Criteria, Output, Place, flag, takes
from tocsin.cli.session import Session
from tocsin.subscription import Subscription
from tocsin.v1.event_log_pb2 import Event


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

    The order is that of storing. Output formats are text (one line per event, cut to the terminal), json (one line
    per event) and id. At its end it says where to go on with --after.
    """
    format = output.one_of(*following.FORMATS)
    start = place.start(session.now())
    wanted = criteria.filter()
    session.client.info()  # a server that is not there is an error now, and waited for later
    known = following.Connectivity(session.screen)
    with session.client.subscribe(
        wanted, start=start, stop_when_caught_up=once, on_disconnect=known.lost
    ) as subscription:
        try:
            _print(session, subscription, known, format, count)
        finally:
            if (after := subscription.after) is not None:
                session.screen.note(f"Go on with --after {after.position}@{after.log_id}", "dim")


def _print(
    session: Session, subscription: Subscription, known: following.Connectivity, format: str, count: int | None
) -> None:
    printed = 0
    for item in subscription.items():
        known.saw(subscription.connections)
        if isinstance(item, Event):
            following.show(session.screen, item, format)
            printed += 1
            if printed == count:
                return
