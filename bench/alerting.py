"""Alerts: how many runs a server does, how late they are, and what they cost those who append."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import alerting_pb2 as pb
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as notifications_pb
from tocsin.v1.alerting_pb2_grpc import AlertingStub
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub

from bench.filling import FIRST_US, SERVICES, SPACING_US, log_of
from bench.load import Client
from bench.posting import SECRET
from bench.results import Figure, figure
from bench.server import ServerProcess

RATE = 200.0  # events per second that arrive meanwhile, all of the service that every twentieth alert counts
BUSY_SERVICE = "analyzer"
SECONDS = 4.0  # of each measurement
SETTLED_S = 5.5  # after the alerts are made: each has had its first run, all have taken their places
INTERVAL_S = 5
IN_FLIGHT = 32
FULL = 2200  # alerts: more runs than are asked for
TARGET_RUNS = 12_000  # a minute
HALF = TARGET_RUNS // 2 * INTERVAL_S // 60  # alerts
BUSY = TARGET_RUNS * INTERVAL_S // 60
MANY = 10_000
INSTANCES = 1000
DAY_US = 86_400_000_000
PREVIEWED = 1_000_000  # events: what the targets of previews are for
PREVIEWED_QUICKLY = 10_000
RUNS = 20  # of the alert with many instances
ACTIONS, HELD_MS = 8, 250.0


class Alerts:
    """Calls of one server, and the store that it writes."""

    def __init__(self, address: str, data: Path) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub: Any = AlertingStub(self._channel)
        self._log: Any = EventLogStub(self._channel)
        self._notifications: Any = NotificationsStub(self._channel)
        self._data = data

    def actions(self, count: int) -> list[pb.Action]:
        """Make a receiver that is off, so that what is scheduled stays, and so many actions for it."""
        connection = notifications_pb.WebhookConnection(url="http://127.0.0.1:9/", secret=SECRET)
        configuration = notifications_pb.EndpointConfiguration(name="bench", webhook=connection, enabled=False)
        request = notifications_pb.CreateEndpointConfigurationRequest(configuration=configuration)
        made = self._notifications.CreateEndpointConfiguration(request).configuration
        body = json_format.ParseDict({"body": "{{context.reason}}"}, Struct())
        return [pb.Action(id=made.id, params=body) for _ in range(count)]

    def create(
        self, count: int, interval: str = f"{INTERVAL_S}s", actions: Sequence[pb.Action] = (), **params: Any
    ) -> str:
        """Create alerts, each of which counts the events of a service; give the id of the last."""
        calls: deque[Any] = deque()
        for number in range(count):
            service = BUSY_SERVICE if number % SERVICES == 0 else f"service-{number % SERVICES}"
            given = {"source": {"services": [service]}, "window": "5m", "threshold": 1e6, "group_by": ["resource_id"]}
            alert = pb.Alert(
                name=f"alert {number}",
                alert_type_id=".event-threshold",
                consumer="bench",
                schedule=pb.Schedule(interval=interval),
                actions=actions,
            )
            json_format.ParseDict(given | params, alert.params)
            calls.append(self._stub.CreateAlert.future(pb.CreateAlertRequest(alert=alert)))
            if len(calls) == IN_FLIGHT:
                calls.popleft().result()
        created = [call.result().alert.id for call in calls]
        return created[-1] if created else ""

    def append(self, count: int, event_type: str = "user.named") -> None:
        """Append events of so many resources."""
        events = [log_pb.Event(type=event_type, resource=log_pb.EventResource(id=f"r{n}")) for n in range(count)]
        self._log.AppendEvents(log_pb.AppendEventsRequest(events=events))

    def run(self, alert_id: str) -> pb.Execution:
        """Run an alert now."""
        execution: pb.Execution = self.begin(alert_id).result().execution
        return execution

    def begin(self, alert_id: str) -> Any:
        """Have an alert run, and give the call."""
        return self._stub.RunAlert.future(pb.RunAlertRequest(id=alert_id))

    def preview(self, field: str) -> pb.PreviewAlertResponse.Done:
        """Replay a day of the log, minute by minute, grouped by a field; give the end."""
        alert = pb.Alert(
            name="p", alert_type_id=".event-threshold", consumer="bench", schedule=pb.Schedule(interval="1m")
        )
        json_format.ParseDict({"window": "5m", "threshold": 50, "group_by": [field]}, alert.params)
        span = [Timestamp(), Timestamp()]
        for time_, micros in zip(span, (FIRST_US, FIRST_US + DAY_US), strict=True):
            time_.FromMicroseconds(micros)
        parts = self._stub.PreviewAlert(pb.PreviewAlertRequest(alert=alert, start_time=span[0], end_time=span[1]))
        *_, last = parts
        done: pb.PreviewAlertResponse.Done = last.done
        return done

    def delays_s(self, since: float) -> list[float]:
        """Give how late each run since a time began; the number of these is that of the runs."""
        query = "SELECT (started_at - scheduled_at) / 1e6 FROM alert_executions WHERE started_at >= ?"
        with closing(sqlite3.connect(f"file:{self._data / 'tocsin.db'}?mode=ro", uri=True)) as connection:
            return [delay for (delay,) in connection.execute(query, (int(since * 1e6),))]

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def measure(events: int) -> Callable[[Path], Sequence[Figure]]:
    """Make the measurement on a log of so many events."""
    return functools.partial(_measure, events)


def _measure(events: int, folder: Path) -> list[Figure]:
    shutil.copytree(log_of(events), folder / "busy")
    with Client() as client, ServerProcess(folder / "busy") as server:
        calls = Alerts(server.address, folder / "busy")
        idle_ms = _load(server, calls, client, 0).append_ms
        half = _load(server, calls, client, HALF)
        busy = _load(server, calls, client, BUSY - HALF)
        full = _load(server, calls, client, FULL - BUSY)
        calls.close()
    start_s, none_s = _start(folder / "many")
    return [
        figure(f"alert runs a minute, {events:,} events", full.runs, "1/min", TARGET_RUNS, cpu_us=full.cpu_us),
        figure("delay of a due run at half that load, p99", half.late_s, "s", 1.0, "lower"),
        figure("append during 12,000 runs a minute / idle", busy.append_ms / idle_ms, "", 1.2, "lower"),
        figure(f"start with {MANY:,} alerts", start_s, "s"),
        figure("start without alerts", none_s, "s"),
        figure(f"run with {INSTANCES:,} active instances", _instances(folder / "instances"), "ms"),
        figure(
            f"longest append while a run of {INSTANCES:,} instances with {ACTIONS} actions is written",
            _held(folder / "held"),
            "ms",
            HELD_MS,
            "lower",
        ),
        *_previews(PREVIEWED if events >= PREVIEWED else PREVIEWED_QUICKLY, folder / "previews"),
    ]


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured for a while: runs a minute, the delay of one in a hundred, CPU of a run, a median append."""

    runs: float
    late_s: float
    cpu_us: float
    append_ms: float


