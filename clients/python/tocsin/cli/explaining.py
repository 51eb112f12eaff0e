"""`tocsin explain`: who is told about an event, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tocsin import receivers
from tocsin.cli import criteria, documents, outline, rendering
from tocsin.cli.appending import details_of
from tocsin.cli.drafting import Unreadable, event_of_fields
from tocsin.cli.explanation import outline_of
from tocsin.cli.flags import FORMATS, Output, flag
from tocsin.cli.misuse import Misuse
from tocsin.cli.session import Session
from tocsin.cli.taking import takes
from tocsin.paging import pages
from tocsin.v1 import notifications_pb2 as pb
from tocsin.v1.event_log_pb2 import Event

_MAKING = {"type", "subtype", "level", "message", "details", "resource", "resource_type", "service", "host", "label"}


def _own(name: str, help: str, metavar: str = "string", **more: Any) -> Any:
    variable = "TOCSIN_EXPLAIN_" + name.strip("-").upper().replace("-", "_")
    return flag(name, variable, help, metavar, **more)


@takes
def explain(
    session: Session,
    output: Output,
    id: Annotated[
        str, typer.Argument(metavar="EVENT", help="ID of a stored event; else one is made up", show_default=False)
    ] = "",
    file: Annotated[
        str,
        flag(
            "-f",
            "TOCSIN_EXPLAIN_FILE",
            "a made-up event in YAML or JSON, as -o json prints one; - reads standard input",
            "FILE",
            also=("--file",),
        ),
    ] = "",
    type: Annotated[str, _own("--type", "a made-up event of this type")] = "",
    subtype: Annotated[str, _own("--subtype", "its subtype")] = "",
    level: Annotated[str, _own("--level", "its level: INFO or ERROR", "LEVEL")] = "",
    message: Annotated[str, _own("--message", "its message", also=("-m",))] = "",
    details: Annotated[str, _own("--details", "its details: JSON, or @FILE with JSON", "JSON")] = "",
    resource: Annotated[str, _own("--resource", "what it is about", "ID")] = "",
    resource_type: Annotated[str, _own("--resource-type", "kind of the resource")] = "",
    service: Annotated[str, _own("--service", "the originating service")] = "",
    host: Annotated[str, _own("--host", "the originating host ID")] = "",
    label: Annotated[list[str] | None, _own("--label", "a label; may be given several times", "KEY=VALUE")] = None,
    configuration: Annotated[
        str, _own("--configuration", "only what this receiver's configuration does with it", "ID")
    ] = "",
) -> None:
    """Tell who is told about an event and why, or why not: a stored one by its ID, or one made up of flags or a file.

    For each receiver: what each selector misses, then its switches, how it does, silences, and what became of a stored
    event there. Nothing is stored or sent. The format id prints the configurations that are told, or would be.
    """
    format = output.one_of(session, *FORMATS)
    fields = {"type": type, "subtype": subtype, "level": level, "message": message}
    fields = {name: value for name, value in fields.items() if value}
    more: dict[str, Any] = {
        "resource": _given(id=resource, type=criteria.resource_type(resource_type)),
        "source": _given(service=service, host=host),
        "labels": criteria.pairs("--label", label or []),
    }
    made = fields | {name: value for name, value in more.items() if value}
    if details:
        made["details"] = details_of(details)
    request = receivers.explain_request(_event(session, id, file, made), configuration)
    response = pb.ExplainEventResponse()
    with session.screen.step("Explaining event", "Explained event"):
        for page in pages(session.client.notifications.ExplainEvent, request):
            response.event.CopyFrom(page.event)
            response.explanations.extend(page.explanations)
    _print(session, response, format, is_stored=bool(id))


def _given(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _event(session: Session, id: str, file: str, made: dict[str, Any]) -> str | Event:
    """Settle what is asked about. Raises Misuse unless it is one of a stored event, a file and flags."""
    making = session.typed & _MAKING
    if id:
        if making or "file" in session.typed:
            raise Misuse("EVENT", "a stored event does not go with -f, or with the flags of a made-up one")
        return id
    if making and "file" in session.typed:
        raise Misuse("--file", "does not go with the flags of a made-up event")
    if file and not making:
        return documents.event("--file", file)
    if "type" not in made:
        raise Misuse("EVENT", "give the ID of a stored event, or --type or -f FILE to make one up")
    try:
        return event_of_fields(made)
    except Unreadable as error:
        raise Misuse("event", str(error)) from None


def _print(session: Session, response: pb.ExplainEventResponse, format: str, is_stored: bool) -> None:
    screen = session.screen
    if format == "json-raw":
        screen.line(rendering.raw_text(response))
    elif format == "json":
        explanations = [rendering.plain(one) for one in response.explanations]
        screen.line(rendering.json_text({"event": rendering.resource(response.event), "explanations": explanations}))
    elif format == "id":
        for one in response.explanations:
            if one.fate not in (pb.EVENT_FATE_NOT_SELECTED, pb.EVENT_FATE_SILENCED):
                screen.line(one.configuration_id)
    else:
        guides = outline.DRAWN if screen.draws else outline.PLAIN
        for line in outline.lines(outline_of(response, is_stored), screen.width, guides):
            screen.line(line.text, *line.spans)
