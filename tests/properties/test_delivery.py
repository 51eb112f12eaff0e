"""Laws of the pure transitions of deliveries: health, settlement, and the turns of lanes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tocsin_server.domain import lane as lane_module
from tocsin_server.domain import lanes as lanes_module
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
from tocsin_server.domain.lane import AHEAD_MAX, WINDOW_MAX, Key
from tocsin_server.domain.lanes import Lanes, Want
from tocsin_server.domain.notifications import FINAL, EndpointConfiguration, Outcome, State
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
        st.tuples(st.just("arrive"), st.sampled_from(KEYS), st.just(0)),
        st.tuples(st.just("drop"), st.sampled_from(KEYS), st.just(0)),
        st.tuples(st.just("choose"), st.just(KEYS[0]), st.integers(0, 50)),
        st.tuples(st.just("end"), st.sampled_from(KEYS), st.integers(0, len(Verdict) - 1)),
        st.tuples(st.just("fail"), st.sampled_from(KEYS), st.integers(0, 100)),
        st.tuples(st.just("quick"), st.sampled_from(KEYS), st.just(0)),
    ),
    max_size=100,
)


class Model:
    """Lanes beside a plain count of what waits in each, what is claimed and on its way, in stock, and being sent."""

    def __init__(self) -> None:
        self.lanes = Lanes(places=10, suspects=6)
        self.now = NOW
        self.waiting: dict[Key, list[int]] = {key: [] for key in KEYS}
        self.claimed: dict[Key, int] = dict.fromkeys(KEYS, 0)
        self.stock: dict[Key, int] = dict.fromkeys(KEYS, 0)
        self.sending: dict[Key, int] = dict.fromkeys(KEYS, 0)

    def do(self, what: str, key: Key, number: int) -> None:
        getattr(self, what)(key, number)
        found = {k: self.lanes.lane(k) for k in KEYS}
        assert self.lanes.under_way == sum(lane.in_flight for lane in found.values()) <= 10
        for k, lane in found.items():
            assert self.sending[k] <= lane.in_flight
            assert self.sending[k] + self.stock[k] + self.claimed[k] == lane.in_flight + lane.ahead
        assert self.lanes._suspects_left == 6 - sum(lane.in_flight for lane in found.values() if not lane.proven)
        assert self.lanes._ahead_left == lanes_module.AHEAD_ALL_MAX - sum(lane.ahead for lane in found.values())

    def wait(self, key: Key, number: int) -> None:
        self.waiting[key].append(self.now + number)
        self.lanes.wait(key, self.now + number)

    def take(self, key: Key, number: int) -> None:
        if self.lanes.take(key, self.now):
            assert not any(due <= self.now for due in self.waiting[key])
            self.claimed[key] += 1

    def arrive(self, key: Key, number: int) -> None:
        if self.claimed[key]:
            self.claimed[key] -= 1
            self.stock[key] += 1
            self.serve(key)

    def drop(self, key: Key, number: int) -> None:
        if self.claimed[key]:
            self.claimed[key] -= 1
            self.lanes.give_back(key)

    def serve(self, key: Key) -> None:
        lane = self.lanes.lane(key)
        while self.stock[key] and (self.sending[key] < lane.in_flight or self.lanes.proceed(key, self.now)):
            self.stock[key] -= 1
            self.sending[key] += 1
        if self.stock[key] and not lane.keeps_stock:
            for _ in range(self.stock[key]):
                self.lanes.give_back(key)
                self.wait(key, 0)
            self.stock[key] = 0

    def choose(self, key: Key, number: int) -> None:
        self.now += number
        wants = self.lanes.choose(self.now)
        for want in wants:
            self.serve(want.key)
            due = sorted(d for d in self.waiting[want.key] if d <= self.now)[: want.count]
            for taken in due:
                self.waiting[want.key].remove(taken)
            self.claimed[want.key] += len(due)
            if want.count:
                self.lanes.claimed(want, len(due), min(self.waiting[want.key], default=None))
            for _ in due:
                self.arrive(want.key, 0)

    def end(self, key: Key, number: int) -> None:
        self.ended(key, list(Verdict)[number])

    def quick(self, key: Key, number: int) -> None:
        self.ended(key, Verdict.DELIVERED, HEALTHY, quick=True)

    def fail(self, key: Key, number: int) -> None:
        self.ended(key, Verdict.RETRY, Health(HealthState.FAILING, "TIMEOUT", self.now, self.now + number))

    def ended(self, key: Key, verdict: Verdict, health: Health | None = None, quick: bool = False) -> None:
        if self.sending[key]:
            self.sending[key] -= 1
            self.lanes.ended(key, verdict, health, quick)
            self.serve(key)


@settings(max_examples=400)
@given(STEPS)
def test_lanes_lose_no_place_and_no_turn(steps: list[tuple[str, Key, int]]) -> None:
    """Whatever happens, places and stock are counted right, and everything that waits is sent in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane_module, "WINDOW_MAX", 3)  # wide soon, so that some are claimed ahead
        patch.setattr(lane_module, "AHEAD_MAX", 4)
        patch.setattr(lanes_module, "AHEAD_ALL_MAX", 6)
        model = Model()
        for step in steps:
            model.do(*step)
        for _ in range(2000):
            for key in KEYS:
                while model.claimed[key]:
                    model.arrive(key, 0)
                while model.sending[key]:
                    model.ended(key, Verdict.DELIVERED, HEALTHY)
            if not any(model.waiting.values()) and not any(model.stock.values()):
                break
            next_at = model.lanes.next_at()
            model.now = max(model.now, next_at or model.now)
            model.do("choose", KEYS[0], 0)
        assert not any(model.waiting.values())
        assert not any(model.stock.values())
        assert model.lanes.under_way == 0