def _load(server: ServerProcess, calls: Alerts, client: Client, more: int) -> Load:
    """Make more alerts, let them take their places, and measure while events arrive."""
    calls.create(more)
    if more:
        client.paced(server.address, RATE, int(RATE * SETTLED_S))
    began, cpu_s = time.time(), server.cpu_s()
    sent = client.paced(server.address, RATE, int(RATE * SECONDS))["events"]
    took, cpu_s = time.time() - began, server.cpu_s() - cpu_s
    delays = calls.delays_s(began)
    late_s = statistics.quantiles(delays, n=100)[98] if len(delays) > 1 else 0.0
    append_ms = statistics.median(done - began for _, began, done in sent) * 1e3
    return Load(len(delays) / took * 60, late_s, cpu_s / max(1, len(delays)) * 1e6, append_ms)


def _start(data: Path) -> tuple[float, float]:
    """Start a server with ten thousand alerts and with none; seconds until it listens."""
    took = []
    for alerts in (0, MANY):
        if alerts:
            with ServerProcess(data) as server:
                calls = Alerts(server.address, data)
                calls.create(1, "1d")
                calls.close()
            _multiply(data / "tocsin.db", alerts)
        with ServerProcess(data):
            pass  # the first start of all makes the file
        began = time.perf_counter()
        with ServerProcess(data):
            took.append(time.perf_counter() - began)
    return took[1], took[0]


