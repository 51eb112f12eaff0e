"""How fast a line gets shorter, and what counts values by their size."""

from __future__ import annotations

import math

import pytest
from tocsin_server.domain.histograms import Histogram
from tocsin_server.domain.pace import Pace


def test_nothing_is_known_of_a_line_before_something_moves() -> None:
    pace = Pace()
    assert pace.seconds_for(0) == 0
    assert pace.seconds_for(5) == math.inf
    pace.look(100.0, 7)
    assert pace.seconds_for(5) == math.inf
    pace.look(100.0, 7)
    pace.look(101.0, 7)
    assert pace.seconds_for(5) == math.inf


def test_a_line_gets_shorter_at_the_rate_of_the_last_minute() -> None:
    """XD32: a million wait; what was long ago does not count."""
    pace = Pace()
    pace.look(0.0, 0)
    pace.look(10.0, 20_000)
    assert pace.seconds_for(980_000) == 490
    for second in range(20, 130, 10):
        pace.look(second, 20_000 + (second - 10) * 100)
    assert pace.rate == 100
    assert pace.seconds_for(100_000) == 1000
    for second in range(130, 200, 10):
        pace.look(second, 31_000)
    assert pace.seconds_for(1) == math.inf


def test_a_value_counts_for_every_bound_that_it_does_not_exceed() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.1000001, 1.0, 5.0):
        histogram.saw(value)
    assert histogram.cumulative() == [2, 4, 5]
    assert histogram.total == pytest.approx(6.2)
