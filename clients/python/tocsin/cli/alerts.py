"""`tocsin alert`: checks over the log that run on schedule, from their creation to their end."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tocsin import alerts as requests
from tocsin.cli import alert_records, printing, rendering
from tocsin.cli.alert_choice import Choice
from tocsin.cli.alert_drafts import Draft
from tocsin.cli.confirmation import confirm, yes_flag
from tocsin.cli.escaping import escaped
from tocsin.cli.flags import FORMATS, Output, flag
from tocsin.cli.misuse import EPILOG, Misuse
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.events import fresh_request_id
from tocsin.paging import pages
from tocsin.v1 import alerting_pb2 as pb

group = typer.Typer(
    help="Alerts: checks over the log on schedule, and who is told of what they find",
    epilog=EPILOG,
    rich_markup_mode=None,
)

Id = Annotated[str, typer.Argument(metavar="ALERT", help="the alert's ID", show_default=False)]
Instance = Annotated[
    str,
    typer.Argument(metavar="INSTANCE", help="only this instance; it need not be there yet", show_default=False),
]


@group.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@group.command("list", epilog=EPILOG)
@takes
def list_alerts(session: Session, choice: Choice, output: Output) -> None:
    """List the alerts of the account, by name: how each is, how often it runs, and what is muted.

    OK: it ran, nothing is active. ACTIVE: something is. ERROR: its newest run failed. PENDING: it has not run yet. OFF:
    it is switched off. Criteria are all to be met, each by one of its values.
    """
    format = output.one_of(session, *FORMATS)
    request = choice.request()
    everything = pb.FindAlertsResponse()
    with session.screen.step("Listing alerts", "List alerts"):
        for page in pages(session.client.alerting.FindAlerts, request):
            everything.alerts.extend(page.alerts)
            everything.total_size = page.total_size
    found = everything.alerts
    if not printing.listed(session.screen, format, everything, found, lambda one: one.id):
        printing.rows(session.screen, "alerts", alert_records.ALERTS, [alert_records.cells(one) for one in found])


@group.command("get", epilog=EPILOG)
@takes
def get(session: Session, id: Id, output: Output) -> None:
    """Show an alert with everything that is set; what is printed can be changed and given back to `update -f`."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Fetching alert", "Fetched alert"):
        response = session.client.alerting.GetAlert(pb.GetAlertRequest(id=id))
    _show(session, format, response, response.alert)
    if why := alert_records.why(response.alert):
        session.screen.note(f"Its newest run failed: {why}")


@group.command("create", epilog=EPILOG)
@takes
def create(
    session: Session,
    draft: Draft,
    output: Output,
    disabled: Annotated[bool, flag("--disabled", "TOCSIN_ALERT_DISABLED", "create it switched off", None)] = False,
    request_id: Annotated[str, flag("--request-id", "TOCSIN_REQUEST_ID", "makes the call safe to repeat", "ID")] = "",
) -> None:
    """Create an alert as a file describes it; its first run is at once. Flags stand over the file.

    It needs name, alert_type_id, consumer and the params of the type; `preview -f` tells before what it would do.
    """
    format = output.one_of(session, *FORMATS)
    made = draft.new()
    if disabled:
        made.enabled = False
    request = pb.CreateAlertRequest(alert=made, request_id=request_id or fresh_request_id())
    with session.screen.step("Creating alert", "Created alert"):
        response = session.client.alerting.CreateAlert(request)
    _show(session, format, response, response.alert)


@group.command("update", epilog=EPILOG)
@takes
def update(session: Session, id: Id, draft: Draft, output: Output) -> None:
    """Change an alert: the fields that a file has, and what flags say over them; all others stay.

    A field that is empty in the file is emptied. Type and consumer cannot change.
    """
    format = output.one_of(session, *FORMATS)
    made, changed = draft.change(id, session.client.get_alert)
    with session.screen.step("Updating alert", "Updated alert"):
        response = session.client.alerting.UpdateAlert(requests.update_request(made, changed))
    _show(session, format, response, response.alert)


@group.command("delete", epilog=EPILOG)
@takes
def delete(
    session: Session, id: Id, output: Output, yes: Annotated[bool, yes_flag("TOCSIN_ALERT_DELETE_YES")] = False
) -> None:
    """Delete an alert with its instances; deliveries that it has made go on. It asks before, and prints the ID."""
    format = output.one_of(session, *FORMATS)
    _ask(session, id, yes, "delete", "nothing was deleted")
    with session.screen.step("Deleting alert", "Deleted alert"):
        response = session.client.alerting.DeleteAlert(pb.DeleteAlertRequest(id=id))
    if not printing.shown(session.screen, format, response, response, id):
        session.screen.line(escaped(id))


