"""What follows from an answer: the verdict table, the schedule, the health of receivers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from tocsin_server.domain.answers import of_http, of_no_answer, unmade
from tocsin_server.domain.health import (
    BREAKER_FAILURES,
    DISABLED_AFTER_US,
    DISABLED_FAILURES_MIN,
    HEALTHY,
    Health,
    HealthState,
    Sign,
    Told,
    observe,
    tell,
)
from tocsin_server.domain.notifications import Outcome, State
from tocsin_server.domain.settlement import RETRY_SCHEDULE_S, Plan, settle
from tocsin_server.domain.verdicts import SECOND_US, ErrorClass, Verdict, wait_asked

NOW = 1_800_000_000_000_000
HOUR = 3600 * SECOND_US
EVEN = Plan(0.5)
LIMITED = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW // SECOND_US + 90)}
# The table of the product: an answer, its verdict, its class.
ANSWERS = [
    (200, {}, Verdict.DELIVERED, ErrorClass.NONE),
    (204, {}, Verdict.DELIVERED, ErrorClass.NONE),
    (301, {}, Verdict.PERMANENT, ErrorClass.REDIRECT),
    (308, {}, Verdict.PERMANENT, ErrorClass.REDIRECT),
    (400, {}, Verdict.PERMANENT, ErrorClass.REFUSED),
    (413, {}, Verdict.PERMANENT, ErrorClass.REFUSED),
    (415, {}, Verdict.PERMANENT, ErrorClass.REFUSED),
    (422, {}, Verdict.PERMANENT, ErrorClass.REFUSED),
    (401, {}, Verdict.CONFIGURATION, ErrorClass.CREDENTIALS),
    (403, {}, Verdict.CONFIGURATION, ErrorClass.CREDENTIALS),
    (403, {"retry-after": "30"}, Verdict.THROTTLED, ErrorClass.THROTTLED),
    (403, LIMITED, Verdict.THROTTLED, ErrorClass.THROTTLED),
    (404, {}, Verdict.CONFIGURATION, ErrorClass.NOT_FOUND),
    (408, {}, Verdict.RETRY, ErrorClass.TIMEOUT),
    (409, {}, Verdict.RETRY, ErrorClass.CLIENT_ERROR),
    (410, {}, Verdict.GONE, ErrorClass.GONE),
    (429, {}, Verdict.THROTTLED, ErrorClass.THROTTLED),
    (500, {}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    (502, {}, Verdict.RETRY, ErrorClass.OVERLOADED),
    (503, {}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    (504, {}, Verdict.RETRY, ErrorClass.OVERLOADED),
    (599, {}, Verdict.RETRY, ErrorClass.SERVER_ERROR),
    (999, {}, Verdict.RETRY, ErrorClass.PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("status", "headers", "verdict", "error_class"), ANSWERS)
def test_each_answer_has_its_row(
    status: int, headers: dict[str, str], verdict: Verdict, error_class: ErrorClass
) -> None:
    """XD14, XD10."""
    outcome = of_http(status, headers, "words", NOW)
    assert (outcome.verdict, outcome.error_class) == (verdict, error_class)
    assert (outcome.status_code, outcome.response_excerpt) == (status, "words")
    assert bool(outcome.error) is (verdict is not Verdict.DELIVERED)


def test_a_redirect_shows_where_it_leads() -> None:
    assert of_http(302, {"location": "http://x/"}, "", NOW).error == "REDIRECT_NOT_FOLLOWED: http://x/"


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("120", 120.0), ("0", 0.0), ("-5", None), ("soon", None), ("", None), ("1e3", None), ("9" * 11, 99999999999.0),
        ("9" * 12, None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("Wed, 99 Oct 2015", None), ("٣", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_a_date_or_nothing(text: str, wait: float | None) -> None:
    """XD11."""
    assert wait_asked({"retry-after": text}, NOW) == wait


def test_a_date_of_retry_after_is_measured_from_the_attempt() -> None:
    """XD11."""
    moment = datetime.fromtimestamp(NOW / SECOND_US + 90, UTC)
    assert wait_asked({"retry-after": format_datetime(moment, usegmt=True)}, NOW) == 90
    assert wait_asked(LIMITED, NOW) == 90
    assert wait_asked({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "9"}, NOW) is None


def after(*outcomes: Outcome, health: Health = HEALTHY, now: int = NOW) -> Health:
    for outcome in outcomes:
        health = observe(health, Sign(outcome.verdict, outcome.error_class, outcome.retry_after_s), now)
    return health


def answered(status: int, **headers: str) -> Outcome:
    return of_http(status, {name.replace("_", "-"): value for name, value in headers.items()}, "", NOW)


@pytest.mark.parametrize(
    ("outcome", "state", "reason", "scheduled"),
    [
        (answered(200), State.DELIVERED, "", 4),
        (answered(422), State.EXHAUSTED, "PERMANENT", 4),
        (unmade("no"), State.EXHAUSTED, "RENDER", 4),
        (answered(410), State.CANCELLED, "GONE", 4),
        (answered(500), State.RETRYING, "", 4),
        (answered(429), State.RETRYING, "", 3),
        (answered(401), State.PAUSED, "CREDENTIALS", 3),
        (answered(404), State.RETRYING, "", 4),
        (of_no_answer(ErrorClass.DNS_UNAVAILABLE, "x"), State.RETRYING, "", 3),
    ],
)
def test_each_verdict_has_its_next_state(outcome: Outcome, state: State, reason: str, scheduled: int) -> None:
    settlement = settle(outcome, 3, 4, NOW, EVEN, after(outcome))
    assert (settlement.state, settlement.reason, settlement.scheduled) == (state, reason, scheduled)


@pytest.mark.parametrize("schedule", [RETRY_SCHEDULE_S, (1, 2)])
def test_retries_follow_the_schedule_with_jitter_and_then_end(schedule: tuple[int, ...]) -> None:
    """XD16."""
    for scheduled, wait in enumerate(schedule):
        exact, early, late = (
            settle(answered(500), scheduled, scheduled + 1, NOW, Plan(chance, schedule))
            for chance in (0.5, 0.0, 0.999999)
        )
        assert exact.due_at - NOW == wait * SECOND_US
        assert 0.8 * wait * SECOND_US <= early.due_at - NOW <= late.due_at - NOW <= 1.2 * wait * SECOND_US
        assert exact.scheduled == scheduled + 1
    ended = settle(answered(500), len(schedule), 10, NOW, Plan(0.5, schedule))
    assert (ended.state, ended.reason) == (State.EXHAUSTED, "ATTEMPTS")


def test_what_the_receiver_asks_for_is_clamped_and_holds_the_whole_configuration() -> None:
    """XD11."""
    for asked, waits in (("120", 120), ("0", 1), ("99999999999", 24 * 3600), ("junk", 60)):
        health = after(answered(429, retry_after=asked))
        assert (health.state, health.reason) == (HealthState.THROTTLED, "THROTTLED")
        assert health.sends_after == NOW + waits * SECOND_US
        assert settle(answered(429), 0, 1, NOW, EVEN, health).due_at == health.until
    late = settle(answered(503, retry_after="600"), 0, 1, NOW, EVEN)
    assert (late.due_at, late.scheduled) == (NOW + 600 * SECOND_US, 1)
    assert after(answered(503, retry_after="600")).sends_after == NOW + 600 * SECOND_US


def test_without_a_word_how_long_the_wait_doubles_and_a_wave_counts_once() -> None:
    health, now, waits = HEALTHY, NOW, []
    for _ in range(4):
        wave = after(*[answered(429)] * 8, health=health, now=now)
        waits.append((wave.until - now) // SECOND_US)
        health, now = wave, wave.until
    assert waits == [60, 120, 240, 480]
    assert after(answered(200), health=health, now=now).throttles == 0


def test_the_breaker_opens_after_five_and_probes_less_and_less_often() -> None:
    """XD12."""
    health = after(*[answered(500)] * (BREAKER_FAILURES - 1))
    assert health.state is HealthState.HEALTHY
    now, waits = NOW, []
    for _ in range(10):
        health = after(answered(500), health=health, now=now)
        late = after(answered(500), health=health, now=now)  # was under way when the breaker opened
        assert (late.until, late.state, late.reason) == (health.until, HealthState.FAILING, "SERVER_ERROR")
        waits.append((health.until - now) // SECOND_US)
        now = health.until
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]
    assert after(answered(200), health=health, now=now).state is HealthState.HEALTHY


def test_an_overloaded_receiver_is_slowed_down() -> None:
    health = after(answered(502))
    assert (health.state, health.reason, health.until) == (HealthState.THROTTLED, "OVERLOADED", NOW + 10 * SECOND_US)


def test_refused_credentials_pause_at_once_an_unknown_address_after_three() -> None:
    """XD14."""
    health = after(answered(401))
    assert (health.state, health.pauses, health.until) == (HealthState.FAILING, "CREDENTIALS", NOW + HOUR)
    assert after(answered(404), answered(404)).pauses == ""
    assert after(answered(404), answered(404), answered(404)).pauses == "NOT_FOUND"
    assert after(answered(404), answered(404), answered(500), answered(404)).pauses == ""
    # Another fault at the hourly probe does not repair the credentials.
    probed = after(answered(500), health=health, now=NOW + HOUR)
    assert (probed.pauses, probed.until) == ("CREDENTIALS", NOW + 2 * HOUR)


def test_our_own_outage_blames_nobody() -> None:
    for error_class in (ErrorClass.DNS_UNAVAILABLE, ErrorClass.NETWORK_UNREACHABLE, ErrorClass.INTERNAL):
        outcome = of_no_answer(error_class, "x")
        assert outcome.verdict is Verdict.OUTAGE
        failing = after(*[answered(500)] * 7)
        assert after(outcome, health=failing) is failing
    waits = [settle(outcome, 2, attempt, NOW, EVEN).due_at - NOW for attempt in (3, 4, 5, 90)]
    assert [wait // SECOND_US for wait in waits] == [5, 10, 20, 300]


def test_five_days_of_failures_disable_and_one_success_begins_anew() -> None:
    """XD15."""
    health = HEALTHY
    for number in range(DISABLED_FAILURES_MIN + 1):
        health = after(answered(500), health=health, now=NOW + number * (DISABLED_AFTER_US // 10))
        assert (health.state is HealthState.DISABLED) is (number == 10)
    assert health.reason == "FAILURES"
    assert after(answered(500), health=health).state is HealthState.DISABLED
    assert after(answered(200), health=health) == Health(since=NOW)
    few = after(answered(500), answered(500), now=NOW)
    assert after(answered(500), health=few, now=NOW + 2 * DISABLED_AFTER_US).state is not HealthState.DISABLED


def test_the_log_is_told_at_the_first_failure_at_three_percentages_and_at_the_end() -> None:
    """XD15."""
    health, told = HEALTHY, []
    for step in range(101):
        new = after(answered(500), health=health, now=NOW + step * (DISABLED_AFTER_US // 100))
        health, word = tell(health, new, NOW + step * (DISABLED_AFTER_US // 100))
        if word is not None:
            told.append((step, word, health.told_percent))
    assert told == [
        (0, Told.FAILING, 0), (50, Told.FAILING, 50), (70, Told.FAILING, 70), (90, Told.FAILING, 90),
        (100, Told.DISABLED, 100),
    ]  # fmt: skip
    assert tell(health, after(answered(200), health=health), NOW)[1] is Told.RECOVERED


def test_a_receiver_that_fails_now_and_then_is_told_of_once_an_hour() -> None:
    health, told = HEALTHY, 0
    for minute in range(180):
        now = NOW + minute * 60 * SECOND_US
        for outcome in (answered(500), answered(200)):
            health, word = tell(health, after(outcome, health=health, now=now), now)
            told += word is not None
    assert told == 3


def test_gone_is_gone() -> None:
    """XD13."""
    health = after(answered(410))
    assert (health.state, health.pauses) == (HealthState.DISABLED, "GONE")
    assert after(answered(500), health=health) == health


def test_a_disabled_receiver_pauses_what_comes_back() -> None:
    disabled = replace(HEALTHY, state=HealthState.DISABLED, reason="FAILURES")
    assert settle(answered(500), 0, 1, NOW, EVEN, disabled).state is State.PAUSED
