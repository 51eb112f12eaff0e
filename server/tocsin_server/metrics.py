"""What the server counts, as text for Prometheus, on a port of its own.

The only importer of prometheus_client, itself imported only where a port is wanted. The parts count in
plain numbers, whether or not anybody asks; here they are read when somebody does, and named. No label has a
value that users choose: methods, codes, kinds, verdicts and states are all that there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tocsin_server.api.pulse import Pulse
from tocsin_server.api.server import Guard, probe
from tocsin_server.dispatch.dispatcher import Dispatcher
from tocsin_server.dispatch.execution import Execution
from tocsin_server.domain.deliveries import DeliveryLine, DeliverySums
from tocsin_server.domain.histograms import Histogram
from tocsin_server.domain.pace import Pace
from tocsin_server.domain.ports import Runtime
from tocsin_server.store.database import LogFile
from tocsin_server.store.delivery_store import Deliveries
from tocsin_server.store.tail import Tail
from tocsin_server.store.writer import Writer

log = structlog.get_logger("tocsin.metrics")
PATH = "/metrics"
LOOK_EVERY_S = 5.0  # at the pace of deliveries: whoever asks seldom gets the rate of the last minute too
STOP_S = 1.0  # for answers under way
HEADERS = {"Server": "tocsin"}


@dataclass(frozen=True, slots=True)
class Watched:
    """The parts that are asked."""

    guard: Guard
    pulse: Pulse
    tail: Tail
    writer: Writer
    write_ahead_log: LogFile
    deliveries: Deliveries
    dispatcher: Dispatcher
    execution: Execution | None


class Metrics:
    """The port where the metrics are read. Until `serve` it answers that there are none yet."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._runner: web.AppRunner | None = None
        self._watched: Watched | None = None
        self._pace = Pace()
        self._looking: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[bytes] | None = None

    async def bind(self, listen: str, port: int) -> int:
        """Take the port and give it; OSError when the address cannot be had."""
        await probe(listen, port)
        application = web.Application()
        application.router.add_get(PATH, self._answer)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, listen, port).start()
        return int(self._runner.addresses[0][1])

    def serve(
        self,
        guard: Guard,
        pulse: Pulse,
        tail: Tail,
        writer: Writer,
        write_ahead_log: LogFile,
        deliveries: Deliveries,
        dispatcher: Dispatcher,
        execution: Execution | None,
    ) -> None:
        """Begin to answer with what the parts say."""
        watched = Watched(guard, pulse, tail, writer, write_ahead_log, deliveries, dispatcher, execution)
        self._watched = watched
        self._looking = asyncio.get_running_loop().create_task(self._look_now_and_then(watched))

    async def stop(self) -> None:
        """Answer nobody any more and give the port free; a second time does nothing."""
        self._watched = None
        tasks = [task for task in (self._looking, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.Response:
        watched = self._watched
        if watched is None:
            return web.Response(status=503, text="the server opens its store; try again\n", headers=HEADERS)
        # Whoever asks while an answer is being made gets that one: many that ask cost no more than one.
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(watched))
        try:
            text = await asyncio.shield(self._reading)
        except Exception:
            log.exception("the metrics could not be read")
            return web.Response(status=500, text="the metrics could not be read; see the log\n", headers=HEADERS)
        return web.Response(body=text, headers={**HEADERS, "Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _read(self, watched: Watched) -> bytes:
        sums, line = await watched.deliveries.sums_and_line(self._runtime.now())
        self._look(watched)
        found = [
            *_of_deliveries(sums, line, self._pace, watched.dispatcher),
            *_of_the_log(watched),
            *_of_calls(watched.guard, watched.pulse),
            *_of_runs(watched.execution),
        ]
        # In a thread: a thousand lines are some milliseconds, in which calls go on.
        return await asyncio.to_thread(generate_latest, _Collected(found))

    def _look(self, watched: Watched) -> None:
        self._pace.look(self._runtime.monotonic(), sum(dict(watched.dispatcher.attempts).values()))

    async def _look_now_and_then(self, watched: Watched) -> None:
        while True:
            self._look(watched)
            await asyncio.sleep(LOOK_EVERY_S)


class _Collected(Collector):
    """Figures that have been read, in the form that the library asks for."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _of_deliveries(sums: DeliverySums, line: DeliveryLine, pace: Pace, dispatcher: Dispatcher) -> list[Metric]:
    states = {
        "delivered": sums.delivered,
        "exhausted": sums.exhausted,
        "cancelled": sums.cancelled,
        "silenced": sums.silenced,
        "open": sums.open,
    }
    attempts = CounterMetricFamily(
        "tocsin_delivery_attempts", "Attempts that have ended, since the start.", labels=("kind", "verdict")
    )
    for (kind, verdict), count in dict(dispatcher.attempts).items():  # a copy: another thread counts on
        attempts.add_metric((kind, verdict.value), count)
    return [
        CounterMetricFamily("tocsin_deliveries_routed", "Deliveries that were ever routed.", value=sums.routed),
        _labelled("tocsin_deliveries", "Routed deliveries by what has become of them.", "state", states),
        _gauge(
            "tocsin_deliveries_unaccounted",
            "Routed deliveries that are in none of the states; always 0.",
            sums.routed - sum(states.values()),
        ),
        _gauge("tocsin_deliveries_waiting", "Deliveries that wait to be sent or sent again.", line.waiting),
        _gauge("tocsin_deliveries_due", "Deliveries that wait though their time has come: the line.", line.due),
        _gauge(
            "tocsin_deliveries_eta_seconds",
            "Until the line is empty, at the rate of attempts of the last minute; +Inf when there were none.",
            pace.seconds_for(line.due),
        ),
        attempts,
    ]


def _of_the_log(watched: Watched) -> list[Metric]:
    units, size = watched.writer.waiting
    return [
        _gauge("tocsin_log_head_position", "The newest position of the log.", watched.tail.head),
        _gauge(
            "tocsin_router_lag_events",
            "Positions that the router has not looked at; 0 while there are no selectors.",
            watched.dispatcher.behind,
        ),
        _gauge("tocsin_writer_queue_units", "Changes of the store that wait for the writer.", units),
        _gauge("tocsin_writer_queue_bytes", "Bytes of the appends that wait for the writer.", size),
        _gauge(
            "tocsin_store_wal_bytes", "Length of the store's write-ahead log (WAL).", watched.write_ahead_log.size()
        ),
    ]


def _of_calls(guard: Guard, pulse: Pulse) -> list[Metric]:
    handled = CounterMetricFamily(
        "tocsin_grpc_server_handled", "Calls that have ended, streams too, since the start.", labels=("method", "code")
    )
    durations = HistogramMetricFamily(
        "tocsin_grpc_server_handling_seconds", "How long calls took that answer once.", labels=("method",)
    )
    for method in guard.handled:
        for code, count in method.codes.items():
            handled.add_metric((method.name, code), count)
        if method.durations is not None and method.codes:
            durations.add_metric((method.name,), _buckets(method.durations), method.durations.total)
    lag = HistogramMetricFamily(
        "tocsin_event_loop_lag_seconds", "How late the event loop of the calls was, looked at 20 times a second."
    )
    lag.add_metric((), _buckets(pulse.lateness), pulse.lateness.total)
    open_streams = _gauge("tocsin_grpc_server_open_streams", "Streams that are open.", guard.streams)
    return [handled, durations, open_streams, lag]


def _of_runs(execution: Execution | None) -> list[Metric]:
    runs = CounterMetricFamily(
        "tocsin_alert_runs", "Runs of alerts that were written, since the start.", labels=("status",)
    )
    delays = HistogramMetricFamily(
        "tocsin_alert_run_delay_seconds", "How long after its time a run of an alert has begun."
    )
    if execution is not None:
        for status, count in dict(execution.statuses).items():
            runs.add_metric((status.value.lower(),), count)
        delays.add_metric((), _buckets(execution.delays), execution.delays.total)
    return [runs, delays]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    return list(zip(bounds, histogram.cumulative(), strict=True))
