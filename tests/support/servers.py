"""A whole server in the test's event loop: real gRPC on a free port, a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1.alerting_pb2_grpc import AlertingStub
from tocsin.v1.event_log_pb2_grpc import EventLogStub
from tocsin.v1.notifications_pb2_grpc import NotificationsStub
from tocsin.v1.system_pb2_grpc import SystemStub
from tocsin_server.app import App
from tocsin_server.config import load
from tocsin_server.domain.ports import Runtime

Metadata = Sequence[tuple[str, str]]


class Api:
    """Stubs of all services over one channel."""

    def __init__(self, app: App, channel: grpc.aio.Channel) -> None:
        self.app = app
        self.channel = channel
        self.events = EventLogStub(channel)
        self.notifications = NotificationsStub(channel)
        self.alerting = AlertingStub(channel)
        self.system = SystemStub(channel)

    async def append(self, event_type: str = "user.test.event", metadata: Metadata = (), **fields: Any) -> log_pb.Event:
        """Append one event."""
        request = log_pb.AppendEventRequest(event=log_pb.Event(type=event_type, **fields))
        return (await self.events.AppendEvent(request, metadata=metadata)).event


@asynccontextmanager
async def serving(data: Path, runtime: Runtime | None = None, **settings: Any) -> AsyncIterator[Api]:
    """Run a server on a free port for as long as the block runs; settings by name, dots as `__`."""
    flags: dict[str, Any] = {
        "server.port": 0,
        "store.data": str(data),
        "egress.allow": ["127.0.0.0/8", "::1/128"],
    }
    flags |= {name.replace("__", "."): value for name, value in settings.items()}
    app = App(load(environment={}, flags=flags), runtime)
    await app.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
            yield Api(app, channel)
    finally:
        await app.stop()


class Refusal:
    """An error of a call, decoded."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.text = error.details() or ""
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self.retry_s: float | None = None
        self.trailers = dict(error.trailing_metadata() or ())
        raw = self.trailers.get("grpc-status-details-bin", b"")
        assert isinstance(raw, bytes)
        self.details = status_pb2.Status.FromString(raw).details
        for detail in self.details:
            self._take(detail)

    def _take(self, detail: Any) -> None:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            assert info.domain == "tocsin"
            self.reason, self.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            self.fields = {v.field: v.description for v in bad.field_violations}
        elif detail.Unpack(retry):
            self.retry_s = retry.retry_delay.ToTimedelta().total_seconds()


async def refused(call: Any) -> Refusal:
    """Await a call that has to fail and give its error."""
    try:
        if hasattr(call, "read"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return Refusal(error)
    raise AssertionError("the call succeeded")


HELD_S = 2.0  # a server that reads takes a message within milliseconds


async def written_until_held(call: Any, message: Any) -> int:
    """Write a message again and again until the server takes no more; give how often it was. The call stays open."""
    count = 0
    while count < 10_000:
        writing = asyncio.create_task(call.write(message))  # not cancelled: that would end the call
        if not (await asyncio.wait({writing}, timeout=HELD_S))[0]:
            writing.add_done_callback(lambda task: task.cancelled() or task.exception())
            return count
        await writing
        count += 1
    raise AssertionError("the server takes everything")


class Subscriber:
    """Reads a subscription in the background and lets a test await what it tells."""

    def __init__(self, api: Api, metadata: Metadata = (), **request: Any) -> None:
        self.call = api.events.Subscribe(log_pb.SubscribeRequest(**request), metadata=metadata)
        self.started: log_pb.SubscribeResponse.Started | None = None
        self.events: list[log_pb.Event] = []
        self.steps: list[tuple[str, int]] = []
        self.error: Refusal | None = None
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self.call:
                await self._take(message)
        except grpc.aio.AioRpcError as error:
            self.error = Refusal(error)
        except asyncio.CancelledError:
            if not self.call.cancelled():
                raise
        async with self._changed:
            self.steps.append(("end", 0))
            self._changed.notify_all()

    async def _take(self, message: log_pb.SubscribeResponse) -> None:
        kind = message.WhichOneof("message") or ""
        async with self._changed:
            if kind == "started":
                self.started = message.started
            elif kind == "batch":
                self.events.extend(message.batch.events)
            self.steps.append((kind, getattr(message, kind).position))
            self._changed.notify_all()

    async def until(self, count: int = 0, step: str = "") -> None:
        """Wait until so many events, or such a step, have come."""

        def there() -> bool:
            return len(self.events) >= count and (not step or any(kind == step for kind, _ in self.steps))

        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(there)

    @property
    def positions(self) -> list[int]:
        """The positions of the events that have come."""
        return [event.position for event in self.events]

    async def close(self) -> None:
        """End the subscription."""
        self.call.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
