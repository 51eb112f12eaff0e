"""Pages of a long log against pages of a short one: every indexed filter, a prefix, a time range, and depth."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import event_log_pb2 as pb

from bench import filling
from bench.append import Spent, cpu
from bench.results import Figure, ratio
from bench.server import ServerProcess

ROUNDS = 5
CALLS = 40  # of each kind in a round
SMALL = 10_000
PAGE = 100
DEPTH_PAGE = 1000  # events a step on the way down
PROGRESS_S = 5.0
RANGE_EVENTS = 5000  # that the time range means
Call = Callable[[bytes], Any]


def filters(events: int) -> dict[str, pb.EventFilter]:
    """Name what is asked for; each matches more than a page in every log."""
    middle = filling.timestamp_of(events // 2)
    return {
        "no filter": pb.EventFilter(),
        "exact type": pb.EventFilter(types=["user.image.kind_01"]),
        "type prefix": pb.EventFilter(types=["user.image.*"]),
        "resource id": pb.EventFilter(resource_ids=[filling.COMMON_RESOURCE]),
        "service": pb.EventFilter(services=["service-3"]),
        "host": pb.EventFilter(hosts=["host-7"]),
        "errors": pb.EventFilter(levels=[pb.LEVEL_ERROR]),
        "time range": pb.EventFilter(
            since=_time(middle - RANGE_EVENTS // 2 * filling.SPACING_US),
            before=_time(middle + RANGE_EVENTS // 2 * filling.SPACING_US),
        ),
    }


def _time(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def measure(events: int) -> Callable[[Path], Sequence[Figure]]:
    """Make the measurement on a log of so many events."""
    return functools.partial(_measure, events)


def _measure(events: int, _: Path) -> list[Figure]:
    small, large = filling.log_of(SMALL), filling.log_of(events)
    with (
        ServerProcess(small) as short,
        ServerProcess(large) as long,
        grpc.insecure_channel(short.address) as one,
        grpc.insecure_channel(long.address) as other,
    ):
        figures = [
            _compare(name, events, (short, _method(one), wanted), (long, _method(other), filters(events)[name]))
            for name, wanted in filters(SMALL).items()
        ]
        return [*figures, _depth(events, long, _method(other))]


def _method(channel: grpc.Channel) -> Call:
    method: Call = channel.unary_unary("/tocsin.v1.EventLog/ListEvents", lambda body: body, lambda body: body)
    return method


Place = tuple[ServerProcess, Call, pb.EventFilter]


def _compare(name: str, events: int, short: Place, long: Place) -> Figure:
    """Ask both logs for the same kind of page, in turns."""
    took: tuple[list[Spent], list[Spent]] = ([], [])
    for _ in range(ROUNDS):
        for found, (server, call, wanted) in zip(took, (short, long), strict=True):
            found.append(_pages(server, call, pb.ListEventsRequest(filter=wanted, page_size=PAGE)))
    times = [[1 / one.rate for one in found] for found in took]
    return ratio(f"page of {events:,} / {SMALL:,}: {name}", times[1], times[0], 1.3, "lower", cpu(took[1]))


def _pages(server: ServerProcess, call: Call, request: pb.ListEventsRequest) -> Spent:
    """Ask for one page again and again; the rate is that of the median call."""
    body = request.SerializeToString()
    page = pb.ListEventsResponse.FromString(call(body))
    if len(page.events) != PAGE:
        raise RuntimeError(f"a page of {len(page.events)} events is no page to compare")
    before, took = server.cpu_s(), []
    for _ in range(CALLS):
        began = time.perf_counter()
        call(body)
        took.append(time.perf_counter() - began)
    return Spent(1 / statistics.median(took), (server.cpu_s() - before) / CALLS * 1e6)


def _depth(events: int, server: ServerProcess, call: Call) -> Figure:
    """Compare a page half way down the list with the first one."""
    first = pb.ListEventsRequest(page_size=PAGE)
    deep = pb.ListEventsRequest(page_size=PAGE, page_token=_token(call, events // 2))
    near, far = [], []
    for _ in range(ROUNDS):
        near.append(_pages(server, call, first))
        far.append(_pages(server, call, deep))
    times = [1 / one.rate for one in far], [1 / one.rate for one in near]
    return ratio(f"page at depth {events // 2:,} / first page", *times, 2.0, "lower", cpu(far))


def _token(call: Call, depth: int) -> str:
    """Walk down the list, as a client has to."""
    request, said = pb.ListEventsRequest(page_size=DEPTH_PAGE), time.monotonic()
    for walked in range(0, depth, DEPTH_PAGE):
        page = pb.ListEventsResponse.FromString(call(request.SerializeToString()))
        request.page_token = page.next_page_token
        if time.monotonic() - said > PROGRESS_S:
            said = time.monotonic()
            print(f"  {walked:,} of {depth:,} events down the list", flush=True)
    return str(request.page_token)
