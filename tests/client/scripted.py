"""A server that misbehaves on purpose: it answers each call with the next behaviour of its script."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from tocsin.v1.event_log_pb2 import Event, SubscribeRequest, SubscribeResponse
from tocsin.v1.event_log_pb2_grpc import EventLogServicer, add_EventLogServicer_to_server
from tocsin.v1.notifications_pb2_grpc import NotificationsServicer, add_NotificationsServicer_to_server

LOG_ID = "0123456789abcdef0123456789abcdef"
Behaviour = Callable[[Any, grpc.ServicerContext], Any]


@dataclass
class Seen:
    """One call as it arrived."""

    method: str
    request: Message
    metadata: Mapping[str, str]
    timeout_s: float | None


@dataclass
class Script:
    """What the server will do, and what it was asked."""

    address: str = ""
    seen: list[Seen] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    _behaviours: dict[str, deque[Behaviour]] = field(default_factory=lambda: defaultdict(deque))

    def on(self, method: str, *behaviours: Behaviour) -> None:
        """Answer the next calls of a method so, one after the other."""
        self._behaviours[method].extend(behaviours)

    def requests(self, method: str) -> list[Any]:
        return [call.request for call in self.seen if call.method == method]

    def play(self, method: str, request: Message, context: grpc.ServicerContext) -> Any:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.seen.append(Seen(method, request, metadata, context.time_remaining()))
        return self._behaviours[method].popleft()(request, context)

    def hold(self, *messages: SubscribeResponse) -> Behaviour:
        """Confirm a subscription, send messages, and stay silent until it ends."""

        def behave(request: SubscribeRequest, context: grpc.ServicerContext) -> Iterator[SubscribeResponse]:
            context.add_callback(self.ended.set)
            context.add_callback(self.released.set)
            self.holding.set()
            yield started(request.after.position)
            yield from messages
            self.released.wait()

        return behave


class _Scripted:
    def __init__(self, script: Script) -> None:
        self._script = script

    def __getattribute__(self, name: str) -> Any:
        if name[0].isupper():
            script: Script = object.__getattribute__(self, "_script")
            return lambda request, context: script.play(name, request, context)
        return object.__getattribute__(self, name)


class _EventLog(_Scripted, EventLogServicer): ...


class _Notifications(_Scripted, NotificationsServicer): ...


@contextmanager
def serving(credentials: grpc.ServerCredentials | None = None) -> Iterator[Script]:
    """Serve a script on a free port."""
    script = Script()
    server = grpc.server(ThreadPoolExecutor(8))
    add_EventLogServicer_to_server(cast(Any, _EventLog)(script), server)
    add_NotificationsServicer_to_server(cast(Any, _Notifications)(script), server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    script.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield script
    finally:
        script.released.set()
        server.stop(None).wait()


def answer(response: Message) -> Behaviour:
    return lambda request, context: response


def fail(code: grpc.StatusCode, reason: str = "", **details: Any) -> Behaviour:
    """Fail as a server does. `details`: see `status`."""

    def behave(request: Message, context: grpc.ServicerContext) -> NoReturn:
        if reason:
            context.set_trailing_metadata(trailers(status(reason, **details)))
        context.abort(code, f"scripted {code.name}")

    return behave


def stream(*steps: Message | Behaviour) -> Behaviour:
    """Send messages; a behaviour among them (a `fail`) is played in its turn."""

    def behave(request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
        for step in steps:
            if isinstance(step, Message):
                yield step
            else:
                step(request, context)

    return behave


def status(
    reason: str,
    *,
    domain: str = "tocsin",
    metadata: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
    retry_after_s: float | None = None,
) -> status_pb2.Status:
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata or {})]
    if fields:
        violation = error_details_pb2.BadRequest.FieldViolation
        found = [violation(field=name, description=text) for name, text in fields.items()]
        details.append(error_details_pb2.BadRequest(field_violations=found))
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMicroseconds(round(retry_after_s * 1_000_000))
        details.append(retry)
    packed = [AnyMessage() for _ in details]
    for box, detail in zip(packed, details, strict=True):
        box.Pack(detail)
    return status_pb2.Status(details=packed)


def trailers(found: status_pb2.Status) -> tuple[tuple[str, bytes], ...]:
    return (("grpc-status-details-bin", found.SerializeToString()),)


def started(position: int, head: int = 100) -> SubscribeResponse:
    step = SubscribeResponse.Started(log_id=LOG_ID, head=head, oldest=1, position=position)
    return SubscribeResponse(started=step)


def batch(*positions: int, through: int | None = None) -> SubscribeResponse:
    events = [Event(id=f"e{position}", position=position) for position in positions]
    through = positions[-1] if through is None else through
    return SubscribeResponse(batch=SubscribeResponse.Batch(events=events, position=through))


def checkpoint(position: int) -> SubscribeResponse:
    return SubscribeResponse(checkpoint=SubscribeResponse.Checkpoint(position=position))


def caught_up(position: int) -> SubscribeResponse:
    return SubscribeResponse(caught_up=SubscribeResponse.CaughtUp(position=position))
