"""Fan-out: events delivered to many subscribers, how late, and what a reader that has stalled costs the others."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from pathlib import Path

from bench.append import Spent, cpu, noop, rate
from bench.load import Client
from bench.readers import Readers
from bench.results import Figure, figure, ratio
from bench.server import ServerProcess

ROUNDS = 5
PROCESSES = 2  # that read
STREAMS_PER_CHANNEL = 25
BATCH = 100
BATCHES = {100: 40, 1000: 8}  # appended in a round, by the number of subscribers
LATENCY_STREAMS = 4
LATENCY_PER_S = 200.0
LATENCY_EVENTS = 200
LATENCY_PAUSE_EVENTS = 20  # at the beginning of a round, which are not counted


def throughput(folder: Path) -> list[Figure]:
    """Measure delivered events against no-op calls: to 100 subscribers, and to 1000."""
    calls: list[Spent] = []
    delivered: dict[int, list[Spent]] = {streams: [] for streams in BATCHES}
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(folder))
        client = stack.enter_context(Client())
        readers = [stack.enter_context(Readers()) for _ in range(PROCESSES)]
        noop(server, client)
        for _ in range(ROUNDS):
            calls.append(noop(server, client))
            for streams, batches in BATCHES.items():
                _open(server, readers, streams)
                delivered[streams].append(_deliver(server, client, readers, streams, batches))
                for reader in readers:
                    reader.cancel()
    hundred, thousand = delivered[100], delivered[1000]
    rates = [one.rate for one in hundred]
    return [
        ratio("delivered to 100 subscribers / no-op", rates, [c.rate for c in calls], 200, cpu_us=cpu(hundred)),
        figure("delivered to 100 subscribers", rate(hundred), "events/s", cpu_us=cpu(hundred)),
        ratio("delivered to 1000 / to 100 subscribers", [t.rate for t in thousand], rates, 0.85, cpu_us=cpu(thousand)),
    ]


def _open(server: ServerProcess, readers: list[Readers], streams: int) -> None:
    for reader in readers:
        mine = streams // len(readers)
        reader.open(server.address, mine, max(1, mine // STREAMS_PER_CHANNEL))


def _deliver(server: ServerProcess, client: Client, readers: list[Readers], streams: int, batches: int) -> Spent:
    """Append batches and wait until everybody has them: from the first append to the last arrival."""
    before = server.cpu_s()
    sent = client.batches(server.address, BATCH, batches)
    for reader in readers:
        reader.tell(do="reach", position=sent["position"])
    last = max(reader.reached() for reader in readers)
    count = streams * batches * BATCH
    return Spent(count / (last - sent["began"]), (server.cpu_s() - before) / count * 1e6)


def latency(folder: Path) -> list[Figure]:
    """Measure how long an event takes to a subscriber, against how long its append takes."""
    acknowledged: list[float] = []
    arrived: list[float] = []
    with ServerProcess(folder) as server, Client() as client, Readers() as readers:
        readers.open(server.address, LATENCY_STREAMS, LATENCY_STREAMS)
        for _ in range(ROUNDS):
            readers.ask(do="record")
            events = client.paced(server.address, LATENCY_PER_S, LATENCY_EVENTS)["events"]
            readers.tell(do="reach", position=max(position for position, _, _ in events))
            readers.reached()
            times = readers.ask(do="times")["times"]
            counted = {position: sent for position, sent, _ in events[LATENCY_PAUSE_EVENTS:]}
            late = [time - counted[position] for position, time in times if position in counted]
            arrived.append(statistics.median(late))
            acknowledged.append(statistics.median(done - sent for _, sent, done in events[LATENCY_PAUSE_EVENTS:]))
    return [
        ratio("append to subscriber / acknowledged", arrived, acknowledged, 1.0, "lower"),
        figure("append to subscriber, median, 200/s", statistics.median(arrived) * 1e3, "ms"),
    ]


def stalled(folder: Path) -> list[Figure]:
    """Measure what 99 subscribers get with and without one beside them that reads nothing."""
    alone: list[Spent] = []
    beside: list[Spent] = []
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(folder))
        client = stack.enter_context(Client())
        readers = [stack.enter_context(Readers()) for _ in range(PROCESSES)]
        still = stack.enter_context(Readers())
        for reader, streams in zip(readers, (50, 49), strict=True):
            reader.open(server.address, streams, 2)
        _deliver(server, client, readers, 99, BATCHES[100])
        for number in range(ROUNDS):
            # Turn by turn in another order, so that what grows with the log is in both.
            for with_stalled in (False, True) if number % 2 else (True, False):
                if with_stalled:
                    still.ask(do="open", address=server.address, streams=1, channels=1, reads=False)
                _deliver(server, client, readers, 99, BATCHES[100] // 4)  # fills what the stalled one may be sent
                (beside if with_stalled else alone).append(_deliver(server, client, readers, 99, BATCHES[100]))
                still.cancel()
    lost = [1 - one.rate / other.rate for one, other in zip(beside, alone, strict=True)]
    return [figure("lost by 99 when one stalls", statistics.median(lost), "share", 0.05, "lower", cpu(beside))]
