"""`tocsin consumer`: every command, and events that go through a pipe."""

from __future__ import annotations

import json

import pytest
import tocsin
from google.protobuf import json_format
from tocsin.v1 import event_log_pb2 as pb

from tests.cli.conftest import Cli


@pytest.fixture
def jobs(cli: Cli) -> Cli:
    """Append five events and create the consumer `jobs` before them."""
    cli.client.append_many([tocsin.draft("a.b", id=f"e{n}", message=f"job {n}") for n in range(5)])
    made = cli("consumer", "create", "jobs", "--beginning", "--event-type", "a.", "--lease", "1m", "--max-retries", "2")
    assert made.code == 0, made.err
    return cli


def test_a_consumer_is_created_shown_changed_and_deleted(jobs: Cli) -> None:
    shown = jobs("consumer", "get", "jobs")
    assert shown.err == "✔ Fetched consumer\n"
    for line in ("name: jobs", "lease: 60s", "max_retries: 2", "  lag: 5", "  parked: 0"):
        assert line in shown.lines
    found = json.loads(jobs("consumer", "get", "jobs", "-o", "json").out)
    assert (found["filter"], found["status"]["lag"]) == ({"types": ["a.", "a.*"]}, 5)
    raw = json_format.Parse(jobs("consumer", "get", "jobs", "-o", "json-raw").out, pb.GetConsumerResponse())
    assert raw.status.lag == 5
    assert jobs("consumer", "list").lines[1].split()[0] == "jobs"
    assert jobs("consumer", "list", "-o", "id").out == "jobs\n"
    assert json.loads(jobs("consumer", "list", "-o", "json").out)[0]["lease"] == "60s"
    listed = json_format.Parse(jobs("consumer", "list", "-o", "json-raw").out, pb.ListConsumersResponse())
    assert [consumer.name for consumer in listed.consumers] == ["jobs"]
    changed = jobs("consumer", "update", "jobs", "--max-in-flight", "7", "-o", "json")
    assert json.loads(changed.out)["max_in_flight"] == 7
    assert jobs("consumer", "update", "jobs").code == 2
    assert jobs("consumer", "delete", "jobs").out == "jobs\n"
    assert jobs("consumer", "get", "jobs").code == 3


def test_consuming_acknowledges_what_was_printed(jobs: Cli) -> None:
    assert jobs("consumer", "consume", "jobs", "-n", "2", "-o", "id").lines == ["e0", "e1"]
    lines = jobs("consumer", "consume", "jobs", "--count", "1", "-o", "json").lines
    assert [json.loads(line)["message"] for line in lines] == ["job 2"]
    (line,) = jobs("consumer", "consume", "jobs", "-n", "1", "-o", "json-raw").lines
    (given,) = json_format.Parse(line, pb.ConsumeResponse()).batch.deliveries
    assert given.event.id == "e3"
    status = jobs.client.get_consumer("jobs").status
    assert status.lag + status.waiting == 1  # some may have been on their way when it ended
    assert jobs("consumer", "consume", "jobs", "--settle", "burn").code == 2


def test_parked_events_are_shown_replayed_and_purged(jobs: Cli) -> None:
    jobs("consumer", "consume", "jobs", "-n", "3", "--settle", "park", "--reason", "not\x1b mine")
    shown = jobs("consumer", "parked", "jobs")
    assert shown.lines[0].split() == ["ID", "EVENT", "TYPE", "ATTEMPTS", "PARKED", "REASON"]
    assert shown.lines[1].startswith("e0")
    assert shown.lines[1].endswith("not\\x1b mine")
    assert jobs("consumer", "parked", "jobs", "-o", "id").lines == ["e0", "e1", "e2"]
    one, two, _ = json.loads(jobs("consumer", "parked", "jobs", "-o", "json").out)
    assert (one["cause"], one["event"]["type"]) == ("client", "a.b")
    raw = json_format.Parse(jobs("consumer", "parked", "jobs", "-o", "json-raw").out, pb.ListParkedResponse())
    assert [parked.event_id for parked in raw.parked] == ["e0", "e1", "e2"]
    assert jobs("consumer", "replay", "jobs", "e0").out == "Replayed 1 event\n"
    assert jobs("consumer", "purge", "jobs", "--position", str(two["position"])).out == "Purged 1 event\n"
    assert jobs("consumer", "purge", "jobs", "--all").out == "Purged 1 event\n"
    assert jobs("consumer", "replay", "jobs").code == 2
    assert jobs("consumer", "replay", "jobs", "e0", "--all").code == 2


def test_seeking_moves_a_consumer(jobs: Cli) -> None:
    assert jobs("consumer", "consume", "jobs", "-n", "5", "-o", "id").lines[-1] == "e4"
    assert jobs("consumer", "seek", "jobs", "--beginning").code == 0
    third = jobs.client.get_event("e2").position
    assert jobs("consumer", "seek", "jobs", "--after", str(third)).out == f"Events after position {third} will come\n"
    assert jobs("consumer", "consume", "jobs", "-n", "1", "-o", "id").lines == ["e3"]
    assert jobs("consumer", "seek", "jobs").code == 2
    assert jobs("consumer", "seek", "jobs", "--new").code == 2
    assert jobs("consumer", "seek", "jobs", "--beginning", "--since", "1h").code == 2
    assert jobs("consumer", "seek", "jobs", "--after", "here").code == 2
