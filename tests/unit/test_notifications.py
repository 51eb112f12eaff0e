"""The transitions of a delivery, and small rules around them."""

from __future__ import annotations

import pytest
from tocsin_server.domain.notifications import (
    RETRY_SCHEDULE_S,
    Outcome,
    State,
    Verdict,
    kept,
    masked,
    renewed,
    resumed,
    settle,
)
from tocsin_server.domain.selection import Selector

NOW = 1_000_000_000
SECOND = 1_000_000


@pytest.mark.parametrize(
    ("verdict", "state", "reason"),
    [
        (Verdict.DELIVERED, State.DELIVERED, ""),
        (Verdict.PERMANENT, State.EXHAUSTED, "PERMANENT"),
        (Verdict.GONE, State.CANCELLED, "GONE"),
        (Verdict.RETRY, State.RETRYING, ""),
        (Verdict.THROTTLED, State.RETRYING, ""),
    ],
)
def test_each_verdict_has_its_next_state(verdict: Verdict, state: State, reason: str) -> None:
    settlement = settle(Outcome(verdict), 0, 1, NOW, 0.5)
    assert (settlement.state, settlement.reason) == (state, reason)


def test_retries_follow_the_schedule_with_jitter_and_then_end() -> None:
    for scheduled, wait in enumerate(RETRY_SCHEDULE_S):
        exact = settle(Outcome(Verdict.RETRY), scheduled, scheduled + 1, NOW, 0.5)
        early, late = (
            settle(Outcome(Verdict.RETRY), scheduled, scheduled + 1, NOW, chance) for chance in (0.0, 0.999999)
        )
        assert exact.due_at - NOW == wait * SECOND
        assert 0.8 * wait * SECOND <= early.due_at - NOW <= late.due_at - NOW <= 1.2 * wait * SECOND
        assert exact.scheduled == scheduled + 1
    ended = settle(Outcome(Verdict.RETRY), len(RETRY_SCHEDULE_S), 10, NOW, 0.5)
    assert (ended.state, ended.reason) == (State.EXHAUSTED, "ATTEMPTS")


def test_waiting_as_asked_uses_up_no_attempt_and_is_clamped() -> None:
    assert settle(Outcome(Verdict.THROTTLED, retry_after_s=120), 3, 4, NOW, 0.5).scheduled == 3
    assert settle(Outcome(Verdict.THROTTLED, retry_after_s=120), 3, 4, NOW, 0.5).due_at == NOW + 120 * SECOND
    assert settle(Outcome(Verdict.THROTTLED), 3, 4, NOW, 0.5).due_at == NOW + 60 * SECOND
    assert settle(Outcome(Verdict.THROTTLED, retry_after_s=1e9), 3, 4, NOW, 0.5).due_at == NOW + 24 * 3600 * SECOND
    assert settle(Outcome(Verdict.RETRY, retry_after_s=60), 0, 1, NOW, 0.5).due_at == NOW + 60 * SECOND


def test_a_receiver_that_asks_to_wait_without_end_is_asked_less_and_less_often() -> None:
    waits = [
        (settle(Outcome(Verdict.THROTTLED, retry_after_s=1), 0, attempt, NOW, 0.5).due_at - NOW) / SECOND
        for attempt in (1, 2, 3, 9, 12, 10_000)
    ]
    assert waits == [1, 2, 4, 256, 600, 600]


def test_what_was_paused_too_long_is_cancelled() -> None:
    assert resumed(NOW - 5, NOW, 5) == (State.PENDING, "")
    assert resumed(NOW - 6, NOW, 5) == (State.CANCELLED, "EXPIRED")


def test_secrets_show_their_end_only_when_long_and_are_kept_when_written_back() -> None:
    assert masked("") == ""
    assert masked("short") == "****"
    assert masked("0123456789abcdef") == "****cdef"
    assert kept("****cdef", "0123456789abcdef") == "0123456789abcdef"
    assert kept("****other", "0123456789abcdef") == "****other"
    assert kept("", "old") == ""


def test_a_new_selector_begins_at_the_head_and_an_old_one_keeps_its_place() -> None:
    old = Selector("account", "*", "a.*", "*", after_position=5)
    new = Selector("account", "*", "b.*", "*")
    assert [s.after_position for s in renewed([old], [new, old], 9)] == [9, 5]
