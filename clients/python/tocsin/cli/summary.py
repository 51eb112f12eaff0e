"""`tocsin event summary`: how many events, when and of what kind."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tocsin.cli import criteria as reading
from tocsin.cli import histogram, rendering
from tocsin.cli.events import group
from tocsin.cli.flags import CountOutput, Criteria, Window, flag
from tocsin.cli.misuse import EPILOG, Misuse
from tocsin.cli.session import Session
from tocsin.cli.tables import Line
from tocsin.cli.taking import takes
from tocsin.events import summary_request
from tocsin.v1.event_log_pb2 import SummarizeEventsResponse

_BUCKETS = 24


@group.command("summary", epilog=EPILOG)
@takes
def summary(
    session: Session,
    criteria: Criteria,
    window: Window,
    output: CountOutput,
    resource: Annotated[
        str | None,
        typer.Argument(metavar="RESOURCE", help="a tag, image digest or repository name: only what is about it"),
    ] = None,
    by: Annotated[
        str,
        flag(
            "--by",
            "TOCSIN_EVENT_SUMMARY_BY",
            "count per value of a field: type, subtype, level, service, host, resource_type, resource_id, user_id, "
            "labels.KEY",
            "FIELD",
        ),
    ] = "",
    top: Annotated[
        int | None, flag("--top", "TOCSIN_EVENT_SUMMARY_TOP", "so many of the largest groups", "int32", min=1, max=100)
    ] = None,
    buckets: Annotated[
        int | None,
        flag("--buckets", "TOCSIN_EVENT_SUMMARY_BUCKETS", "at most so many stretches", "int32", min=1, max=1000),
    ] = None,
    bucket_width: Annotated[
        str,
        flag("--bucket-width", "TOCSIN_EVENT_SUMMARY_BUCKET_WIDTH", "length of a stretch (30s, 15m, 1h, 1d)"),
    ] = "",
) -> None:
    """Counts events per stretch of time and per value of a field, and draws them as a histogram."""
    format = output.one_of(session, "text", "json", "json-raw")
    if buckets is not None and bucket_width:
        raise Misuse("--buckets", "does not go with --bucket-width")
    wanted = window.bound(criteria.filter(*([resource] if resource else [])), session.now())
    width = reading.span("--bucket-width", bucket_width) if bucket_width else None
    if width is not None and not width:
        raise Misuse("--bucket-width", "a stretch of no time holds nothing: give 1s or more")
    request = summary_request(wanted, width, None if width else buckets or _BUCKETS, by, top or 0)
    with session.screen.step("Counting events", "Counted events"):
        response = session.client.event_log.SummarizeEvents(request)
    if format == "json-raw":
        session.screen.line(rendering.raw_text(response))
    elif format == "json":
        session.screen.line(rendering.json_text(_plain(response)))
    else:
        _draw(session, response, by)


def _plain(response: SummarizeEventsResponse) -> dict[str, Any]:
    """Answer the counts as data, zeros included."""
    found = rendering.plain(response)
    found["total_count"] = response.total_count
    found["groups"] = [{"value": group.value, "count": group.count} for group in response.groups]
    for made, bucket in zip(found.get("buckets", []), response.buckets, strict=True):
        made["count"] = bucket.count
    return found


def _draw(session: Session, response: SummarizeEventsResponse, by: str) -> None:
    screen = session.screen
    glyphs = histogram.GLYPHS if screen.draws else histogram.PLAIN
    lines = histogram.bars(response, screen.width or histogram.WIDTH, glyphs)
    grouped = histogram.groups(response, by, glyphs, screen.width)
    if grouped and lines:
        lines.append(Line(""))
    for line in (*lines, *grouped):
        screen.line(line.text, *line.spans)
    screen.line(f"{response.total_count} event{'' if response.total_count == 1 else 's'}")
    if response.truncated:
        screen.note(f"Only events since {rendering.time_text(response.counted_since)} were counted: narrow it down.")