def stocked(lanes: Lanes, key: Key, count: int) -> None:
    """Have a lane show that it is quick, fill its window, and claim so many ahead."""
    for _ in range(WINDOW_MAX):
        assert lanes.take(key, NOW)
        lanes.ended(key, Verdict.DELIVERED, quick=True)
    for _ in range(WINDOW_MAX + count):
        assert lanes.take(key, NOW)
    assert (lanes.lane(key).in_flight, lanes.lane(key).ahead) == (WINDOW_MAX, count)


def test_a_place_stays_with_a_lane_that_has_stock_until_another_waits_for_one() -> None:
    """Who has much in stock keeps nobody from their turn."""
    lanes, long, other = Lanes(places=WINDOW_MAX), ("a", "c"), ("b", "c")
    stocked(lanes, long, 10)
    lanes.ended(long, Verdict.DELIVERED, quick=True)
    assert lanes.proceed(long, NOW)
    assert lanes.lane(long).ahead == 9
    lanes.wait(other, NOW)
    assert lanes.choose(NOW) == []  # all places are taken
    turns = []
    for _ in range(2):
        lanes.ended(long, Verdict.DELIVERED, quick=True)
        assert not lanes.proceed(long, NOW)
        turns += [(want.key, want.count) for want in lanes.choose(NOW)]
    assert sorted(turns) == [(long, 0), (other, 1)]  # the one is served from stock
    assert (lanes.lane(long).in_flight, lanes.lane(long).ahead) == (WINDOW_MAX - 1, 8)
    lanes.ended(other, Verdict.DELIVERED)
    lanes.give_back(long)
    assert lanes.proceed(long, NOW)


def test_lanes_of_an_account_take_turns_with_one_that_has_stock() -> None:
    lanes, long, others = Lanes(places=WINDOW_MAX), ("a", "c"), [("a", "d"), ("a", "e"), ("a", "f")]
    for other in others:  # all are proven: they wait in one line
        assert lanes.take(other, NOW)
        lanes.ended(other, Verdict.DELIVERED)
    stocked(lanes, long, 10)
    for other in others:
        lanes.wait(other, NOW)
    assert lanes.choose(NOW) == []
    served: list[Key] = []
    for _ in range(5):
        lanes.ended(long, Verdict.DELIVERED, quick=True)
        if lanes.proceed(long, NOW):
            served.append(long)
        else:
            served += [want.key for want in lanes.choose(NOW)]
    assert set(others) <= set(served)


def test_lanes_share_what_may_be_claimed_ahead() -> None:
    """However many are quick, one claim brings many."""
    lanes, keys = Lanes(), [("a", f"c{number}") for number in range(8)]
    for number, key in enumerate(keys):
        for _ in range(WINDOW_MAX):
            assert lanes.take(key, NOW)
            lanes.ended(key, Verdict.DELIVERED, quick=True)
        lane = lanes.lane(key)
        assert lanes.room(lane) == min(AHEAD_MAX, lanes_module.AHEAD_ALL_MAX // (number + 1))
        lane.in_flight = WINDOW_MAX  # it has no place
        assert lanes.take(key, NOW)
        assert lane.ahead == 1


def test_less_is_claimed_ahead_of_a_lane_whose_stock_gets_no_place_in_time() -> None:
    lanes, key = Lanes(), ("a", "c")
    stocked(lanes, key, 1)
    lanes.late(key)
    lanes.give_back(key)
    assert lanes.room(lanes.lane(key)) == AHEAD_MAX // 2
    for _ in range(AHEAD_MAX // 2):  # each gets a place in time
        assert lanes.room(lanes.lane(key)) == AHEAD_MAX // 2
        assert lanes.take(key, NOW)
        lanes.ended(key, Verdict.DELIVERED, quick=True)
        assert lanes.proceed(key, NOW)
    assert lanes.room(lanes.lane(key)) == AHEAD_MAX // 2 + lane_module.AHEAD_MORE


def test_a_kind_without_stock_is_never_claimed_ahead() -> None:
    lanes, key = Lanes(without_stock=["email"]), ("a", "c")
    configuration = EndpointConfiguration("c", "a", "email", "n", "", True, {}, ())
    lanes.configure({key: configuration}, {})
    for _ in range(WINDOW_MAX):
        assert lanes.take(key, NOW)
        lanes.ended(key, Verdict.DELIVERED, quick=True)
    assert [lanes.take(key, NOW) for _ in range(WINDOW_MAX + 1)] == [True] * WINDOW_MAX + [False]


def test_stock_is_filled_when_half_of_it_is_gone() -> None:
    """One claim brings many: each costs a commit."""
    lanes, key = Lanes(), ("a", "c")
    stocked(lanes, key, AHEAD_MAX)
    assert not lanes.take(key, NOW)  # there is no room: it waits in the store
    lanes.wait(key, NOW)
    wants: list[Want] = []
    for _ in range(AHEAD_MAX // 2):
        assert not wants
        lanes.ended(key, Verdict.DELIVERED, quick=True)
        assert lanes.proceed(key, NOW)
        wants = lanes.choose(NOW)
    assert [(want.count, want.ahead) for want in wants] == [(AHEAD_MAX // 2, AHEAD_MAX // 2)]
    lanes.claimed(wants[0], 1, None)
    assert lanes.lane(key).ahead == AHEAD_MAX // 2 + 1


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
    assert lanes.room(lanes.lane(key)) == AHEAD_MAX
    assert lanes.take(key, NOW)
    lanes.give_back(key)
    assert lanes.room(lanes.lane(key)) == AHEAD_MAX
    assert lanes.take(key, NOW)
    lanes.ended(key, Verdict.DELIVERED, quick=False)
    assert lanes.room(lanes.lane(key)) == 0
