"""`tocsin alert run`, `executions`, `state` and `summary`: what runs did, and how instances are."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import yaml
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from tocsin.cli import outline, verdicts
from tocsin.v1 import alerting_pb2 as pb

from tests.cli.alerting import created, fail, receiver
from tests.cli.conftest import Cli
from tests.cli.terminal import shown


def test_a_run_tells_whom_it_told_and_why(cli: Cli) -> None:
    """Those that are muted and silenced too, and the deliveries that it made."""
    told = receiver(cli)
    id = created(cli, actions=[{"id": told, "params": {"body": "x"}}], throttle="1h")
    fail(cli, "nginx", "redis")
    assert cli("alert", "mute", id, "redis").code == 0
    found = cli("alert", "run", id)
    assert (found.code, found.err) == (0, "✔ Ran alert\n")
    assert found.lines[0].split()[2] == "ACTIVE"
    (delivery,) = [line.split()[-1] for line in found.lines if "delivery" in line]
    assert cli.client.get_delivery(delivery).alert.instance_id == "nginx"
    assert "nginx  default  told because nobody had been told since it became active" in found.out
    assert "redis  default  not told because it is muted" in found.out
    again = cli("alert", "run", id, "-o", "json")
    instances = {one["id"]: one["verdict"] for one in json.loads(again.out)["instances"]}
    assert instances == {"nginx": "throttled", "redis": "muted"}
    silence = cli("silence", "create", "--resource", id, "--for", "1h", "--comment", "x", "-o", "id").out.strip()
    assert f"not told because silence {silence} holds" in cli("alert", "run", id).out
    raw = json_format.Parse(cli("alert", "run", id, "-o", "json-raw").out, pb.RunAlertResponse())
    assert raw.execution.instances[0].silence_id == silence


def test_a_run_without_actions_says_so(cli: Cli) -> None:
    id = created(cli)
    assert "nothing is active" in cli("alert", "run", id).out
    fail(cli, "nginx")
    assert "no delivery: its group has no action" in cli("alert", "run", id).out


def test_a_run_that_cannot_be_says_why(cli: Cli) -> None:
    id = created(cli, "--disabled")
    found = cli("alert", "run", id)
    assert (found.code, found.out) == (1, "")
    assert "ALERT_DISABLED" in found.err
    assert cli("alert", "run", "nobody").code == 3


def test_executions_are_listed_newest_first(cli: Cli) -> None:
    id = created(cli)
    fail(cli, "nginx")
    runs = [cli.client.run_alert(id) for _ in range(2)]
    cli.client.mute_alert(id)
    runs.append(cli.client.run_alert(id))
    rows = [line.split() for line in cli("alert", "executions", id).lines[1:]]
    assert [row[0] for row in rows[:3]] == [str(run.number) for run in reversed(runs)]
    assert rows[0][2:] == ["ACTIVE", *rows[0][3:5], "1", "0", "1", "muted"]
    assert rows[1][5:] == ["1", "1"]
    assert rows[3][2] == "OK"
    listed = json.loads(cli("alert", "executions", id, "--status", "active", "-o", "json").out)
    assert [one["number"] for one in listed] == [run.number for run in reversed(runs)]
    limited = cli("alert", "executions", id, "-n", "1")
    assert (len(limited.lines), "there may be more" in limited.err) == (2, True)
    assert "there may be more" not in cli("alert", "executions", id, "--all").err
    assert "No executions." in cli("alert", "executions", id, "--until", "1h").err
    assert len(cli("alert", "executions", id, "--since", "1h").lines) == len(rows) + 1
    drawn = cli("alert", "executions", id, "--instances", "-n", "2").out
    assert drawn.index("not told because it is muted") < drawn.index("told because every run tells")
    raw = json_format.Parse(cli("alert", "executions", id, "-o", "json-raw").out, pb.ListExecutionsResponse())
    assert list(raw.executions[:3]) == runs[::-1]


def test_the_state_is_what_is_remembered(cli: Cli) -> None:
    """KA5: empty when it is off."""
    id = created(cli)
    fail(cli, "nginx", "redis")
    cli.client.run_alert(id)
    found = yaml.safe_load(cli("alert", "state", id).out)
    assert {name: one["action_group"] for name, one in found["alert_instances"].items()} == {
        "nginx": "default",
        "redis": "default",
    }
    assert cli("alert", "state", id, "-o", "id").lines == ["nginx", "redis"]
    assert "previous_started_at" in json.loads(cli("alert", "state", id, "-o", "json").out)
    cli.client.disable_alert(id)
    off = cli("alert", "state", id)
    assert (off.out, "It remembers nothing" in off.err) == ("", True)


def test_a_summary_is_a_table_of_instances(cli: Cli) -> None:
    """KA6: status, since and mute of each; since a time, or for so long."""
    id = created(cli)
    fail(cli, "nginx")
    run = cli.client.run_alert(id)
    cli.client.mute_instance(id, "redis")
    head, span, titles, *rows = cli("alert", "summary", id).lines
    assert head.startswith("image analyses fail is ACTIVE, last run 2")
    assert span.startswith("From ")
    assert titles.split() == ["INSTANCE", "STATUS", "GROUP", "SINCE", "MUTED"]
    since = run.scheduled_time.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert [row.split() for row in rows] == [["nginx", "ACTIVE", "default", since], ["redis", "OK", "yes"]]
    assert cli("alert", "summary", id, "-o", "id").lines == ["nginx", "redis"]
    found = json.loads(cli("alert", "summary", id, "--since", "2h", "-o", "json").out)
    assert (found["instances"]["nginx"]["status"], found["instances"]["redis"]["muted"]) == ("active", True)
    begin, end = (datetime.fromisoformat(found[name]) for name in ("status_start_date", "status_end_date"))
    assert abs((end - begin).total_seconds() - 7200) < 60
    raw = cli("alert", "summary", id, "--since", "2026-01-02T03:04:05Z", "-o", "json-raw").out
    assert json.loads(raw)["status_start_date"] == "2026-01-02T03:04:05Z"
    cli.client.disable_alert(id)
    cli.client.mute_alert(id)
    assert cli("alert", "summary", id).lines[0].startswith("image analyses fail is OFF")
    assert cli("alert", "summary", id).lines[0].endswith(", muted")


@pytest.mark.parametrize("columns", [120, 80, 60])
def test_runs_and_summaries_fit_the_terminal(cli: Cli, columns: int) -> None:
    """IDs stay whole."""
    told = [{"id": receiver(cli), "params": {"body": "x"}}]
    id = created(cli, name="the analyses of the images of the registry fail", actions=told)
    name = "docker.io/library/postgres:16-alpine"
    fail(cli, name, "nginx")
    drawn = shown(cli, columns, "alert", "run", id)
    assert sum(name in line for line in drawn) == 1
    assert sum("delivery " in line for line in drawn) == 2
    assert sum(name in line for line in shown(cli, columns, "alert", "summary", id)) == 1
    assert sum("ACTIVE" in line for line in shown(cli, columns, "alert", "executions", id)) == 2


@pytest.mark.parametrize("verdict", pb.NotifyVerdict.values()[1:])
def test_every_verdict_has_words(verdict: pb.NotifyVerdict.ValueType) -> None:
    found = verdicts.verdict(pb.ExecutedInstance(verdict=verdict))
    assert found.startswith("told because " if verdict <= pb.NOTIFY_VERDICT_RECOVERED else "not told because ")


def test_a_failed_run_tells_why() -> None:
    failed = pb.Execution(number=7, status=pb.ALERT_STATUS_ERROR, missed=3, duration=Duration(seconds=1))
    failed.error.reason, failed.error.message = "PARAMS", "window is no duration"
    root, below = [line.text for line in outline.lines(verdicts.outline_of(failed), None)]
    assert root.startswith("run 7  ERROR  ")
    assert root.endswith("1000 ms  stands for 3 missed")
    assert "PARAMS: window is no duration" in below
    assert verdicts.cells(failed)[-1] == "PARAMS: window is no duration; stands for 3 missed"
