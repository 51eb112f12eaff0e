"""What the log tells of any life: each event is a cell of a plain table, through failures and limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tocsin_server.domain.alerting import InstanceReport, Report, RunContext
from tocsin_server.domain.execution import Claim, Run, RunOutcome, attempt, perform

from tests.support.executors import MemoryLog
from tests.support.lives import MINUTE, TYPE, Life, found

ROOM = 3  # instances that the alert of these tests may have
IDS = ["a", "b", "c", "d", "e"]

# Where an instance was, down; where a run finds it, across. "-" is nowhere; "." tells nothing.
TABLE = """
                -          default  default/x  default/y  critical  critical/x
    -           .          new      new        new        new       new
    default     recovered  .        .          .          changed   changed
    default/x   recovered  .        .          changed    changed   changed
    default/y   recovered  .        changed    .          changed   changed
    critical    recovered  changed  changed    changed    .         .
    critical/x  recovered  changed  changed    changed    .         .
"""
# The status after a run, by how it went and whether anything is active after it.
STATUS = {
    ("whole", True): "ACTIVE",
    ("whole", False): "OK",
    ("limit", True): "ERROR",
    ("limit", False): "ERROR",
    ("raises", True): "ERROR",
    ("raises", False): "ERROR",
    ("unusable", True): "ERROR",
    ("unusable", False): "ERROR",
}
KINDS = {"new": "new_instance", "changed": "action_group_changed", "recovered": "recovered_instance"}
ERRORS = {"whole": None, "limit": "LIMIT", "raises": "EXECUTE", "unusable": "EXECUTE"}


def cells() -> dict[tuple[str, str], str]:
    head, *lines = [line.split() for line in TABLE.strip().splitlines()]
    return {(line[0], now): cell for line in lines for now, cell in zip(head, line[1:], strict=True)}


CELLS = cells()
PLACES = sorted({now for _, now in CELLS} - {"-"})
# How a run goes, what it finds, in which order; whatever is "looked at" has no group and is nowhere.
SEEN = st.dictionaries(st.sampled_from(IDS), st.sampled_from([*PLACES, "looked at"]), max_size=len(IDS))
HOW = st.sampled_from(["whole", "whole", "whole", "limit", "raises", "unusable"])
RUNS = st.lists(st.tuples(HOW, SEEN), max_size=25)


@dataclass
class Plain:
    """What a reader of the table knows: where each instance is, since when, and the status."""

    status: str = "PENDING"
    places: dict[str, str] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)

    def run(self, how: str, seen: dict[str, str], at: int) -> list[tuple[str, ...]]:
        """Move everything by one run and give the events that tell of it, in the order of the log."""
        now = {id: place for id, place in seen.items() if place != "looked at"}
        if how == "whole" and len(now) > ROOM:
            how = "limit"
        if how in ("raises", "unusable"):
            now = self.places
        elif how == "limit":  # what is known stays, what is new comes as long as there is room
            room = ROOM - len(self.places)
            new = [id for id in now if id not in self.places][:room]
            now = self.places | {id: place for id, place in now.items() if id in self.places or id in new}
        events = sorted(self.moves(now, at), key=lambda one: (one[0] != "recovered_instance", one[1]))
        status = STATUS[how, bool(now)]
        if status != self.status:
            events.append(("status_changed", self.status, status, ERRORS[how] or ""))
        self.status, self.places = status, dict(now)
        self.since = {id: self.since.get(id, at) for id in now}
        return events

    def moves(self, now: dict[str, str], at: int) -> Iterator[tuple[str, ...]]:
        for id in {*self.places, *now}:
            was, place = self.places.get(id, "-"), now.get(id, "-")
            cell = CELLS[was, place]
            if cell == "recovered":
                yield KINDS[cell], id, was.partition("/")[0], f"{(at - self.since[id]) // 1_000_000} s"
            elif cell != ".":
                group, _, subgroup = place.partition("/")
                yield KINDS[cell], id, group, subgroup, was.partition("/")[0] if cell == "changed" else ""


def one_run(life: Life, how: str, seen: dict[str, str]) -> RunOutcome:
    """Run as a claimed run does, whatever the executor does."""

    def execute(context: RunContext) -> Report:
        if how == "raises":
            raise ValueError("of the executor")
        reports = [report(id, place) for id, place in seen.items()]
        if how == "unusable":
            reports.append(found("another", "unknown"))
        return Report(tuple(reports), limit_reached=how == "limit")

    claim = Claim("acme", "123", TYPE.id, 1, life.at, life.at, 0)
    run = Run(claim, life.alert, life.memory, None)
    alert_type = replace(TYPE, executor=execute)
    return life.keep(attempt(lambda: perform(run, alert_type, MemoryLog()), run, lambda error: None))


def report(id: str, place: str) -> InstanceReport:
    if place == "looked at":
        return found(id, None)
    group, _, subgroup = place.partition("/")
    return found(id, group, subgroup)


def told(outcome: RunOutcome) -> list[tuple[str, ...]]:
    """Give the events of a run with all that they say of groups, statuses and durations."""
    found: list[tuple[str, ...]] = []
    for one in outcome.transitions:
        said = {name: str(value) for name, value in one.details.items()}
        if one.kind.value == "status_changed":
            found.append((one.kind.value, said["previous_status"], said["status"], said.get("error_reason", "")))
        elif one.kind.value == "recovered_instance":
            duration = f"{float(said['duration_s']):g} s"
            found.append((one.kind.value, said["instance_id"], said["action_group"], duration))
        else:
            groups = said["action_group"], said.get("action_subgroup", ""), said.get("previous_action_group", "")
            found.append((one.kind.value, said["instance_id"], *groups))
    return found


@given(RUNS)
def test_the_log_tells_what_the_table_says(runs: list[tuple[str, dict[str, str]]]) -> None:
    """Trap 2, trap 3, trap 8, XE1, XE14, KI7: new, changed, recovered, status; nothing else, and in this order."""
    life, plain = Life(), Plain()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tocsin_server.domain.instances.INSTANCES_MAX", ROOM)
        for how, seen in runs:
            at = life.at
            outcome = one_run(life, how, seen)
            assert told(outcome) == plain.run(how, seen, at)
            assert outcome.status.value == plain.status
            assert {one.id: (one.group, one.subgroup, one.started_at) for one in outcome.instances} == {
                id: (*place.partition("/")[::2], plain.since[id]) for id, place in plain.places.items()
            }


@pytest.mark.parametrize(("was", "now"), CELLS)
def test_each_cell_of_the_table(was: str, now: str) -> None:
    """KI6, KI7: one instance, two runs; the sub-group counts only if both named one."""
    life, plain = Life(), Plain()
    for place in (was, now):
        seen = {"a": place} if place != "-" else {}
        at = life.at
        events = told(one_run(life, "whole", seen))
        assert events == plain.run("whole", seen, at)
    assert [kind for kind, *_ in events if kind != "status_changed"] == (
        [KINDS[CELLS[was, now]]] if CELLS[was, now] != "." else []
    )
    assert life.at == at + MINUTE
