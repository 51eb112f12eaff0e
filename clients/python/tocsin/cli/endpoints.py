"""`tocsin endpoint`: kinds of receivers with their switches, and the quick selections."""

from __future__ import annotations

from typing import Annotated

import typer

from tocsin import receivers
from tocsin.cli import configurations, printing, testing
from tocsin.cli.confirmation import confirm, yes_flag
from tocsin.cli.connections import Receiver
from tocsin.cli.flags import FORMATS, CountOutput, Output
from tocsin.cli.misuse import EPILOG
from tocsin.cli.printing import Columns
from tocsin.cli.selection import Selection, selector_text
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.v1 import notifications_pb2 as pb

KINDS = Columns(
    ("KIND", "ENABLED", "NEEDS", "DESCRIPTION"),
    (((0, 1, 2, 3),), ((0, 1), (2,), (3,))),
    {2: 12, 3: 24},
    1,
    {"no": "red"},
)
PRESETS = Columns(
    ("ID", "SELECTOR", "TITLE", "FOR"), (((0, 1, 2, 3),), ((0, 1), (2, 3)), ((0,), (1,), (2,), (3,))), {1: 20, 2: 20}
)

group = typer.Typer(
    help="Receivers of notifications: kinds, configurations, quick selections", epilog=EPILOG, rich_markup_mode=None
)
group.add_typer(configurations.group, name="configuration")

Kind = Annotated[
    str, typer.Argument(metavar="KIND", help='the kind of endpoint, such as "webhook"', show_default=False)
]


@group.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@group.command("list", epilog=EPILOG)
@takes
def list_endpoints(session: Session, output: Output) -> None:
    """List the kinds of endpoints, whether each is on, and what its connection needs."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Listing endpoints", "List endpoints"):
        response = session.client.notifications.ListEndpoints(pb.ListEndpointsRequest())
    if not printing.listed(session.screen, format, response, response.endpoints, lambda one: one.kind):
        rows = [
            [one.kind, "yes" if one.enabled else "no", ", ".join(one.required_fields), one.description]
            for one in response.endpoints
        ]
        printing.rows(session.screen, "endpoints", KINDS, rows)


@group.command("enable", epilog=EPILOG)
@takes
def enable(session: Session, kind: Kind, output: Output) -> None:
    """Switch a kind of endpoint on, for all accounts (admin only). What waits and is not too old is sent."""
    _switch(session, kind, True, output.one_of(session, *FORMATS))


@group.command("disable", epilog=EPILOG)
@takes
def disable(
    session: Session,
    kind: Kind,
    output: Output,
    yes: Annotated[bool, yes_flag("TOCSIN_ENDPOINT_DISABLE_YES")] = False,
) -> None:
    """Switch a kind of endpoint off, for all accounts (admin only). What waits for it is held. It asks before."""
    question = f"Are you sure that nothing is to be sent by {kind}, for any account?"
    confirm(session.screen, yes, question, "nothing was switched off")
    _switch(session, kind, False, output.one_of(session, *FORMATS))


def _switch(session: Session, kind: str, enabled: bool, format: str) -> None:
    doing, done = ("Enabling", "Enabled") if enabled else ("Disabling", "Disabled")
    with session.screen.step(f"{doing} {kind}", f"{done} {kind}"):
        response = session.client.notifications.UpdateEndpoint(receivers.switch_request(kind, enabled))
    if not printing.shown(session.screen, format, response, response.endpoint, kind):
        session.screen.line(f"{response.endpoint.kind} is {'on' if response.endpoint.enabled else 'off'}")


@group.command("test", epilog=EPILOG)
@takes
def test(session: Session, receiver: Receiver, output: CountOutput) -> None:
    """Send a test message through a receiver that is not stored, and show the real attempt.

    It ends with 1 unless the message was taken. (`tocsin endpoint configuration test` tests a stored one.)
    """
    format = output.one_of(session, "text", "json", "json-raw")
    made = receiver.configuration(session, "test", Selection())
    if made.HasField("webhook") and not made.webhook.secret:
        made.webhook.secret = receivers.new_webhook_secret()
    testing.run(session, made, format)


@group.command("presets", epilog=EPILOG)
@takes
def presets(session: Session, output: Output) -> None:
    """List the quick selections that --preset takes."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Listing presets", "List presets"):
        response = session.client.notifications.ListSelectorPresets(pb.ListSelectorPresetsRequest())
    if not printing.listed(session.screen, format, response, response.presets, lambda one: one.id):
        rows = [
            [one.id, selector_text(one.selector), one.title, "admin" if one.admin_only else "all"]
            for one in response.presets
        ]
        printing.rows(session.screen, "presets", PRESETS, rows)
