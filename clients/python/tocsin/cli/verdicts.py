"""What runs of alerts did, in words: each instance, whether it was told, and why or why not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tocsin.cli import choices
from tocsin.cli.alert_records import COLOURS
from tocsin.cli.outline import Node
from tocsin.cli.printing import Columns
from tocsin.cli.rendering import short_time_text, time_text
from tocsin.v1 import alerting_pb2 as pb

_TOLD = {
    pb.NOTIFY_VERDICT_FIRST: "nobody had been told since it became active",
    pb.NOTIFY_VERDICT_GROUP_CHANGED: "its group changed",
    pb.NOTIFY_VERDICT_EVERY_RUN: "every run tells of what is active",
    pb.NOTIFY_VERDICT_THROTTLE_ENDED: "the throttle has passed",
    pb.NOTIFY_VERDICT_RECOVERED: "it has recovered",
}
_NOT_TOLD = {
    pb.NOTIFY_VERDICT_SILENCED: "a silence holds",
    pb.NOTIFY_VERDICT_MUTED: "it is muted",
    pb.NOTIFY_VERDICT_THROTTLED: "the throttle has not passed",
    pb.NOTIFY_VERDICT_UNCHANGED: "its group is the same",
    pb.NOTIFY_VERDICT_DEFERRED: "the run had no room for more messages: the next tells of it",
}
_TITLES = ("RUN", "BEGAN", "BEGAN", "STATUS", "TOOK", "ACTIVE", "TOLD", "NOTES")
_RUN, _FINE, _COARSE, _STATUS, _TOOK, _ACTIVE, _TELLS, _NOTES = range(len(_TITLES))
EXECUTIONS = Columns(
    _TITLES,
    (
        ((_RUN, _FINE, _STATUS, _TOOK, _ACTIVE, _TELLS, _NOTES),),
        ((_RUN, _COARSE, _STATUS, _TOOK, _ACTIVE, _TELLS), (_NOTES,)),
        ((_RUN, _COARSE, _STATUS), (_TOOK, _ACTIVE, _TELLS), (_NOTES,)),
    ),
    {_NOTES: 20},
    _STATUS,
    COLOURS,
)


def is_told(one: pb.ExecutedInstance) -> bool:
    """Tell whether a run told of an instance."""
    return one.verdict in _TOLD


def verdict(one: pb.ExecutedInstance) -> str:
    """Answer whether an instance was told, and why or why not."""
    if is_told(one):
        return f"told because {_TOLD[one.verdict]}"
    if one.verdict == pb.NOTIFY_VERDICT_SILENCED and one.silence_id:
        return f"not told because silence {one.silence_id} holds"
    if one.verdict in _NOT_TOLD:
        return f"not told because {_NOT_TOLD[one.verdict]}"
    return choices.word(pb.NotifyVerdict, one.verdict)


def group(one: pb.ExecutedInstance) -> str:
    """Answer the group of an instance, and its sub-group where it has one."""
    return f"{one.action_group}/{one.action_subgroup}" if one.action_subgroup else one.action_group


def outline_of(execution: pb.Execution) -> Node:
    """Answer a run as a tree: the run, its instances, the deliveries of each."""
    took = f"{execution.duration.ToMilliseconds()} ms"
    status = choices.word(pb.AlertStatus, execution.status)
    parts = [f"run {execution.number}", status, time_text(execution.start_time), took, missed(execution)]
    below = [_instance(one) for one in execution.instances]
    if execution.HasField("error"):
        below.append(Node(f"{execution.error.reason}: {execution.error.message}", style="red"))
    return Node("  ".join(filter(None, parts)), below or [Node("nothing is active")], COLOURS.get(status, ""))


def _instance(one: pb.ExecutedInstance) -> Node:
    deliveries = [Node(f"delivery {id}") for id in one.delivery_ids]
    if is_told(one) and not deliveries:
        deliveries = [Node("no delivery: its group has no action")]
    return Node(f"{one.id}  {group(one)}  {verdict(one)}", deliveries, "green" if is_told(one) else "yellow")


def missed(execution: pb.Execution) -> str:
    """Answer how many due runs a run stands in for; empty for none."""
    return f"stands for {execution.missed} missed" if execution.missed else ""


def cells(execution: pb.Execution) -> list[str]:
    """Answer the columns of `EXECUTIONS`."""
    return [
        str(execution.number),
        time_text(execution.start_time),
        short_time_text(execution.start_time),
        choices.word(pb.AlertStatus, execution.status),
        f"{execution.duration.ToMilliseconds()} ms",
        str(sum(not one.recovered for one in execution.instances)),
        str(sum(map(is_told, execution.instances))),
        "; ".join(_notes(execution)),
    ]


def _notes(execution: pb.Execution) -> Iterable[str]:
    if execution.HasField("error"):
        yield f"{execution.error.reason}: {execution.error.message}"
    if recovered := sum(one.recovered for one in execution.instances):
        yield f"{recovered} recovered"
    kept = Counter(one.verdict for one in execution.instances if not is_told(one))
    for kind in _NOT_TOLD:
        if kept[kind]:
            yield f"{kept[kind]} {choices.word(pb.NotifyVerdict, kind).lower()}"
    if text := missed(execution):
        yield text
