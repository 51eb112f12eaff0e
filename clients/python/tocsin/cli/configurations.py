"""`tocsin endpoint configuration`: receivers, how they are reached, what they are told, and how they do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tocsin import receivers
from tocsin.cli import health, printing, rendering, testing
from tocsin.cli.confirmation import confirm, yes_flag
from tocsin.cli.connections import FIELDS, Receiver
from tocsin.cli.escaping import escaped
from tocsin.cli.flags import FORMATS, CountOutput, Output, flag
from tocsin.cli.misuse import EPILOG, Misuse
from tocsin.cli.printing import Columns
from tocsin.cli.selection import Selection, selector_text
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.events import fresh_request_id
from tocsin.paging import pages
from tocsin.v1 import notifications_pb2 as pb

_TITLES = ("ID", "NAME", "KIND", "STATE", "SELECTORS", "WHY")
_ID, _NAME, _KIND, _STATE, _SELECTORS, _WHY = range(len(_TITLES))
CONFIGURATIONS = Columns(
    _TITLES,
    (
        ((_ID, _NAME, _KIND, _STATE, _SELECTORS, _WHY),),
        ((_ID, _NAME, _KIND, _STATE), (_SELECTORS, _WHY)),
        ((_ID, _KIND, _STATE), (_NAME, _SELECTORS), (_WHY,)),
    ),
    {_NAME: 12, _SELECTORS: 20, _WHY: 20},
    _STATE,
    health.COLOURS,
)

group = typer.Typer(
    help="Receivers: how each is reached, what it is told, and how it does", epilog=EPILOG, rich_markup_mode=None
)

Id = Annotated[str, typer.Argument(metavar="ID", help="the configuration's ID", show_default=False)]


@group.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@group.command("list", epilog=EPILOG)
@takes
def list_configurations(
    session: Session,
    output: Output,
    kind: Annotated[str, flag("--kind", "TOCSIN_ENDPOINT_KIND", "only this kind of endpoint", "KIND")] = "",
) -> None:
    """List the receivers of the account, the state of each, and why it is in it.

    HEALTHY: it is sent to. THROTTLED: it asked to wait. FAILING: one delivery at a time is tried. DISABLED: nothing is
    sent until it passes a test. OFF: it is switched off.
    """
    format = output.one_of(session, *FORMATS)
    everything = pb.ListEndpointConfigurationsResponse()
    request = pb.ListEndpointConfigurationsRequest(kind=kind)
    with session.screen.step("Listing configurations", "List configurations"):
        for page in pages(session.client.notifications.ListEndpointConfigurations, request):
            everything.configurations.extend(page.configurations)
    found = everything.configurations
    if not printing.listed(session.screen, format, everything, found, lambda one: one.id):
        printing.rows(session.screen, "configurations", CONFIGURATIONS, [_cells(one) for one in found])


def _cells(one: pb.EndpointConfiguration) -> list[str]:
    selectors = " ".join(selector_text(selector) for selector in one.selectors)
    return [one.id, one.name, one.kind, health.word(one), selectors, health.why(one.health)]


@group.command("get", epilog=EPILOG)
@takes
def get(session: Session, id: Id, output: Output) -> None:
    """Show a receiver with everything that is set and how it does; secrets are masked."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Fetching configuration", "Fetched configuration"):
        response = session.client.notifications.GetEndpointConfiguration(pb.GetEndpointConfigurationRequest(id=id))
    _show(session, format, response, response.configuration)
    if why := health.why(response.configuration.health):
        session.screen.note(f"{health.word(response.configuration)}: {why}")


@group.command("create", epilog=EPILOG)
@takes
def create(
    session: Session,
    receiver: Receiver,
    selection: Selection,
    output: Output,
    name: Annotated[str, typer.Argument(metavar="NAME", help="its name for people", show_default=False)] = "",
    disabled: Annotated[bool, flag("--disabled", "TOCSIN_ENDPOINT_DISABLED", "create it switched off", None)] = False,
    request_id: Annotated[str, flag("--request-id", "TOCSIN_REQUEST_ID", "makes the call safe to repeat", "ID")] = "",
) -> None:
    """Create a receiver: a webhook (--url), mail (--to, --from, --smtp), or whatever a file describes.

    It is told about events that match any --preset or --selector and are appended after it. A webhook without --secret
    gets one, which is shown only now.
    """
    format = output.one_of(session, *FORMATS)
    made = receiver.configuration(session, name, selection)
    if not made.name:
        raise Misuse("NAME", "is missing: give a name for people")
    if disabled:
        made.enabled = False
    fresh = ""
    if made.HasField("webhook") and not made.webhook.secret:
        made.webhook.secret = fresh = receivers.new_webhook_secret()
    request = pb.CreateEndpointConfigurationRequest(configuration=made, request_id=request_id or fresh_request_id())
    with session.screen.step("Creating configuration", "Created configuration"):
        response = session.client.notifications.CreateEndpointConfiguration(request)
    if fresh:
        response.configuration.webhook.secret = fresh
    _show(session, format, response, response.configuration)
    if fresh and format == "id":
        session.screen.tell(f"Its secret, which is not shown again: {fresh}")


