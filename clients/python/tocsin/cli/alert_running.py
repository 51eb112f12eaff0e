"""`tocsin alert run`, `executions`, `state` and `summary`: what runs did, and how instances are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from textwrap import wrap
from typing import Annotated

import typer

from tocsin import alerts as requests
from tocsin.cli import choices, criteria, outline, printing, rendering, verdicts
from tocsin.cli.alerts import Id, group
from tocsin.cli.escaping import escaped
from tocsin.cli.flags import FORMATS, CountOutput, Output, flag
from tocsin.cli.misuse import EPILOG, FAILED
from tocsin.cli.printing import Columns
from tocsin.cli.screen import Screen
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.cli.verdicts import EXECUTIONS
from tocsin.v1 import alerting_pb2 as pb

_FIRST = 100
_PAGE_MAX = 1000
_RUN_S = 60.0  # a run may have to wait for others
_Status = pb.GetAlertInstanceSummaryResponse.InstanceStatus
INSTANCES = Columns(
    ("INSTANCE", "STATUS", "GROUP", "SINCE", "MUTED"),
    (((0, 1, 2, 3, 4),), ((0, 1), (2, 3, 4)), ((0,), (1, 2, 3, 4))),
    {2: 8},
    1,
    {"ACTIVE": "red", "OK": "green"},
)


@group.command("run", epilog=EPILOG)
@takes
def run(session: Session, id: Id, output: CountOutput) -> None:
    """Run an alert now, and show what the run did: each instance, whether it was told, and why or why not.

    It obeys throttle, mutes and silences as any run. It ends with 1 where the run failed.
    """
    format = output.one_of(session, "text", "json", "json-raw")
    timeout_s = max(session.connection.timeout, _RUN_S)
    with session.screen.step("Running alert", "Ran alert"):
        response = session.client.alerting.RunAlert(pb.RunAlertRequest(id=id), timeout=timeout_s)
    if not printing.shown(session.screen, format, response, response.execution, ""):
        _draw(session, response.execution)
    if response.execution.status == pb.ALERT_STATUS_ERROR:
        raise typer.Exit(FAILED)


def _draw(session: Session, execution: pb.Execution) -> None:
    guides = outline.DRAWN if session.screen.draws else outline.PLAIN
    for line in outline.lines(verdicts.outline_of(execution), session.screen.width, guides):
        session.screen.line(line.text, *line.spans)


@group.command("executions", epilog=EPILOG)
@takes
def executions(
    session: Session,
    id: Id,
    output: CountOutput,
    status: Annotated[
        list[str] | None,
        flag(
            "--status",
            "TOCSIN_ALERT_EXECUTION_STATUS",
            "that ended so: ok, active, error",
            "STATUS",
            autocompletion=choices.completing(pb.AlertStatus),
        ),
    ] = None,
    since: Annotated[
        str, flag("--since", "TOCSIN_ALERT_SINCE", "at or after an ISO8601 time, or so long ago (15m)")
    ] = "",
    until: Annotated[str, flag("--until", "TOCSIN_ALERT_UNTIL", "before an ISO8601 time, or longer ago (15m)")] = "",
    count: Annotated[
        int, flag("-n", "TOCSIN_ALERT_COUNT", "so many of the newest", "int32", also=("--count",), min=1)
    ] = _FIRST,
    every: Annotated[bool, flag("--all", "TOCSIN_ALERT_ALL", "all of them (else the newest 100)", None)] = False,
    instances: Annotated[
        bool, flag("--instances", "TOCSIN_ALERT_INSTANCES", "with each instance, and why it was told or not", None)
    ] = False,
) -> None:
    """List the runs of an alert, the newest first: how each ended, what was active, how many were told.

    They are kept for 7 days.
    """
    format = output.one_of(session, "text", "json", "json-raw")
    now = session.now()
    request = requests.executions_request(
        id,
        choices.chosen("--status", pb.AlertStatus, status),
        since=criteria.moment("--since", since, now) if since else None,
        before=criteria.moment("--until", until, now) if until else None,
    )
    wanted = None if every else count
    with session.screen.step("Listing executions", "List executions"):
        everything = pb.ListExecutionsResponse(executions=islice(_walk(session, request, wanted), wanted))
    more = len(everything.executions) == wanted and bool(request.page_token)
    found = everything.executions
    if printing.listed(session.screen, format, everything, found, lambda one: str(one.number)):
        return
    if instances:
        for one in found:
            _draw(session, one)
    else:
        printing.rows(session.screen, "executions", EXECUTIONS, [verdicts.cells(one) for one in found])
    if more:
        session.screen.note(f"These are the newest {len(found)}: there may be more, which -n or --all shows.")


def _walk(session: Session, request: pb.ListExecutionsRequest, wanted: int | None) -> Iterator[pb.Execution]:
    """Go through executions; the request is left with the token of what comes next, if there is more."""
    request.page_size = min(wanted or _PAGE_MAX, _PAGE_MAX)
    while True:
        page = session.client.alerting.ListExecutions(request)
        request.page_token = page.next_page_token
        yield from page.executions
        if not page.next_page_token:
            return


@group.command("state", epilog=EPILOG)
@takes
def state(session: Session, id: Id, output: Output) -> None:
    """Show what an alert remembers: of itself, and of each active instance. The format id prints the instances."""
    format = output.one_of(session, *FORMATS)
    with session.screen.step("Fetching state", "Fetched state"):
        response = session.client.alerting.GetAlertState(pb.GetAlertStateRequest(id=id))
    if format == "id":
        for name in sorted(response.alert_instances):
            session.screen.line(escaped(name))
    elif not printing.shown(session.screen, format, response, response, ""):
        if not response.alert_instances and not response.HasField("previous_started_at"):
            session.screen.note("It remembers nothing: it is off, or has not run yet.")
        else:
            session.screen.line(rendering.yaml_text(rendering.plain(response)).rstrip())


@group.command("summary", epilog=EPILOG)
@takes
def summary(
    session: Session,
    id: Id,
    output: Output,
    since: Annotated[
        str,
        flag(
            "--since",
            "TOCSIN_ALERT_SINCE",
            "since an ISO8601 time, or so long (90m, 7d)  [default: 60 intervals of the alert]",
        ),
    ] = "",
) -> None:
    """Show how an alert and its instances are and were: those that are active, were since then, or are muted.

    The format id prints the instances.
    """
    format = output.one_of(session, *FORMATS)
    begin = criteria.moment("--since", since, session.now()) if since else None
    with session.screen.step("Summing up alert", "Summed up alert"):
        response = session.client.summarize_alert(id, begin)
    if format == "id":
        for name in sorted(response.instances):
            session.screen.line(escaped(name))
    elif not printing.shown(session.screen, format, response, response, ""):
        _show_summary(session, response)


def _show_summary(session: Session, found: pb.GetAlertInstanceSummaryResponse) -> None:
    screen = session.screen
    word = choices.word(pb.AlertStatus, found.status) if found.enabled else "OFF"
    last = f", last run {rendering.short_time_text(found.last_run)}" if found.HasField("last_run") else ""
    start, end = (rendering.short_time_text(stamp) for stamp in (found.status_start_date, found.status_end_date))
    _say(screen, f"{found.name} is {word}{last}{', muted' if found.mute_all else ''}")
    _say(screen, f"From {start} to {end}:")
    rows = [_row(name, found.instances[name]) for name in sorted(found.instances)]
    printing.rows(screen, "instances", INSTANCES, rows)
    for error in found.error_messages:
        _say(screen, f"{rendering.short_time_text(error.date)} failed: {error.message}")


def _say(screen: Screen, text: str) -> None:
    """Print a text, folded to the terminal."""
    safe = escaped(text)
    for line in [safe] if screen.width is None else wrap(safe, screen.width, subsequent_indent="  "):
        screen.line(line)


def _row(name: str, found: pb.GetAlertInstanceSummaryResponse.Instance) -> list[str]:
    since = rendering.short_time_text(found.active_start_date) if found.HasField("active_start_date") else ""
    group = "/".join(filter(None, (found.action_group_id, found.action_subgroup)))
    return [name, choices.word(_Status, found.status), group, since, "yes" if found.muted else ""]
