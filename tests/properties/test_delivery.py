"""Laws of the pure transitions of deliveries: health, settlement, and the turns of lanes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tocsin_server.domain.health import (
    DISABLED_AFTER_US,
    HEALTHY,
    THROTTLE_MAX_S,
    Health,
    HealthState,
    Sign,
    observe,
    tell,
)
from tocsin_server.domain.lanes import AHEAD_MAX, WINDOW_MAX, Key, Lanes
from tocsin_server.domain.notifications import FINAL, Outcome, State
from tocsin_server.domain.settlement import OUTAGE_MAX_S, Plan, settle
from tocsin_server.domain.verdicts import HTTP_STATUS, SECOND_US, ErrorClass, Verdict, rule_of_http, wait_asked

NOW = 1_800_000_000_000_000
SIGNS = st.builds(
    Sign,
    st.sampled_from(Verdict),
    st.sampled_from(ErrorClass),
    st.one_of(st.none(), st.floats(0, 1e11, allow_nan=False)),
)
# What happened, and how long after the one before.
HISTORIES = st.lists(st.tuples(SIGNS, st.integers(0, DISABLED_AFTER_US)), max_size=40)


def lived(history: list[tuple[Sign, int]]) -> tuple[Health, int]:
    health, now = HEALTHY, NOW
    for sign, passed in history:
        now += passed
        health, _ = tell(health, observe(health, sign, now), now)
    return health, now


@given(HISTORIES)
def test_one_success_resets_whatever_was(history: list[tuple[Sign, int]]) -> None:
    health, now = lived(history)
    well = observe(health, Sign(Verdict.DELIVERED, ErrorClass.NONE), now)
    assert (well.state, well.reason, well.failures, well.first_failure_at) == (HealthState.HEALTHY, "", 0, 0)
    assert (well.until, well.throttles, well.broken) == (0, 0, 0)


@given(HISTORIES, SIGNS)
def test_nobody_is_held_for_longer_than_a_day_at_a_time(history: list[tuple[Sign, int]], sign: Sign) -> None:
    health, now = lived(history)
    after = observe(health, sign, now)
    assert after.sends_after <= max(health.sends_after, now + int(THROTTLE_MAX_S * SECOND_US))
    assert (after.state is HealthState.HEALTHY) is (not after.reason)
    assert after.since <= now


@given(HISTORIES, st.sampled_from(ErrorClass))
def test_our_own_outage_changes_nothing(history: list[tuple[Sign, int]], error_class: ErrorClass) -> None:
    health, now = lived(history)
    assert observe(health, Sign(Verdict.OUTAGE, error_class), now) == health


@given(HISTORIES)
def test_disabled_is_left_by_success_only(history: list[tuple[Sign, int]]) -> None:
    health, now = lived([*history, (Sign(Verdict.GONE, ErrorClass.GONE), 0)])
    for verdict in Verdict:
        after = observe(health, Sign(verdict, ErrorClass.SERVER_ERROR), now)
        assert (after.state is HealthState.DISABLED) is (verdict is not Verdict.DELIVERED)


@given(HISTORIES, SIGNS, st.integers(0, 12), st.integers(1, 100), st.floats(0, 0.999), st.integers(0, 9))
def test_every_attempt_ends_or_comes_again_and_never_uses_more_than_one(
    history: list[tuple[Sign, int]], sign: Sign, scheduled: int, attempt: int, jitter: float, length: int
) -> None:
    health, now = lived(history)
    outcome = Outcome(sign.verdict, retry_after_s=sign.wait_s, error_class=sign.error_class)
    after = observe(health, sign, now)
    settlement = settle(outcome, scheduled, attempt, now, Plan(jitter, (60,) * length), after)
    assert settlement.scheduled - scheduled in (0, 1)
    assert (settlement.state in FINAL) or settlement.state in (State.RETRYING, State.PAUSED)
    if settlement.state is State.RETRYING:
        assert now < settlement.due_at <= max(now + int(THROTTLE_MAX_S * SECOND_US), after.sends_after)
    if sign.verdict is Verdict.OUTAGE:
        assert (settlement.state, settlement.scheduled) == (State.RETRYING, scheduled)
        assert settlement.due_at <= now + int(OUTAGE_MAX_S * SECOND_US)
    if settlement.state in FINAL and settlement.state is not State.DELIVERED:
        assert settlement.reason


@given(st.integers(100, 999), st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-remaining"]), st.text()))
def test_every_status_has_a_row(status: int, headers: dict[str, str]) -> None:
    rule = rule_of_http(status, headers)
    assert (rule.verdict is Verdict.DELIVERED) is (200 <= status < 300)
    assert rule.verdict is not Verdict.OUTAGE
    if status in HTTP_STATUS and status != 403:
        assert rule == HTTP_STATUS[status]


@given(st.text())
def test_any_text_of_retry_after_is_a_wait_or_none(text: str) -> None:
    wait = wait_asked({"retry-after": text}, NOW)
    assert wait is None or wait >= 0


KEYS = [(account, f"c{number}") for account in "ab" for number in range(3)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from(KEYS), st.integers(0, 100)),
        st.tuples(st.just("take"), st.sampled_from(KEYS), st.just(0)),
        st.tuples(st.just("choose"), st.just(KEYS[0]), st.integers(0, 50)),
        st.tuples(st.just("end"), st.sampled_from(KEYS), st.integers(0, len(Verdict) - 1)),
        st.tuples(st.just("fail"), st.sampled_from(KEYS), st.integers(0, 100)),
    ),
    max_size=60,
)


class Model:
    """Lanes beside a plain count of what waits in each and what is under way."""

    def __init__(self) -> None:
        self.lanes = Lanes(places=10, suspects=6)
        self.now = NOW
        self.waiting: dict[Key, list[int]] = {key: [] for key in KEYS}
        self.under_way: dict[Key, int] = dict.fromkeys(KEYS, 0)

    def do(self, what: str, key: Key, number: int) -> None:
        getattr(self, what)(key, number)
        assert self.lanes.under_way == sum(self.under_way.values()) <= 10
        assert all(self.lanes.lane(k).in_flight == count for k, count in self.under_way.items())
        unproven = sum(count for k, count in self.under_way.items() if not self.lanes.lane(k).proven)
        assert self.lanes._suspects_left == 6 - unproven

    def wait(self, key: Key, number: int) -> None:
        self.waiting[key].append(self.now + number)
        self.lanes.wait(key, self.now + number)

    def take(self, key: Key, number: int) -> None:
        if self.lanes.take(key, self.now):
            assert not any(due <= self.now for due in self.waiting[key])
            self.under_way[key] += 1

    def choose(self, key: Key, number: int) -> None:
        self.now += number
        for want in self.lanes.choose(self.now):
            due = sorted(d for d in self.waiting[want.key] if d <= self.now)[: want.count]
            for taken in due:
                self.waiting[want.key].remove(taken)
            self.under_way[want.key] += len(due)
            self.lanes.claimed(want, len(due), min(self.waiting[want.key], default=None))

    def end(self, key: Key, number: int) -> None:
        if self.under_way[key]:
            self.under_way[key] -= 1
            self.lanes.ended(key, list(Verdict)[number])

    def fail(self, key: Key, number: int) -> None:
        if self.under_way[key]:
            self.under_way[key] -= 1
            held = Health(HealthState.FAILING, "TIMEOUT", self.now, self.now + number)
            self.lanes.ended(key, Verdict.RETRY, held)


@settings(max_examples=300)
@given(STEPS)
def test_lanes_lose_no_place_and_no_turn(steps: list[tuple[str, Key, int]]) -> None:
    """Whatever happens, places are counted right, and everything that waits is chosen in the end."""
    model = Model()
    for step in steps:
        model.do(*step)
    for _ in range(2000):
        for key in KEYS:
            while model.under_way[key]:
                model.under_way[key] -= 1
                model.lanes.ended(key, Verdict.DELIVERED, HEALTHY)
        if not any(model.waiting.values()):
            break
        next_at = model.lanes.next_at()
        model.now = max(model.now, next_at or model.now)
        model.choose(KEYS[0], 0)
    assert not any(model.waiting.values())


@given(st.integers(1, 60), st.integers(1, 60))
def test_accounts_take_turns(one: int, other: int) -> None:
    """XD32: a long line of one account does not keep the other from its places."""
    lanes = Lanes(places=8, suspects=8)
    for number in range(one):
        lanes.wait(("a", f"c{number}"), NOW)
    for number in range(other):
        lanes.wait(("b", f"c{number}"), NOW)
    counts = {"a": 0, "b": 0}
    for want in lanes.choose(NOW):
        counts[want.key[0]] += want.count
    assert sum(counts.values()) == 8
    assert min(counts.values()) >= min(4, *(8 * n for n in (one, other)))


def test_a_place_that_was_not_used_says_nothing_about_how_quick_a_receiver_is() -> None:
    """Some are claimed ahead of it as long as what is sent is taken soon."""
    lanes, key = Lanes(), ("a", "c")
    for _ in range(WINDOW_MAX):
        assert lanes.take(key, NOW)
        lanes.ended(key, Verdict.DELIVERED, quick=True)
    assert lanes.lane(key).places() == WINDOW_MAX + AHEAD_MAX
    assert lanes.take(key, NOW)
    lanes.give_back(key)
    assert lanes.lane(key).places() == WINDOW_MAX + AHEAD_MAX
    assert lanes.take(key, NOW)
    lanes.ended(key, Verdict.DELIVERED, quick=False)
    assert lanes.lane(key).places() == WINDOW_MAX
