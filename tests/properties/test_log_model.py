"""The log against a plain list: append, batch, repeat, delete, list, follow, restart, crash, in any order.

XA20, XA22, XB6, XB10, XB18: one model for all of them. The server is a real one on a real file; a crash is a copy
of its files as a power loss would leave them, opened by a new server.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tocsin.v1 import event_log_pb2 as pb

from tests.support.servers import Api, Refusal, serving

T = TypeVar("T")
TYPES = ("user.image.a", "user.image.b", "system.feed.a", "feed_sync")
HOUR = 3600


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

    def standing(self) -> list[Kept]:
        return [event for event in self.events if not event.deleted]

    def named(self, event_id: str) -> Kept | None:
        return next((event for event in self.events if event.id == event_id), None)


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
        self.seen: list[int] = []
        self.open()

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(what, 30))

    def open(self) -> None:
        self.house = serving(self.data)
        self.api: Api = self.run(self.house.__aenter__())

    def close(self) -> None:
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

    async def appended(self, event: pb.Event) -> pb.AppendEventResponse:
        return await self.api.events.AppendEvent(pb.AppendEventRequest(event=event))

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
