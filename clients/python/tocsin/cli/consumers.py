"""`tocsin consumer`: durable places in the log that many clients share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tocsin.cli import criteria, following, printing, rendering
from tocsin.cli.escaping import escaped
from tocsin.cli.flags import FORMATS, Count, Criteria, Output, Place, flag
from tocsin.cli.misuse import EPILOG, Misuse
from tocsin.cli.printing import Columns
from tocsin.cli.session import Session
from tocsin.cli.tables import Form
from tocsin.cli.taking import takes
from tocsin.consumers import Delivery, create_request, seek_request, update_request
from tocsin.paging import pages
from tocsin.v1 import event_log_pb2 as pb

_SETTLEMENTS = ("ack", "retry", "park", "skip")

# How the columns of a list are set where the terminal is narrow. Names and ids are copied from there and stay whole.
_CONSUMER_TITLES = ("NAME", "FILTER", "LEASE", "MAX RETRIES", "MAX IN FLIGHT")
_NAME, _FILTER, _LEASE, _RETRIES, _IN_FLIGHT = range(len(_CONSUMER_TITLES))
_CONSUMER_FORMS: tuple[Form, ...] = (
    ((_NAME, _FILTER, _LEASE, _RETRIES, _IN_FLIGHT),),
    ((_NAME, _LEASE, _RETRIES, _IN_FLIGHT), (_FILTER,)),
    ((_NAME,), (_LEASE, _RETRIES, _IN_FLIGHT), (_FILTER,)),
)
CONSUMERS = Columns(_CONSUMER_TITLES, _CONSUMER_FORMS, {_FILTER: 24})
_PARKED_TITLES = ("ID", "EVENT TYPE", "ATTEMPTS", "PARKED", "PARKED", "REASON")
_ID, _TYPE, _ATTEMPTS, _FINE, _COARSE, _REASON = range(len(_PARKED_TITLES))
_PARKED_FORMS: tuple[Form, ...] = (
    ((_ID, _TYPE, _ATTEMPTS, _FINE, _REASON),),
    ((_ID, _TYPE, _ATTEMPTS, _COARSE, _REASON),),
    ((_ID, _TYPE, _ATTEMPTS, _COARSE), (_REASON,)),
    ((_ID, _TYPE, _ATTEMPTS), (_REASON,)),
    ((_ID,), (_TYPE, _ATTEMPTS), (_REASON,)),
)
PARKED = Columns(_PARKED_TITLES, _PARKED_FORMS, {_TYPE: 12, _REASON: 16})

group = typer.Typer(
    help="Durable consumers: named places in the log, shared by many clients", epilog=EPILOG, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="the consumer's name", show_default=False)]
Lease = Annotated[str, flag("--lease", "TOCSIN_CONSUMER_LEASE", "time to settle an event, 1s to 10m (new: 30s)")]
Delay = Annotated[str, flag("--retry-delay", "TOCSIN_CONSUMER_RETRY_DELAY", "wait before a retry, 0s to 10m (new: 1s)")]
Retries = Annotated[
    int | None,
    flag("--max-retries", "TOCSIN_CONSUMER_MAX_RETRIES", "failures before parking (new: 10)", "int32", min=0),
]
InFlight = Annotated[
    int | None,
    flag("--max-in-flight", "TOCSIN_CONSUMER_MAX_IN_FLIGHT", "most events out at once (new: 100)", "int32", min=1),
]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="IDs of parked events", show_default=False)]
Positions = Annotated[
    list[int] | None, flag("--position", "TOCSIN_CONSUMER_POSITION", "position of a parked event", "int64")
]
Every = Annotated[bool, flag("--all", "TOCSIN_CONSUMER_ALL", "every parked event", None)]


@group.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def _seconds(where: str, text: str) -> float | None:
    return criteria.span(where, text).total_seconds() if text else None


@group.command("create", epilog=EPILOG)
@takes
def create(
    session: Session,
    name: Name,
    place: Place,
    chosen: Criteria,
    output: Output,
    lease: Lease = "",
    max_retries: Retries = None,
    max_in_flight: InFlight = None,
    retry_delay: Delay = "",
    request_id: Annotated[str, flag("--request-id", "TOCSIN_REQUEST_ID", "makes the call safe to repeat", "ID")] = "",
) -> None:
    """Create a consumer. Its filter is fixed; it starts with new events unless it is told where."""
    format = output.one_of(session, *FORMATS)
    lease_s, delay_s = _seconds("--lease", lease), _seconds("--retry-delay", retry_delay)
    start = place.start(session.now())
    request = create_request(
        name, chosen.filter(), start, lease_s, max_retries, max_in_flight, delay_s, request_id or None
    )
    with session.screen.step("Creating consumer", "Created consumer"):
        response = session.client.event_log.CreateConsumer(request)
    _show(session, response, response.consumer, None, format)


@group.command("get", epilog=EPILOG)
@takes
def get(session: Session, name: Name, output: Output) -> None:
    """Show a consumer and how far it is: lag, in flight, waiting, parked."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Fetching consumer", "Fetched consumer"):
        response = session.client.get_consumer(name)
    _show(session, response, response.consumer, response.status, format)