def _multiply(path: Path, count: int) -> None:
    """Make many alerts of one, as rows: through the API it takes longer than all else here."""
    with closing(sqlite3.connect(path)) as connection:
        for table, name in (("alerts", "id"), ("alert_tasks", "alert_id")):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            others = ", ".join(column for column in columns if column != name)
            connection.execute(
                f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO {table}"
                f" ({name}, {others}) SELECT printf('%032x', i), {others} FROM {table}, n",
                (count - 1,),
            )
        connection.commit()


def _instances(data: Path) -> float:
    """Run an alert with a thousand active instances, written and recorded; the median in milliseconds."""
    with ServerProcess(data) as server:
        calls = Alerts(server.address, data)
        calls.append(INSTANCES)
        alert_id = calls.create(1, "1d", source={"event_types": ["user.named"]}, threshold=1, window="1d")
        took = []
        for _ in range(RUNS):
            began = time.perf_counter()
            run = calls.run(alert_id)
            took.append(time.perf_counter() - began)
        calls.close()
    if len(run.instances) != INSTANCES:
        raise RuntimeError(f"{len(run.instances)} instances are active")
    return statistics.median(took) * 1e3


def _held(data: Path) -> float:
    """Append one event after another while runs schedule messages; the median over runs of the longest, in ms."""
    with ServerProcess(data) as server:
        calls, longest = Alerts(server.address, data), []
        calls.append(INSTANCES)
        actions = calls.actions(ACTIONS)
        params = {"source": {"event_types": ["user.named"]}, "threshold": 1, "window": "1d"}
        alert_id = calls.create(1, "1d", actions, **params)
        for _ in range(RUNS):
            run, took = calls.begin(alert_id), [0.0]
            while not run.done():
                began = time.perf_counter()
                calls.append(1, "user.other")
                took.append(time.perf_counter() - began)
            longest.append(max(took) * 1e3)
        calls.close()
    return statistics.median(longest)


def _stretch(path: Path, events: int) -> None:
    """Spread the times of a log over a day."""
    factor = DAY_US // (events * SPACING_US)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE events SET timestamp = ?1 + (timestamp - ?1) * ?2, created_at = ?1 + (created_at - ?1) * ?2",
            (FIRST_US, factor),
        )
        connection.execute("UPDATE log_head SET created_at = (SELECT max(created_at) FROM events)")
        connection.commit()


def _previews(events: int, data: Path) -> list[Figure]:
    """Preview an alert over a day with the whole log in it, minute by minute: by a column, by a field of details."""
    shutil.copytree(log_of(events), data)
    _stretch(data / "tocsin.db", events)
    found = []
    with ServerProcess(data) as server:
        calls = Alerts(server.address, data)
        for name, field, target in (("a column", "resource_id", 30.0), ("a field of details", "details.digest", 90.0)):
            began = time.perf_counter()
            done = calls.preview(field)
            took = time.perf_counter() - began
            if done.events < events * 0.8:  # some come late, from before the day
                raise RuntimeError(f"{done.events:,} of {events:,} events were read")
            wanted = target if events >= PREVIEWED else None
            found.append(figure(f"preview over {events:,} events by {name}", took, "s", wanted, "lower"))
        calls.close()
    return found