@group.command("update", epilog=EPILOG)
@takes
def update(
    session: Session,
    id: Id,
    receiver: Receiver,
    selection: Selection,
    output: Output,
    name: Annotated[str, flag("--name", "TOCSIN_ENDPOINT_NAME", "its name for people")] = "",
) -> None:
    """Change a receiver: the fields that a file has, and what flags say over them; all others stay.

    Presets and selectors replace those that are there. A new --secret signs beside the one before for a day.
    """
    format = output.one_of(session, *FORMATS)
    made, paths = receiver.read()
    if made.id not in ("", id):
        raise Misuse("--file", f"it is about {made.id!r}, not about {id!r}")
    if receiver.connects and made.WhichOneof("connection") is None:
        made.MergeFrom(_connection(session, id))
    paths += receiver.put_onto(made, name, selection.selectors(session))
    if not paths:
        raise Misuse("update", f"give what is to change: flags, or -f FILE with any of {', '.join(FIELDS)}")
    made.id = id
    with session.screen.step("Updating configuration", "Updated configuration"):
        request = receivers.update_request(made, list(dict.fromkeys(paths)))
        response = session.client.notifications.UpdateEndpointConfiguration(request)
    _show(session, format, response, response.configuration)


def _connection(session: Session, id: str) -> pb.EndpointConfiguration:
    """Answer how a receiver is reached as it is stored: flags change a part of it, masked secrets stay."""
    stored = session.client.get_configuration(id)
    kind = stored.WhichOneof("connection")
    found = pb.EndpointConfiguration()
    if kind is not None:
        getattr(found, kind).CopyFrom(getattr(stored, kind))
    return found


@group.command("enable", epilog=EPILOG)
@takes
def enable(session: Session, id: Id, output: Output) -> None:
    """Switch a receiver on. What waits for it is sent."""
    _switch(session, id, True, output.one_of(session, *FORMATS))


@group.command("disable", epilog=EPILOG)
@takes
def disable(session: Session, id: Id, output: Output) -> None:
    """Switch a receiver off. What waits for it, and what comes, is held."""
    _switch(session, id, False, output.one_of(session, *FORMATS))


def _switch(session: Session, id: str, enabled: bool, format: str) -> None:
    doing, done = ("Enabling", "Enabled") if enabled else ("Disabling", "Disabled")
    request = receivers.update_request(pb.EndpointConfiguration(id=id, enabled=enabled), ["enabled"])
    with session.screen.step(f"{doing} configuration", f"{done} configuration"):
        response = session.client.notifications.UpdateEndpointConfiguration(request)
    found = response.configuration
    if not printing.shown(session.screen, format, response, found, found.id):
        session.screen.line(f"{escaped(found.name)} is {health.word(found)}")


@group.command("delete", epilog=EPILOG)
@takes
def delete(
    session: Session,
    id: Id,
    output: Output,
    yes: Annotated[bool, yes_flag("TOCSIN_ENDPOINT_DELETE_YES")] = False,
) -> None:
    """Delete a receiver; what waits for it is cancelled. It asks before, and prints the ID."""
    format = output.one_of(session, *FORMATS)
    if not yes and session.screen.asks:
        name = session.client.get_configuration(id).name
        question = f"Are you sure you want to delete {name} ({id})? What waits for it is cancelled."
    else:
        question = ""
    confirm(session.screen, yes, question, "nothing was deleted")
    with session.screen.step("Deleting configuration", "Deleted configuration"):
        request = pb.DeleteEndpointConfigurationRequest(id=id)
        response = session.client.notifications.DeleteEndpointConfiguration(request)
    if not printing.shown(session.screen, format, response, response, id):
        session.screen.line(escaped(id))


@group.command("test", epilog=EPILOG)
@takes
def test(session: Session, id: Id, output: CountOutput) -> None:
    """Send a test message through a receiver, and show the real attempt. It ends with 1 unless it was taken.

    One that is disabled is enabled again by a test that passes. (`tocsin endpoint test` tests what is not stored.)
    """
    format = output.one_of(session, "text", "json", "json-raw")
    testing.run(session, id, format)


def _show(session: Session, format: str, response: Any, found: pb.EndpointConfiguration) -> None:
    if not printing.shown(session.screen, format, response, found, found.id):
        session.screen.line(rendering.yaml_text(rendering.plain(found)).rstrip())