@group.command("list", epilog=EPILOG)
@takes
def list_consumers(session: Session, output: Output) -> None:
    """List the consumers of the account by name."""
    format = output.one_of(session, *FORMATS)
    everything = pb.ListConsumersResponse()
    with session.screen.step("Listing consumers", "List consumers"):
        for page in pages(session.client.event_log.ListConsumers, pb.ListConsumersRequest()):
            everything.consumers.extend(page.consumers)
    found = everything.consumers
    if not printing.listed(session.screen, format, everything, found, lambda one: one.name):
        printing.rows(session.screen, "consumers", CONSUMERS, [_cells(one) for one in found])


@group.command("update", epilog=EPILOG)
@takes
def update(
    session: Session,
    name: Name,
    output: Output,
    lease: Lease = "",
    max_retries: Retries = None,
    max_in_flight: InFlight = None,
    retry_delay: Delay = "",
) -> None:
    """Change a consumer; open streams go on with the new settings."""
    format = output.one_of(session, *FORMATS)
    lease_s, delay_s = _seconds("--lease", lease), _seconds("--retry-delay", retry_delay)
    if lease_s is None and delay_s is None and max_retries is None and max_in_flight is None:
        raise Misuse("update", "give --lease, --max-retries, --max-in-flight or --retry-delay")
    with session.screen.step("Updating consumer", "Updated consumer"):
        request = update_request(name, lease_s, max_retries, max_in_flight, delay_s)
        response = session.client.event_log.UpdateConsumer(request)
    _show(session, response, response.consumer, None, format)


@group.command("seek", epilog=EPILOG)
@takes
def seek(session: Session, name: Name, place: Place) -> None:
    """Move a consumer to another place, also while clients share it. What is parked stays parked."""
    start = place.start(session.now())
    if start == "new":
        raise Misuse("seek", "give --after, --since or --beginning")
    with session.screen.step("Moving consumer", "Moved consumer"):
        position = session.client.event_log.SeekConsumer(seek_request(name, start)).position
    session.screen.line(f"Events after position {position} will come")


@group.command("delete", epilog=EPILOG)
@takes
def delete(session: Session, name: Name) -> None:
    """Delete a consumer with all that it knows, parked events included; the events themselves stay."""
    with session.screen.step("Deleting consumer", "Deleted consumer"):
        session.client.delete_consumer(name)
    session.screen.line(escaped(name))


@group.command("consume", epilog=EPILOG)
@takes
def consume(
    session: Session,
    name: Name,
    output: Output,
    count: Count = None,
    settle: Annotated[
        str, flag("--settle", "TOCSIN_CONSUMER_SETTLE", "what becomes of a printed event: ack, retry, park, skip")
    ] = "ack",
    reason: Annotated[str, flag("--reason", "TOCSIN_CONSUMER_REASON", "why, kept when an event is parked")] = "",
) -> None:
    """Share a consumer: prints events as they come, each acknowledged once it is printed.

    Each event is one line: of text (cut to the terminal), of json, of json-raw (a response with this one delivery),
    or its id.
    """
    format = output.one_of(session, *FORMATS)
    if settle not in _SETTLEMENTS:
        raise Misuse("--settle", f"{settle!r} is none of {', '.join(_SETTLEMENTS)}")
    session.reach()
    known = following.Connectivity(session.screen)
    with session.client.consume(name, max_in_flight=min(count or 0, 1000), on_disconnect=known.lost) as deliveries:
        for number, delivery in enumerate(deliveries, 1):
            known.saw(deliveries.connections)
            following.show(session.screen, delivery.event, format, _response(delivery))
            _settle(delivery, settle, reason)
            if number == count:
                break


