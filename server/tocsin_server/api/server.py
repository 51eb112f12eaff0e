"""The gRPC server: which services it has, and the one guard around every call.

The guard is the outermost layer, for unary and stream calls alike: it decodes, checks bounds, knows
the caller and its permission, echoes request ids, and turns whatever goes wrong into an error with a
reason. It re-raises a true cancellation and answers a stray one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tocsin.v1 import annotations_pb2

from tocsin_server.api import bounds, errors, quick_bounds
from tocsin_server.api.auth import ECHOED, Caller, caller_of
from tocsin_server.api.calls import Handled
from tocsin_server.api.nesting import too_deep
from tocsin_server.api.reflection import add_reflection
from tocsin_server.domain.errors import Reason, TocsinError, invalid_fields
from tocsin_server.domain.ports import Runtime

log = structlog.get_logger("tocsin.api")

STREAMS_MAX = 10_000  # 23 KB each; a bound for memory, not for users
UNARY_MAX_S = 60.0  # a call that answers once is given up after this, whatever its deadline
ABORT_MAX_S = 5.0  # for telling a client how its call has ended
WRITE_STALL_S = 600.0  # a reader that takes nothing for so long is told to come again
MESSAGE_BYTES_MAX = 4 * 1024 * 1024  # gRPC's own default, on both sides
DRAIN_GRACE_S = 10.0  # calls under way may finish; streams are told to resume elsewhere at once

OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.so_reuseport", 0),  # a second server on the port fails instead of sharing it silently
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", 16 * 1024),
    # Streams move to another server, or to a renewed certificate, at least once a day: clients resume.
    ("grpc.max_connection_age_ms", 24 * 3600 * 1000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # grpcio ignores keepalive_timeout_ms alone
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)

Send = Callable[[bytes], Awaitable[None]]
# Gives the next request of a stream, decoded and inside its bounds, or None when the client has ended its side.
Receive = Callable[[], Awaitable[Any]]
Unary = Callable[[Any, Caller], Awaitable[Message | bytes]]
BULK = frozenset(("tocsin.v1.EventLog.AppendEvents",))  # unary methods whose requests may have megabytes
BULK_MAX = 16  # of them that are read and handled at a time: some 150 MB at the worst
BULK_WAIT_S = 10.0  # for a place
BULK_READ_S = 5.0  # for a request to come whole once it has its place, when all places are taken
Stream = Callable[[Any, Caller, Send], Awaitable[None]]
Exchange = Callable[[Receive, Caller, Send], Awaitable[None]]
Context = grpc.aio.ServicerContext[Any, Any]


class Service:
    """A service of the contract, or a group of its calls: its descriptor, and a method in snake_case for each RPC."""

    descriptor: ServiceDescriptor


class Guard:
    """Wraps the handlers of all services; counts the open streams and how calls end."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._monotonic = runtime.monotonic
        self.handled: list[Handled] = []
        self.streams = 0
        self._bulk_places = asyncio.Semaphore(BULK_MAX)

    def handler(self, method: MethodDescriptor, implementation: Any) -> Any:
        """Make the gRPC handler of one method."""
        action_of(method)  # the permission is known to exist; a key's permissions come with accounts
        request_class = GetMessageClass(method.input_type)
        read = _reader(request_class.FromString, method.input_type)
        is_stream = method.client_streaming or method.server_streaming
        handled = Handled(method.full_name, not is_stream, self._monotonic)
        self.handled.append(handled)
        if method.full_name in BULK:
            return grpc.stream_stream_rpc_method_handler(self._bulk(handled, read, implementation))
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._exchange(handled, read, implementation))
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(handled, read, implementation))
        return grpc.unary_unary_rpc_method_handler(self._unary(handled, read, implementation))

    def _unary(
        self, handled: Handled, read: Callable[[bytes], Message], handle: Unary
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def call(raw: bytes, context: Context) -> bytes:
            began = self._monotonic()
            try:
                caller = _known(context)
                async with asyncio.timeout(UNARY_MAX_S):
                    answer = await handle(read(raw), caller)
                encoded = answer if isinstance(answer, bytes) else answer.SerializeToString()
                handled.ended("OK", began)
                return encoded
            except BaseException as error:
                await self._fail(handled, began, context, error)

        return call

    def _bulk(
        self, handled: Handled, read: Callable[[bytes], Message], handle: Unary
    ) -> Callable[[object, Context], Awaitable[None]]:
        """Wrap a unary method with large requests: one is read only when there is a place for it.

        On the wire a unary call is a stream of one message. Handled as such, what has no place waits with its
        client, held by flow control, and not in the memory of the server.
        """

        async def call(_: object, context: Context) -> None:
            began = self._monotonic()
            try:
                caller = _known(context)
                async with asyncio.timeout(UNARY_MAX_S), self._place():
                    answer = await handle(read(await self._request(context)), caller)
                await _send(context, answer if isinstance(answer, bytes) else answer.SerializeToString())
                handled.ended("OK", began)
            except BaseException as error:
                await self._fail(handled, began, context, error)

        return call

    async def _request(self, context: Context) -> bytes:
        """Read the one request of a call; one that does not come gives its place to others that wait."""
        reading = asyncio.ensure_future(context.read())
        try:
            while not (await asyncio.wait((reading,), timeout=BULK_READ_S))[0]:
                if self._bulk_places.locked():
                    text = f"the request did not come whole within {BULK_READ_S:g} s while others wait: try again"
                    raise TocsinError(Reason.OVERLOADED, text, retry_s=1.0)
            raw = reading.result()
        finally:
            reading.cancel()
        if raw is grpc.aio.EOF:
            raise TocsinError(Reason.UNDECODABLE, "the call has no request")
        return bytes(raw)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Hold one of the places for large requests; OVERLOADED when none gets free for too long."""
        try:
            async with asyncio.timeout(BULK_WAIT_S):
                await self._bulk_places.acquire()
        except TimeoutError:
            text = f"{BULK_MAX} large requests are under way and none got done; nothing was stored, try again"
            raise TocsinError(Reason.OVERLOADED, text, retry_s=1.0) from None
        try:
            yield
        finally:
            self._bulk_places.release()

    def _stream(
        self, handled: Handled, read: Callable[[bytes], Message], handle: Stream
    ) -> Callable[[bytes, Context], Awaitable[None]]:
        async def call(raw: bytes, context: Context) -> None:
            async with self._streaming(handled, context):
                caller = _known(context)
                await handle(read(raw), caller, lambda message: _send(context, message))

        return call

    def _exchange(
        self, handled: Handled, read: Callable[[bytes], Message], handle: Exchange
    ) -> Callable[[object, Context], Awaitable[None]]:
        async def call(_: object, context: Context) -> None:
            async def receive() -> Message | None:
                raw = await context.read()
                return None if raw is grpc.aio.EOF else read(raw)

            async with self._streaming(handled, context):
                await handle(receive, _known(context), lambda message: _send(context, message))

        return call

    @asynccontextmanager
    async def _streaming(self, handled: Handled, context: Context) -> AsyncIterator[None]:
        """Count a stream for as long as it lasts; end it with what goes wrong in it."""
        if self.streams >= STREAMS_MAX:
            full = TocsinError(Reason.TOO_MANY_STREAMS, f"{STREAMS_MAX} streams are open", retry_s=1.0)
            await self._fail(handled, 0.0, context, full)
        self.streams += 1
        try:
            yield
            handled.ended("OK", 0.0)
        except BaseException as error:
            await self._fail(handled, 0.0, context, error)
        finally:
            self.streams -= 1

    async def _fail(self, handled: Handled, began: float, context: Context, error: BaseException) -> NoReturn:
        """End the call with what went wrong, or pass a true cancellation on."""
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            handled.ended("CANCELLED", began)
            raise error
        if not isinstance(error, Exception | asyncio.CancelledError) or isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, grpc.aio.InternalError):
            # A message could not be written or read: the client has left, which gRPC tells a moment later.
            handled.ended("CANCELLED", began)
            raise asyncio.CancelledError from error
        if isinstance(error, TimeoutError):
            error = TocsinError(Reason.DEADLINE_EXCEEDED, f"the call was not done within {UNARY_MAX_S:g} s")
        if not isinstance(error, TocsinError):
            incident = self._runtime.new_id()
            ids = {key: value for key, value in _echo(context)}
            log.error("internal error", method=handled.name, incident_id=incident, exc_info=error, **ids)
            error = errors.internal(incident)
        status = errors.STATUS[error.reason]
        handled.ended(status.name, began)
        details: tuple[tuple[str, str | bytes], ...] = (*_echo(context), (errors.DETAILS_KEY, errors.encoded(error)))
        try:
            async with asyncio.timeout(ABORT_MAX_S):
                await context.abort(status, error.message[:1024], details)
        except TimeoutError:
            # One that does not read gets its error when it does, behind what it has not read: nobody waits for that.
            raise asyncio.CancelledError from None


async def _send(context: Context, message: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_STALL_S):
            await context.write(message)
    except TimeoutError:
        raise TocsinError(Reason.SLOW_CONSUMER, f"nothing was read for {WRITE_STALL_S:g} s") from None


def _known(context: Context) -> Caller:
    metadata = context.invocation_metadata() or ()
    caller = caller_of(metadata)
    if caller.request_id or caller.correlation_id or caller.traceparent:
        context.set_trailing_metadata(_echo(context))
    return caller


def _echo(context: Context) -> tuple[tuple[str, str], ...]:
    metadata: Any = context.invocation_metadata() or ()
    return tuple((key, value) for key, value in metadata if key in ECHOED and isinstance(value, str))


def _reader(decode: Callable[[bytes], Message], request_type: Descriptor) -> Callable[[bytes], Message]:
    """Make the function that decodes a request and refuses it when it is outside its bounds."""
    within: quick_bounds.Within | None = None

    def read(raw: bytes) -> Message:
        nonlocal within
        try:
            request = decode(raw)
        except (DecodeError, ValueError) as error:
            if deep := too_deep(request_type, raw):
                raise invalid_fields(deep) from error
            text = "the request cannot be decoded as a message of its type"
            raise TocsinError(Reason.UNDECODABLE, text) from error
        if within is None:  # compiled with the first request, not at start: most methods are never called
            within = quick_bounds.within(request_type)
        if not within(request, len(raw)):
            bounds.check(request)
        return request

    return read


def action_of(method: MethodDescriptor) -> str:
    """Give the permission that a method needs; a method without one does not start."""
    action: str = method.GetOptions().Extensions[annotations_pb2.action]
    if not action:
        raise RuntimeError(f"{method.full_name} states no action")
    return action


def _implementation(method: MethodDescriptor, parts: Sequence[Service]) -> Any:
    """Find the one part of a service that has a method; a method without one does not start."""
    found = [part for part in parts if hasattr(part, snake_case(method.name))]
    if len(found) != 1:
        raise RuntimeError(f"{method.full_name} is implemented {len(found)} times")
    return getattr(found[0], snake_case(method.name))


def snake_case(name: str) -> str:
    """Give the Python name of an RPC: AppendEvents is append_events."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class ApiServer:
    """The bound server. It answers health and reflection at once, its services when they are there."""

    def __init__(self, runtime: Runtime, services: Sequence[type[Service]]) -> None:
        self._server = grpc.aio.server(options=list(OPTIONS))
        self._health = health.aio.HealthServicer()
        self._names = [service.descriptor.full_name for service in services]
        self._calls: dict[str, Any] = {}
        self.guard = Guard(runtime)
        for service in services:
            handlers = {m.name: self.guard.handler(m, self._late(m)) for m in service.descriptor.methods}
            generic = grpc.method_handlers_generic_handler(service.descriptor.full_name, handlers)
            self._server.add_generic_rpc_handlers((generic,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection([*self._names, health.SERVICE_NAME], self._server)

    def _late(self, method: MethodDescriptor) -> Callable[..., Any]:
        """Find a method's implementation when it is called: the port is bound before the store is open."""
        name = method.full_name

        def call(*arguments: Any) -> Any:
            implementation = self._calls.get(name)
            if implementation is None:
                raise TocsinError(Reason.SERVER_STARTING, "the server opens its store; try again", retry_s=0.2)
            return implementation(*arguments)

        return call

    async def bind(self, listen: str, port: int) -> int:
        """Take the port and answer that nothing is served yet; OSError when the address cannot be had."""
        await self.set_serving(False)
        await probe(listen, port)
        host = f"[{listen}]" if ":" in listen else listen
        try:
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from error
        await self._server.start()
        return bound

    async def serve(self, services: Sequence[Service]) -> None:
        """Begin to answer calls. A service may come in several parts, each with some of its calls."""
        parts: dict[str, list[Service]] = {name: [] for name in self._names}
        for service in services:
            parts[service.descriptor.full_name].append(service)
        for descriptor in {service.descriptor.full_name: service.descriptor for service in services}.values():
            for method in descriptor.methods:
                self._calls[method.full_name] = _implementation(method, parts[descriptor.full_name])
        await self.set_serving(True)

    async def set_storing(self, storing: bool) -> None:
        """Tell health checks whether the services that store something are served; the others go on."""
        await self._set_health(storing, [name for name in self._names if not name.endswith(".System")])

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks of every service whether it is served."""
        await self._set_health(serving, self._names)

    async def _set_health(self, serving: bool, names: Sequence[str]) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *names):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Let the calls under way finish, then end."""
        await self._server.stop(DRAIN_GRACE_S)


async def probe(listen: str, port: int) -> None:
    """Try an address with a plain socket, whose error says what is wrong; gRPC's says only that it failed."""
    loop = asyncio.get_running_loop()
    for family, kind, protocol, _, address in await loop.getaddrinfo(listen, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
