"""The log against a plain list: append, batch, repeat, delete, list, follow, restart, crash, in any order.

XA1, XA2, XA20, XA22, XB6, XB10, XB18: one model for all of them. The server is a real one on a real file; a crash is
a copy of its files as a kill -9 leaves them, between calls or at a moment inside an append, opened by a new server.
What is written but not synced is in such a copy; `tests/faults/test_power_loss.py` is about losing that.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tocsin.v1 import event_log_pb2 as pb
from tocsin_server.runtime import system_runtime

from tests.support.servers import Api, Refusal, Subscriber, serving

T = TypeVar("T")
TYPES = ("user.image.a", "user.image.b", "system.feed.a", "feed_sync")
HOUR = 3600
BEFORE_COMMIT = ("transaction begun", "rows written")
AFTER_COMMIT = ("committed", "published", "answered")


@dataclass
class Kept:
    """What the model knows of an event."""

    id: str
    type: str
    timestamp: int
    position: int
    deleted: bool = False


@dataclass
class Model:
    """The log as a plain list, in the order of positions."""

    events: list[Kept] = field(default_factory=list)
    requests: dict[str, str] = field(default_factory=dict)  # ids of events by the request ids that made them

    def standing(self) -> list[Kept]:
        return [event for event in self.events if not event.deleted]

    def named(self, event_id: str) -> Kept | None:
        return next((event for event in self.events if event.id == event_id), None)


class Crash:
    """Copies the files of a running server at a moment of its next commit that takes the log to a position."""

    def __init__(self, data: Path, copy: Path, moment: str, position: int) -> None:
        self._data, self._copy = data, copy
        self._moment, self._position = moment, position
        self.done = threading.Event()

    def passed(self, moment: str) -> None:
        """Hear of a moment, on the writer's thread: nothing else writes."""
        if moment != self._moment or self.done.is_set():
            return
        if moment in AFTER_COMMIT and self._head() < self._position:
            return  # the commit was somebody else's
        shutil.copytree(self._data, self._copy)
        self.done.set()

    def _head(self) -> int:
        with sqlite3.connect(self._data / "tocsin.db") as connection:
            (head,) = connection.execute("SELECT head FROM log_head").fetchone()
        connection.close()
        return int(head)