@group.command("enable", epilog=EPILOG)
@takes
def enable(session: Session, id: Id, output: Output) -> None:
    """Switch an alert on: it runs at once and then on schedule, and remembers nothing from before."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Enabling alert", "Enabled alert"):
        response = session.client.alerting.EnableAlert(pb.EnableAlertRequest(id=id))
    _tell(session, format, response, response.alert, f"is {alert_records.word(response.alert)}")


@group.command("disable", epilog=EPILOG)
@takes
def disable(
    session: Session, id: Id, output: Output, yes: Annotated[bool, yes_flag("TOCSIN_ALERT_DISABLE_YES")] = False
) -> None:
    """Switch an alert off; its instances end, and nobody is told of that. It asks before."""
    format = output.one_of(session, *FORMATS)
    _ask(session, id, yes, "disable", "nothing was switched off")
    with session.screen.step("Disabling alert", "Disabled alert"):
        response = session.client.alerting.DisableAlert(pb.DisableAlertRequest(id=id))
    _tell(session, format, response, response.alert, "is OFF")


def _ask(session: Session, id: str, yes: bool, what: str, kept: str) -> None:
    question = ""
    if not yes and session.screen.asks:
        name = session.client.get_alert(id).name
        question = f"Are you sure you want to {what} {name} ({id})? Its instances end, and nobody is told."
    confirm(session.screen, yes, question, kept)


@group.command("mute", epilog=EPILOG)
@takes
def mute(session: Session, id: Id, output: Output, instance: Instance = "") -> None:
    """Have nobody told of any instance of an alert, or of one, until `unmute`. It runs on and remembers."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Muting", "Muted"):
        response: Any
        if instance:
            request = pb.MuteInstanceRequest(id=id, instance_id=instance)
            response = session.client.alerting.MuteInstance(request)
        else:
            response = session.client.alerting.MuteAll(pb.MuteAllRequest(id=id))
    _tell(session, format, response, response.alert, f"is muted for {instance}" if instance else "is muted")


@group.command("unmute", epilog=EPILOG)
@takes
def unmute(session: Session, id: Id, output: Output, instance: Instance = "") -> None:
    """End `mute`. What became active or changed its group meanwhile is told with the next run."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Unmuting", "Unmuted"):
        response: Any
        if instance:
            request = pb.UnmuteInstanceRequest(id=id, instance_id=instance)
            response = session.client.alerting.UnmuteInstance(request)
        else:
            response = session.client.alerting.UnmuteAll(pb.UnmuteAllRequest(id=id))
    found = response.alert
    _tell(session, format, response, found, f"is not muted for {instance}" if instance else "is not muted")
    if instance and found.mute_all:
        session.screen.note("The alert is muted as a whole: nobody is told until `unmute` without an instance.")
    elif not instance and found.muted_instance_ids:
        session.screen.note(f"Muted for themselves are still: {', '.join(found.muted_instance_ids)}")


@group.command("types", epilog=EPILOG)
@takes
def types(
    session: Session,
    output: Output,
    type: Annotated[
        str,
        typer.Argument(metavar="TYPE", help="show this one with its params and variables", show_default=False),
    ] = "",
) -> None:
    """List what can be checked: types, their groups, how often they run unless an alert says otherwise.

    To the account admin it says too which plug-ins cannot be used.
    """
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Listing alert types", "List alert types"):
        response = session.client.alerting.ListAlertTypes(pb.ListAlertTypesRequest())
    if type:
        _show_type(session, format, response, type)
    elif not printing.listed(session.screen, format, response, response.alert_types, lambda one: one.id):
        rows = [alert_records.type_cells(one) for one in response.alert_types]
        printing.rows(session.screen, "alert types", alert_records.TYPES, rows)
        for failed in response.failed:
            where = f"{failed.entry_point} of {failed.distribution}"
            session.screen.note(f"Plug-in {where} cannot be used: {failed.error}", "yellow")


def _show_type(session: Session, format: str, response: pb.ListAlertTypesResponse, type: str) -> None:
    found = next((one for one in response.alert_types if one.id == type), None)
    if found is None:
        raise Misuse("TYPE", f"{type!r} is none of {', '.join(one.id for one in response.alert_types)}")
    if not printing.shown(session.screen, format, found, found, found.id):
        session.screen.line(rendering.yaml_text(rendering.plain(found)).rstrip())


def _show(session: Session, format: str, response: Any, found: pb.Alert) -> None:
    if not printing.shown(session.screen, format, response, found, found.id):
        session.screen.line(rendering.yaml_text(rendering.plain(found)).rstrip())


def _tell(session: Session, format: str, response: Any, found: pb.Alert, text: str) -> None:
    """Print how an alert is now, after its name."""
    if not printing.shown(session.screen, format, response, found, found.id):
        session.screen.line(f"{escaped(found.name)} {escaped(text)}")
