"""When alerts run: durations, ticks, and what is left of missed ones."""

from __future__ import annotations

import itertools

import pytest
from tocsin_server.domain.schedule import SECOND_US, Due, DurationError, Ticks, duration_us

MINUTE = 60 * SECOND_US


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("5m", 300), ("1h", 3600), ("1d", 86400), ("365d", 365 * 86400)]
)
def test_durations(text: str, seconds: int) -> None:
    """KD1: a number and a unit."""
    assert duration_us(text) == seconds * SECOND_US


@pytest.mark.parametrize(
    "text",
    ["", "0s", "1.5m", "1w", "90", "-1s", "01s", "1 s", "5M", "1s\n", "٣s", "366d", "99999999999s", "1ms"],
)
def test_what_is_no_duration(text: str) -> None:
    """KD1, XE10: zero, fractions, other units, a hundred years."""
    with pytest.raises(DurationError, match="Invalid duration"):
        duration_us(text)


def test_ticks_lie_at_the_alerts_own_phase() -> None:
    ticks = Ticks.of("some-alert", MINUTE)
    assert ticks == Ticks.of("some-alert", MINUTE)
    assert 0 <= ticks.phase < MINUTE
    first = ticks.after(1_000_000 * MINUTE)
    assert first % MINUTE == ticks.phase
    assert ticks.after(first) == first + MINUTE
    assert ticks.newest(first) == first
    assert ticks.newest(first - 1) == first - MINUTE


def test_phases_spread_over_the_interval() -> None:
    phases = sorted(Ticks.of(f"alert-{n}", MINUTE).phase for n in range(1000))
    gaps = [later - earlier for earlier, later in itertools.pairwise(phases)]
    assert max(gaps) < MINUTE / 50


def test_the_first_run_is_at_once_and_keeps_its_time() -> None:
    ticks = Ticks(MINUTE, 10 * SECOND_US)
    created = 1000 * MINUTE + 30 * SECOND_US
    assert ticks.due(created, created) == Due(created, 0)
    assert ticks.due(created, created - 1) is None
    assert ticks.due(created, created + 5 * SECOND_US) == Due(created, 0)
    assert ticks.after(created) == 1001 * MINUTE + 10 * SECOND_US


def test_three_hours_of_missed_ticks_are_one_run() -> None:
    """XE7: the newest tick that is due, with the gap told, and the next tick in its place."""
    ticks = Ticks(MINUTE, 0)
    due = ticks.due(100 * MINUTE, 280 * MINUTE + 7 * SECOND_US)
    assert due == Due(280 * MINUTE, 180)
    assert ticks.after(due.scheduled_at) == 281 * MINUTE


def test_a_missed_first_run_counts_as_missed() -> None:
    ticks = Ticks(MINUTE, 0)
    assert ticks.due(100 * MINUTE + 1, 102 * MINUTE) == Due(102 * MINUTE, 2)


def test_a_throttle_that_equals_the_interval_lets_every_tick_through() -> None:
    """Trap 9, the schedule's half: however late runs begin, their times are an interval apart."""
    ticks, next_run_at, times = Ticks(MINUTE, 7), 7, []
    for late in [0, 59 * SECOND_US, 1, 30 * SECOND_US, 0]:
        due = ticks.due(next_run_at, next_run_at + late)
        assert due is not None
        times.append(due.scheduled_at)
        next_run_at = ticks.after(due.scheduled_at)
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [MINUTE] * 4
