"""Routing and templates, the pure parts: what an event costs at ten and at a hundred thousand selectors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tocsin_server.domain.event_log import EventHead
from tocsin_server.domain.selection import Selector, SelectorIndex
from tocsin_server.domain.templates import Escape, parse, render
from tocsin_server.domain.variables import Variables, event_data
from tocsin_server.store import wire

from bench.events import sample_event
from bench.results import Figure, figure, ratio

SIZES = (10, 10_000, 100_000)
ROUNDS = 5
EVENTS = 2000
MATCHES = 5  # configurations that are told of each event, whatever the number of selectors
CONFIGURATION = "0" * 32
TEMPLATE = (
    '{"text": "[{{level}}] {{message}}", "on": "{{source.host}}", "labels": {{{labels}}}, "n": {{details.exitcode}}}'
)


def index_of(size: int) -> SelectorIndex:
    """Make an index in which each event meets as many selectors, and all others are of other types."""
    index = SelectorIndex()
    for number in range(size):
        matches = number < MATCHES
        event_type = "user.image.*" if matches else f"user.service{number % 1000}.thing{number}.*"
        index.add("admin", f"{number:032x}", Selector("account", "*", event_type, "*"))
    return index


def heads(count: int) -> list[EventHead]:
    """Make heads that differ, so that each is looked up anew."""
    return [
        EventHead("admin", f"user.image.event{n}", "", 1, "image_tag", "nginx", "", "scanner", "h", {}, n)
        for n in range(count)
    ]


def per_call_us(call: Callable[[int], object], count: int) -> float:
    """Time many calls; microseconds of each."""
    began = time.perf_counter()
    for number in range(count):
        call(number)
    return (time.perf_counter() - began) / count * 1e6


def routing(folder: Path) -> list[Figure]:
    """Measure the index of selectors, cold and warm, in interleaved rounds."""
    figures: list[Figure] = []
    indexes = {size: index_of(size) for size in SIZES}
    warm: dict[int, list[float]] = {size: [] for size in SIZES}
    cold: dict[int, list[float]] = {size: [] for size in SIZES}
    fresh, same = heads(EVENTS), heads(1)[0]
    for number in range(ROUNDS):
        for size, index in indexes.items():
            # Types that the index has not met in this round or the last.
            asked = [head._replace(type=f"{head.type}r{number}") for head in fresh]
            cold[size].append(per_call_us(lambda n, i=index, a=asked: i.matching(n, a[n]), EVENTS))  # type: ignore[misc]
            found = index.matching(1, same)
            assert len(found) == MATCHES
            warm[size].append(per_call_us(lambda n, i=index: i.matching(n + 1, same), EVENTS))  # type: ignore[misc]
    for size in SIZES[1:]:
        figures.append(ratio(f"routing at {size:,} selectors / at 10, warm", warm[size], warm[10], 1.5, "lower"))
    figures.append(figure("routing at 100,000 selectors, cold", statistics.median(cold[100_000]), "us", 20, "lower"))
    return figures


def templates(folder: Path) -> list[Figure]:
    """Measure the rendering of a usual template, read before."""
    event = sample_event()
    event.id, event.position, event.account = CONFIGURATION, 1, "admin"
    stored = wire.decode(wire.frame(event.SerializeToString(), 1, wire.created_at_field(1)))
    values = event_data(stored)
    parse(TEMPLATE)
    taken: Sequence[float] = [
        per_call_us(lambda n: render(TEMPLATE, Variables(values), Escape.JSON), EVENTS) for _ in range(ROUNDS)
    ]
    return [figure("rendering a template of five tags", statistics.median(taken), "us", None, "lower")]
