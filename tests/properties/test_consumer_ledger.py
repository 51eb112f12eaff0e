"""A consumer's ledger against a plain model: streams, failures, seeks, crashes at any moment.

The model knows of each event whether it is settled, parked or open, and what was written last. A
crash makes a new ledger of what was written.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tocsin_server.domain import ledger as ledgers
from tocsin_server.domain.consumers import Change, ConsumerSettings, Nack, Progress, Stall, Tries
from tocsin_server.domain.ledger import Ledger, share

LEASE_S = 30.0
RULES = ConsumerSettings(lease_us=30_000_000, max_retries=2, max_in_flight=4, retry_delay_us=1_000_000)
MATCHING = frozenset(position for position in range(1, 400) if position % 3)


class Disk:
    """What is written: as the store does it."""

    def __init__(self) -> None:
        self.cursor = 0
        self.open: dict[int, Tries] = {}
        self.parked: set[int] = set()

    def write(self, change: Change) -> int:
        self.cursor = change.progress.cursor
        if change.anew:
            self.open = {}
        for position in change.gone:
            del self.open[position]
        self.open |= change.progress.open if change.anew else change.written
        self.parked |= {one.position for one in change.parked}
        assert self.open == change.progress.open
        return len(self.parked)


class LedgerMachine(RuleBasedStateMachine):
    """Drives a ledger; `settled` is what a client or a deletion has settled since the last seek."""

    @initialize()
    def begin(self) -> None:
        self.disk = Disk()
        self.now = 0.0
        self.base = 0
        self.settled: set[int] = set()
        self.parked: set[int] = set()
        self.saved: tuple[set[int], set[int]] = (set(), set())
        self.leases: dict[int, tuple[int, int, float]] = {}  # lease: stream, position, deadline
        self.old: list[int] = []
        self.next_lease = 1
        self.ledger = Ledger(RULES, Progress(0), 0, 1)

    @rule(step=st.integers(1, 7))
    def offer(self, step: int) -> None:
        through = min(self.ledger.through + step, max(MATCHING))
        self.ledger.offer([p for p in range(self.ledger.through + 1, through + 1) if p in MATCHING], through)

    @rule(stream=st.integers(1, 3), limit=st.integers(1, 5))
    def take(self, stream: int, limit: int) -> None:
        taken = self.ledger.take(stream, limit, self.now)
        assert [one.position for one in taken] == sorted(one.position for one in taken)
        for one in taken:
            assert one.position in self.unsettled()
            assert one.position not in {position for _, position, _ in self.leases.values()}
            assert one.lease_id >= self.next_lease
            self.next_lease = one.lease_id + 1
            self.leases[one.lease_id] = (stream, one.position, self.now + LEASE_S)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.leases)))
        self.ledger.ack([lease_id, lease_id])  # the second time it is over
        _, position, _ = self.end(lease_id)
        assert position not in self.settled
        self.settled.add(position)

    @precondition(lambda self: self.old)
    @rule(data=st.data(), action=st.sampled_from(Nack))
    def a_late_word_changes_nothing(self, data: st.DataObject, action: Nack) -> None:
        before = self.ledger.standing()
        lease_id = data.draw(st.sampled_from(self.old))
        self.ledger.ack([lease_id])
        self.ledger.nack([lease_id], action, "late", "u", self.now)
        assert self.ledger.standing() == before

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), action=st.sampled_from(Nack))
    def nack(self, data: st.DataObject, action: Nack) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.leases)))
        parked = self.ledger.parked
        self.ledger.nack([lease_id], action, "why", "u", self.now)
        _, position, _ = self.end(lease_id)
        if action is Nack.SKIP:
            self.settled.add(position)
        elif self.ledger.parked > parked:
            self.parked.add(position)
        else:
            assert action is Nack.RETRY

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.lose([lease for lease, (_, _, deadline) in self.leases.items() if deadline <= self.now])
        self.ledger.advance(self.now)
        self.learn_parked()

    @rule(stream=st.integers(1, 3), broken=st.booleans())
    def leave(self, stream: int, broken: bool) -> None:
        held = [lease for lease, (holder, _, _) in self.leases.items() if holder == stream]
        assert self.ledger.held(stream) == len(held)
        assert self.ledger.release(stream, broken, self.now) == len(held)
        self.lose(held)
        self.learn_parked()

    @rule(position=st.sampled_from(sorted(MATCHING)))
    def delete(self, position: int) -> None:
        if position in self.unsettled():
            self.lose([lease for lease, (_, p, _) in self.leases.items() if p == position])
            self.settled.add(position)
        self.ledger.forget([position])

    @rule(stored=st.booleans())
    def flush(self, stored: bool) -> None:
        change = self.ledger.change()
        if change is None:
            return
        if not stored:
            self.ledger.not_written()
            return
        self.ledger.written(change, self.disk.write(change))
        self.saved = (set(self.settled), set(self.parked))

    @rule()
    def crash(self) -> None:
        self.old += self.leases
        self.leases = {}
        self.settled, self.parked = (set(self.saved[0]), set(self.saved[1]))
        progress = Progress(self.disk.cursor, dict(self.disk.open))
        self.ledger = Ledger(RULES, progress, len(self.disk.parked), self.next_lease)

    @precondition(lambda self: self.ledger.through > self.base)
    @rule(data=st.data())
    def seek(self, data: st.DataObject) -> None:
        self.flush(True)
        position = data.draw(st.integers(0, self.ledger.through))
        self.disk.cursor, self.disk.open = position, {}
        self.lose(list(self.leases))
        self.ledger.seek(position)
        self.base = position
        self.settled = set()
        self.parked = set()
        self.disk.parked = set()  # what is parked stays, and has no more to do with what comes again
        self.ledger.parked = 0
        self.saved = (set(), set())

    @precondition(lambda self: self.parked)
    @rule()
    def replay(self) -> None:
        self.flush(True)
        positions = sorted(self.disk.parked)
        self.disk.open |= {position: Tries() for position in positions}
        self.disk.parked = set()
        self.ledger.reopen(positions)
        self.parked = set()
        self.saved = (set(self.settled), set())

    def unsettled(self) -> set[int]:
        seen = {p for p in MATCHING if self.base < p <= self.ledger.through}
        return seen - self.settled - self.parked

    def end(self, lease_id: int) -> tuple[int, int, float]:
        self.old.append(lease_id)
        return self.leases.pop(lease_id)

    def lose(self, lease_ids: list[int]) -> None:
        for lease_id in lease_ids:
            self.end(lease_id)

    def learn_parked(self) -> None:
        """Take over which events the ledger has parked by itself; they were open before."""
        if self.ledger.parked == len(self.parked):
            return
        change = self.ledger.change()
        if change is not None:
            new = {one.position for one in change.parked} - self.parked
            assert new <= self.unsettled()
            self.parked |= new
            self.ledger.not_written()

    @invariant()
    def nothing_is_lost_and_the_floor_passes_nothing(self) -> None:
        standing = self.ledger.standing()
        unsettled = self.unsettled()
        assert all(position > standing.floor for position in unsettled)
        assert standing.floor == min(unsettled, default=self.ledger.through + 1) - 1
        assert standing.in_flight == len(self.leases) <= RULES.max_in_flight
        assert all(self.ledger.holds(lease_id) for lease_id in self.leases)
        assert self.ledger.ready <= len(unsettled) - len(self.leases)

    @invariant()
    def what_is_written_loses_nothing(self) -> None:
        """A crash now would give every event again that is not written as settled or parked."""
        settled, parked = self.saved
        again = {p for p in self.disk.open if p <= self.disk.cursor}
        expected = {p for p in MATCHING if self.base < p <= self.disk.cursor} - settled - parked
        assert expected <= again
        assert not again & settled

    def teardown(self) -> None:
        """Whatever happened, in the end everything that was offered is settled or parked."""
        if not hasattr(self, "ledger"):
            return
        for _ in range(len(MATCHING) * 4):
            if not self.unsettled():
                break
            self.wait(LEASE_S)
            self.take(1, 5)
            for lease_id in [lease for lease, (stream, _, _) in self.leases.items() if stream == 1]:
                self.ledger.ack([lease_id])
                self.settled.add(self.end(lease_id)[1])
        assert not self.unsettled()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_a_stuck_event_does_not_make_progress_grow() -> None:
    """One event stays open while a hundred thousand are settled: what is written stays two numbers."""
    ledger = Ledger(RULES, Progress(0), 0, 1)
    ledger.offer([1], 1)
    ledger.take(1, 1, 0.0)
    for position in range(2, 100_002):
        ledger.offer([position], position)
        ledger.ack([one.lease_id for one in ledger.take(2, 1, 0.0)])
    change = ledger.change()
    assert change is not None
    assert (change.progress.cursor, dict(change.progress.open)) == (100_001, {1: Tries(1, 0)})
    assert ledger.floor == 0


def test_an_event_that_breaks_every_stream_is_parked_in_the_end() -> None:
    ledger = Ledger(RULES, Progress(0), 0, 1)
    ledger.offer([1, 2], 2)
    now = 0.0
    for _ in range(RULES.max_retries + 1):
        now += 1.0
        ledger.advance(now)
        assert [one.position for one in ledger.take(1, 2, now)] == [1, 2]
        ledger.release(1, broken=True, now=now)
    assert ledger.parked == 1
    assert [one.position for one in ledger.take(1, 2, now)] == [2]


def test_what_is_written_says_how_often_an_event_failed() -> None:
    ledger, disk = Ledger(RULES, Progress(0), 0, 1), Disk()
    ledger.offer([1, 2], 2)
    for failures in (1, 2):
        (one,) = ledger.take(1, 1, failures * 1.0)
        ledger.nack([one.lease_id], Nack.RETRY, "", "u", failures * 1.0)
        ledger.advance(failures + 1.0)
        change = ledger.change()
        assert change is not None
        ledger.written(change, disk.write(change))
        assert (disk.cursor, disk.open) == (0, {1: Tries(failures, failures)})
    again = Ledger(RULES, Progress(disk.cursor, disk.open), 0, 10)
    again.offer([1], 1)
    assert again.take(1, 1, 0.0) == [(1, 10, 3)]
    again.seek(0)
    again.offer([1], 1)
    assert again.take(1, 1, 0.0) == [(1, 11, 1)]  # a seek forgets the tries too


def test_waiting_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "WAITING_MAX", 2)
    ledger = Ledger(RULES, Progress(0), 0, 1)
    ledger.offer([1, 2], 2)
    assert ledger.standing().stall == Stall.WAITING_FULL
    ledger.ack([ledger.take(1, 1, 0.0)[0].lease_id])
    assert ledger.standing().stall == Stall.NONE


@pytest.mark.parametrize(
    ("rooms", "ready", "part"), [([5], 10, 10), ([5, 5], 10, 5), ([5, 0], 3, 3), ([1, 1, 1], 4, 2), ([0], 4, 0)]
)
def test_what_is_ready_is_shared_evenly(rooms: list[int], ready: int, part: int) -> None:
    assert share(rooms, ready) == part
