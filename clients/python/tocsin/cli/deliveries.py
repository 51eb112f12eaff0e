"""`tocsin delivery`: what became of each message, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import typer

from tocsin import deliveries as requests
from tocsin.cli import delivery_records, printing, rendering
from tocsin.cli.confirmation import confirm, yes_flag
from tocsin.cli.delivery_choice import Choice, Routed
from tocsin.cli.delivery_records import DELIVERIES
from tocsin.cli.escaping import escaped
from tocsin.cli.flags import FORMATS, CountOutput, Output, flag
from tocsin.cli.misuse import EPILOG
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.v1 import notifications_pb2 as pb

_FIRST = 100
_PAGE_MAX = 1000
_RECOVERABLE = ("exhausted", "cancelled", "silenced")
_COUNTED_MAX = 10_000

group = typer.Typer(help="Deliveries: what became of each message to a receiver", epilog=EPILOG, rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="ID", help="the delivery's ID", show_default=False)]


@group.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@group.command("list", epilog=EPILOG)
@takes
def list_deliveries(
    session: Session,
    choice: Choice,
    routed: Routed,
    output: Output,
    count: Annotated[
        int, flag("-n", "TOCSIN_DELIVERY_COUNT", "so many of the newest", "int32", also=("--count",), min=1)
    ] = _FIRST,
    every: Annotated[bool, flag("--all", "TOCSIN_DELIVERY_ALL", "all of them (else the newest 100)", None)] = False,
) -> None:
    """List deliveries, the newest first: state, what each tells, the receiver's last answer, and why it ended.

    Criteria are all to be met, each by one of its values. --error and --status are about the newest attempt.
    """
    format = output.one_of(session, *FORMATS)
    since, until = routed.window(session.now())
    request = requests.deliveries_request(since=since, until=until, **choice.criteria())
    wanted = None if every else count
    with session.screen.step("Listing deliveries", "List deliveries"):
        everything = pb.ListDeliveriesResponse(deliveries=islice(_walk(session, request, wanted), wanted))
    more = len(everything.deliveries) == wanted and bool(request.page_token)
    found = everything.deliveries
    if printing.listed(session.screen, format, everything, found, lambda one: one.id):
        return
    printing.rows(session.screen, "deliveries", DELIVERIES, [delivery_records.cells(one) for one in found])
    if more:
        session.screen.note(f"These are the newest {len(found)}: there may be more, which -n or --all shows.")


def _walk(session: Session, request: pb.ListDeliveriesRequest, wanted: int | None) -> Iterator[pb.Delivery]:
    """Go through deliveries; the request is left with the token of what comes next, if there is more."""
    request.page_size = min(wanted or _PAGE_MAX, _PAGE_MAX)
    while True:
        page = session.client.notifications.ListDeliveries(request)
        request.page_token = page.next_page_token
        yield from page.deliveries
        if not page.next_page_token:
            return


@group.command("get", epilog=EPILOG)
@takes
def get(session: Session, id: Id, output: Output) -> None:
    """Show a delivery with every attempt: when, how long, what the receiver answered, what went wrong."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Fetching delivery", "Fetched delivery"):
        response = session.client.notifications.GetDelivery(pb.GetDeliveryRequest(id=id))
    if not printing.shown(session.screen, format, response, response.delivery, id):
        for line in delivery_records.record(response.delivery, session.screen.width):
            session.screen.line(line)


@group.command("retry", epilog=EPILOG)
@takes
def retry(session: Session, id: Id, output: Output) -> None:
    """Try a delivery as soon as its receiver may be sent anything. One that had ended begins anew, under its ID."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Retrying delivery", "Delivery is due"):
        response = session.client.notifications.RetryDelivery(pb.RetryDeliveryRequest(id=id))
    if not printing.shown(session.screen, format, response, response.delivery, id):
        session.screen.line(f"{escaped(id)} is {delivery_records.state(response.delivery)}")


@group.command("cancel", epilog=EPILOG)
@takes
def cancel(session: Session, id: Id, output: Output) -> None:
    """Cancel a delivery that waits; `retry` has it begin anew."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Cancelling delivery", "Cancelled delivery"):
        response = session.client.notifications.CancelDelivery(pb.CancelDeliveryRequest(id=id))
    if not printing.shown(session.screen, format, response, response.delivery, id):
        session.screen.line(f"{escaped(id)} is {delivery_records.state(response.delivery)}")


@group.command("recover", epilog=EPILOG)
@takes
def recover(
    session: Session,
    routed: Routed,
    output: CountOutput,
    configuration: Annotated[
        str, typer.Argument(metavar="CONFIGURATION", help="ID of the receiver's configuration", show_default=False)
    ],
    yes: Annotated[bool, yes_flag("TOCSIN_DELIVERY_RECOVER_YES")] = False,
) -> None:
    """Have deliveries to one receiver that were given up, cancelled or silenced begin anew. It asks before.

    Those that were routed in a window of --since and --until, or all of them.
    """
    format = output.one_of(session, "text", "json", "json-raw")
    since, until = routed.window(session.now())
    question = ""
    if not yes and session.screen.asks:
        counts = _counts(session, requests.deliveries_request(configuration_id=configuration, since=since, until=until))
        question = f"Are you sure you want to send again what was {counts}?"
    confirm(session.screen, yes, question, "nothing was recovered")
    with session.screen.step("Recovering deliveries", "Recovered deliveries"):
        count = session.client.recover_deliveries(configuration, since=since, until=until)
    if format == "json-raw":
        session.screen.line(rendering.raw_text(pb.RecoverDeliveriesResponse(recovered_count=count)))
    elif format == "json":
        session.screen.line(rendering.json_text({"recovered_count": count}))
    else:
        session.screen.line(f"Recovered {count} deliver{'y' if count == 1 else 'ies'}")


def _counts(session: Session, request: pb.ListDeliveriesRequest) -> str:
    """Say how many deliveries a recovery means, by what became of them; tests are not recovered."""
    session.client.get_configuration(request.configuration_id)  # one that is not there is said now
    request.states.extend(pb.DeliveryState.Value(f"DELIVERY_STATE_{name.upper()}") for name in _RECOVERABLE)
    found = dict.fromkeys(_RECOVERABLE, 0)
    for one in islice(_walk(session, request, None), _COUNTED_MAX):
        found[delivery_records.state(one).lower()] += not one.HasField("test")
    many = "at least " if sum(found.values()) >= _COUNTED_MAX else ""
    given_up, cancelled, silenced = (found[name] for name in _RECOVERABLE)
    return f"given up ({many}{given_up}), cancelled ({many}{cancelled}) or silenced ({many}{silenced})"


@group.command("stats", epilog=EPILOG)
@takes
def stats(
    session: Session,
    output: CountOutput,
    all_accounts: Annotated[
        bool, flag("--all-accounts", "TOCSIN_DELIVERY_ALL_ACCOUNTS", "of every account (admin only)", None)
    ] = False,
) -> None:
    """Count what became of all deliveries that were ever made: routed is the sum of the others."""
    format = output.one_of(session, "text", "json", "json-raw")
    request = pb.GetDeliveryStatisticsRequest(all_accounts=all_accounts)
    with session.screen.step("Counting deliveries", "Counted deliveries"):
        response = session.client.notifications.GetDeliveryStatistics(request)
    if format == "json-raw":
        session.screen.line(rendering.raw_text(response))
        return
    counts = {name: getattr(response, name) for name in response.DESCRIPTOR.fields_by_name}
    if format == "json":
        session.screen.line(rendering.json_text(counts))
        return
    for name, count in counts.items():
        session.screen.line(f"{name:<9}  {count}")