def _response(delivery: Delivery) -> pb.ConsumeResponse:
    one = pb.ConsumeResponse.Delivery(event=delivery.event, lease_id=delivery.lease_id, attempt=delivery.attempt)
    return pb.ConsumeResponse(batch=pb.ConsumeResponse.Batch(deliveries=[one]))


def _settle(delivery: Delivery, settle: str, reason: str) -> None:
    if settle == "ack":
        delivery.ack()
    else:
        delivery.nack(settle, reason)


@group.command("parked", epilog=EPILOG)
@takes
def parked(session: Session, name: Name, output: Output) -> None:
    """List the parked events of a consumer, with the reason and the number of tries."""
    format = output.one_of(session, *FORMATS)
    everything = pb.ListParkedResponse()
    with session.screen.step("Listing parked events", "List parked events"):
        for page in pages(session.client.event_log.ListParked, pb.ListParkedRequest(name=name)):
            everything.parked.extend(page.parked)
    found = everything.parked
    if format == "json-raw":
        session.screen.line(rendering.raw_text(everything))
    elif format == "json":
        session.screen.line(rendering.json_text([_parked(one) for one in found]))
    elif format == "id":
        for one in found:
            session.screen.line(one.event_id)
    else:
        printing.rows(session.screen, "parked events", PARKED, [_parked_cells(one) for one in found])


@group.command("replay", epilog=EPILOG)
@takes
def replay(session: Session, name: Name, ids: Ids = None, position: Positions = None, every: Every = False) -> None:
    """Hand out parked events anew, as if they had never been tried."""
    _named(ids, position, every)
    with session.screen.step("Replaying parked events", "Replayed parked events"):
        count = session.client.replay_parked(name, positions=position or [], event_ids=ids or [], all=every)
    session.screen.line(f"Replayed {count} event{'' if count == 1 else 's'}")


@group.command("purge", epilog=EPILOG)
@takes
def purge(session: Session, name: Name, ids: Ids = None, position: Positions = None, every: Every = False) -> None:
    """Forget parked events; the events themselves stay."""
    _named(ids, position, every)
    with session.screen.step("Purging parked events", "Purged parked events"):
        count = session.client.purge_parked(name, positions=position or [], event_ids=ids or [], all=every)
    session.screen.line(f"Purged {count} event{'' if count == 1 else 's'}")


def _named(ids: list[str] | None, positions: list[int] | None, every: bool) -> None:
    if bool(ids or positions) is every:
        raise Misuse("ID", "give IDs or --position, or else --all")


def _cells(consumer: pb.Consumer) -> list[str]:
    wanted = rendering.json_text(rendering.plain(consumer.filter), indent=None) if consumer.HasField("filter") else ""
    lease = f"{consumer.lease.ToMilliseconds() / 1000:g}s"
    return [consumer.name, wanted, lease, str(consumer.max_retries), str(consumer.max_in_flight)]


def _parked_cells(one: pb.ParkedEvent) -> list[str]:
    fine, coarse = rendering.time_text(one.park_time), rendering.short_time_text(one.park_time)
    return [one.event_id, one.event.type, str(one.attempts), fine, coarse, one.reason]


def _parked(one: pb.ParkedEvent) -> dict[str, Any]:
    found = rendering.plain(one)
    found["event"] = rendering.resource(one.event)
    return found


def _show(
    session: Session, response: Any, consumer: pb.Consumer, status: pb.ConsumerStatus | None, format: str
) -> None:
    if format == "json-raw":
        session.screen.line(rendering.raw_text(response))
        return
    if format == "id":
        session.screen.line(consumer.name)
        return
    found = rendering.plain(consumer)
    if status is not None:
        found["status"] = {"lag": status.lag, "in_flight": status.in_flight, "waiting": status.waiting} | {
            "parked": status.parked,
            "streams": status.streams,
            **rendering.plain(status),
        }
    session.screen.line(rendering.json_text(found) if format == "json" else rendering.yaml_text(found).rstrip())