class LogMachine(RuleBasedStateMachine):
    """Does what a rule says to a server and to the model, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="tocsin-model-"))
        self.data = self.folder / "data-0"
        self.lives = 0
        self.model = Model()
        self.followed = 0  # the position up to which a follower has read
        self.seen: list[int] = []  # by the live subscription
        self.crash_within: Crash | None = None
        self.runtime = replace(system_runtime(), moment=self.moment)
        self.open()

    def moment(self, name: str) -> None:
        if self.crash_within is not None:
            self.crash_within.passed(name)

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(what, 30))

    def open(self) -> None:
        self.house = serving(self.data, self.runtime)
        self.api: Api = self.run(self.house.__aenter__())
        self.live = self.run(self.resumed())

    async def resumed(self) -> Subscriber:
        """Open the live subscription behind what it has seen."""
        return Subscriber(self.api, after=pb.SubscribeRequest.After(position=self.seen[-1] if self.seen else 0))

    def leave(self) -> None:
        """End the live subscription."""
        self.run(self.live.close())
        assert self.live.error is None
        self.seen += self.live.positions

    def close(self) -> None:
        self.leave()
        self.run(self.house.__aexit__(None, None, None))

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    def event(self, number: int, kind: str, hours: int) -> pb.Event:
        event = pb.Event(id=f"e{number}", type=kind)
        event.timestamp.seconds = 1_700_000_000 + hours * HOUR
        return event

    def remember(self, event: pb.Event, position: int) -> None:
        assert position == len(self.model.events) + 1, "positions are dense, in the order of commits"
        self.model.events.append(Kept(event.id, event.type, event.timestamp.seconds, position))

    @rule(number=st.integers(0, 30), kind=st.sampled_from(TYPES), hours=st.integers(0, 5))
    def append(self, number: int, kind: str, hours: int) -> None:
        event = self.event(number, kind, hours)
        known = self.model.named(event.id)
        try:
            answer = self.run(self.appended(event))
        except grpc.aio.AioRpcError as error:
            assert Refusal(error).reason == "ID_REUSED"
            assert known is not None and (known.type, known.timestamp) != (kind, event.timestamp.seconds)
            return
        if known is None:
            self.remember(event, answer.event.position)
        else:  # the same again answers the first
            assert (known.type, known.timestamp) == (kind, event.timestamp.seconds)
            assert (answer.event.position, answer.deleted) == (known.position, known.deleted)

    async def appended(self, event: pb.Event, request_id: str = "") -> pb.AppendEventResponse:
        return await self.api.events.AppendEvent(pb.AppendEventRequest(event=event, request_id=request_id))

    def is_other(self, event: pb.Event) -> bool:
        """Tell whether the id is known with other content."""
        known = self.model.named(event.id)
        return known is not None and (known.type, known.timestamp) != (event.type, event.timestamp.seconds)

    @rule(numbers=st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True), kind=st.sampled_from(TYPES))
    def batch(self, numbers: list[int], kind: str) -> None:
        """All or none: one id with other content refuses the batch."""
        events = [self.event(number, kind, 1) for number in numbers]
        clash = [index for index, event in enumerate(events) if self.is_other(event)]
        try:
            results = self.run(self.appended_together(events))
        except grpc.aio.AioRpcError as error:
            assert clash, "a batch without a clash was refused"
            assert Refusal(error).reason == "ID_REUSED"
            assert set(Refusal(error).fields) == {f"events[{index}].id" for index in clash}
            return
        assert not clash
        for event, result in zip(events, results, strict=True):
            known = self.model.named(event.id)
            if known is None:
                self.remember(event, result.position)
            else:
                assert (result.position, result.deleted) == (known.position, known.deleted)

    async def appended_together(self, events: list[pb.Event]) -> list[pb.AppendResult]:
        return list((await self.api.events.AppendEvents(pb.AppendEventsRequest(events=events))).results)

    @rule(number=st.integers(0, 6), kind=st.sampled_from(TYPES), hours=st.integers(0, 2))
    def append_by_request(self, number: int, kind: str, hours: int) -> None:
        """An event without an id of its own: the request id makes it safe to repeat."""
        event, request_id = self.event(0, kind, hours), f"r{number}"
        event.ClearField("id")
        known = self.model.named(self.model.requests.get(request_id, ""))
        try:
            answer = self.run(self.appended(event, request_id))
        except grpc.aio.AioRpcError as error:
            assert Refusal(error).reason == "REQUEST_ID_REUSED"
            assert known is not None and (known.type, known.timestamp) != (kind, event.timestamp.seconds)
            return
        if known is None:
            self.model.requests[request_id] = event.id = answer.event.id
            self.remember(event, answer.event.position)
        else:
            assert (known.type, known.timestamp) == (kind, event.timestamp.seconds)
            told = (answer.event.id, answer.event.position, answer.deleted)
            assert told == (known.id, known.position, known.deleted)

    @rule(number=st.integers(0, 40))
    def delete(self, number: int) -> None:
        known = self.model.named(f"e{number}")
        try:
            self.run(self.deleted(f"e{number}"))
        except grpc.aio.AioRpcError as error:
            assert Refusal(error).reason == "NOT_FOUND"
            assert known is None or known.deleted
            return
        assert known is not None and not known.deleted
        known.deleted = True

    async def deleted(self, event_id: str) -> None:
        await self.api.events.DeleteEvent(pb.DeleteEventRequest(id=event_id))

    @rule(kind=st.sampled_from((*TYPES, "user.*", "*.a")))
    def delete_many(self, kind: str) -> None:
        def is_meant(event: Kept) -> bool:
            if "*" not in kind:
                return event.type == kind
            return event.type.startswith("user.") if kind == "user.*" else event.type.endswith(".a")

        meant = [event for event in self.model.standing() if is_meant(event)]
        ids = self.run(self.deleted_many(kind))
        assert ids == [event.id for event in meant]
        for event in meant:
            event.deleted = True

    async def deleted_many(self, kind: str) -> list[str]:
        request = pb.DeleteEventsRequest(filter=pb.EventFilter(types=[kind]))
        return [name async for step in self.api.events.DeleteEvents(request) for name in step.progress.ids]

    @rule(newest_first=st.booleans(), page_size=st.integers(1, 7))
    def listed(self, newest_first: bool, page_size: int) -> None:
        found = self.run(self.all_pages(newest_first, page_size))
        wanted = sorted(self.model.standing(), key=lambda e: (e.timestamp, e.position), reverse=newest_first)
        assert [event.id for event in found] == [event.id for event in wanted]

    async def all_pages(self, newest_first: bool, page_size: int) -> list[pb.Event]:
        order = pb.ORDER_NEWEST_FIRST if newest_first else pb.ORDER_OLDEST_FIRST
        request = pb.ListEventsRequest(page_size=page_size, order=order)
        found: list[pb.Event] = []
        while True:
            page = await self.api.events.ListEvents(request)
            found += page.events
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    @rule(back=st.integers(0, 5))
    def follow(self, back: int) -> None:
        """Go on where a follower has stopped, or a little before: nothing is missing, nothing out of order."""
        after = max(self.followed - back, 0)
        found = self.run(self.all_after(after))
        assert [e.id for e in found] == [e.id for e in self.model.standing() if e.position > after]
        self.followed = len(self.model.events)

    async def all_after(self, position: int) -> list[pb.Event]:
        after = pb.SubscribeRequest.After(position=position)
        call = self.api.events.Subscribe(pb.SubscribeRequest(after=after, stop_when_caught_up=True))
        return [event async for message in call for event in message.batch.events]

    @rule()
    def ask_the_live_one(self) -> None:
        """What has been open all the while has told what stands, in order; what is deleted it may have told before."""
        left = [event.position for event in self.model.standing()]
        after = self.seen[-1] if self.seen else 0
        if left and left[-1] > after:
            self.run(self.until_live_at(left[-1]))
        seen = self.seen + self.live.positions
        assert self.live.error is None
        assert seen == sorted(set(seen))
        assert set(left) <= set(seen) <= {event.position for event in self.model.events}

    async def until_live_at(self, position: int) -> None:
        while not self.live.positions or self.live.positions[-1] < position:
            await self.live.until(count=len(self.live.events) + 1)

    @rule()
    def restart(self) -> None:
        self.close()
        self.open()

    @rule()
    def crash(self) -> None:
        """Go on with the files as they are now, without what a proper stop would write."""
        self.lives += 1
        copy = self.folder / f"data-{self.lives}"
        shutil.copytree(self.data, copy)
        self.close()
        self.data = copy
        self.open()

    @rule(
        moment=st.sampled_from(BEFORE_COMMIT + AFTER_COMMIT),
        kind=st.sampled_from(TYPES),
        by_request=st.booleans(),
        again=st.booleans(),
    )
    def crash_in_an_append(self, moment: str, kind: str, by_request: bool, again: bool) -> None:
        """Before COMMIT nothing of it is there, after it all of it; whoever sends it again settles it."""
        self.leave()  # what the server tells after the moment would be told by nobody
        self.lives += 1
        copy, position = self.folder / f"data-{self.lives}", len(self.model.events) + 1
        event, request_id = self.event(1000 + self.lives, kind, 3), f"crash-{self.lives}" if by_request else ""
        if by_request:
            event.ClearField("id")
        self.crash_within = Crash(self.data, copy, moment, position)
        answer = self.run(self.appended(event, request_id))
        assert self.crash_within.done.wait(10)
        self.crash_within = None
        self.run(self.house.__aexit__(None, None, None))
        self.data = copy
        self.open()
        if moment in AFTER_COMMIT:
            assert self.run(self.found(answer.event.id)).position == answer.event.position == position
        else:
            assert self.run(self.head()) == position - 1
            if not again:
                return
        told = self.run(self.appended(event, request_id)).event
        assert (told.id == answer.event.id) or (by_request and moment in BEFORE_COMMIT)
        event.id = told.id
        self.remember(event, told.position)
        if by_request:
            self.model.requests[request_id] = told.id

    async def head(self) -> int:
        return (await self.api.events.GetLogStatus(pb.GetLogStatusRequest())).head

    @invariant()
    def the_newest_is_found(self) -> None:
        if self.model.events and not self.model.events[-1].deleted:
            assert self.run(self.found(self.model.events[-1].id)).position == len(self.model.events)

    async def found(self, event_id: str) -> pb.Event:
        return (await self.api.events.GetEvent(pb.GetEventRequest(id=event_id))).event


TestLogModel = LogMachine.TestCase
TestLogModel.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
