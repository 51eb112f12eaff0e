"""Calls that are awaited: the asyncio twin of `tocsin.channel`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message

from tocsin.channel import Decode, Metadata, serialize
from tocsin.errors import from_rpc
from tocsin.retries import Attempts, is_repeatable
from tocsin.settings import Settings

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response")


def dial(settings: Settings) -> grpc.aio.Channel:
    """Make gRPC's channel, bound to the running event loop. It connects with the first call."""
    credentials = settings.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(settings.address, settings.channel_options)
    return grpc.aio.secure_channel(settings.address, credentials, settings.channel_options)


class AsyncChannel:
    """Looks to a stub like gRPC's channel."""

    def __init__(self, channel: grpc.aio.Channel, settings: Settings) -> None:
        self._channel = channel
        self._settings = settings

    def unary_unary(
        self,
        method: str,
        request_serializer: object,
        response_deserializer: Decode,
        **_: object,
    ) -> AsyncUnary[Any, Any]:
        """Make the callable of a method that answers once."""
        inner = self._channel.unary_unary(method, serialize, response_deserializer)
        return AsyncUnary(method, inner, self._settings)

    def unary_stream(
        self,
        method: str,
        request_serializer: object,
        response_deserializer: Decode,
        **_: object,
    ) -> AsyncStreaming[Any, Any]:
        """Make the callable of a method that answers a stream."""
        inner = self._channel.unary_stream(method, serialize, response_deserializer)
        return AsyncStreaming(inner, self._settings)

    def stream_stream(
        self,
        method: str,
        request_serializer: object,
        response_deserializer: Decode,
        **_: object,
    ) -> AsyncStreaming[Any, Any]:
        """Make the callable of a method that takes a stream, an iterator of requests, and answers one."""
        inner = self._channel.stream_stream(method, serialize, response_deserializer)
        return AsyncStreaming(inner, self._settings)


class AsyncUnary(Generic[_Request, _Response]):
    """A method that answers once."""

    def __init__(self, method: str, inner: Any, settings: Settings) -> None:
        self._method = method
        self._inner = inner
        self._settings = settings

    async def __call__(
        self, request: _Request, timeout: float | None = None, metadata: Metadata = (), **options: Any
    ) -> _Response:
        """Call. `timeout` is the deadline in seconds with all retries; None is the client's.

        `options` go to gRPC: wait_for_ready, compression, credentials. Raises TocsinError.
        """
        timeout_s = self._settings.timeout_s if timeout is None else timeout
        attempts = Attempts(
            deadline=monotonic() + timeout_s,
            repeatable=is_repeatable(self._method, request),
            backoff=self._settings.backoff,
        )
        headers = (*self._settings.caller.metadata(), *metadata)
        while True:
            try:
                answer: _Response = await self._inner(
                    request, timeout=attempts.timeout_s(monotonic()), metadata=headers, **options
                )
                return answer
            except grpc.RpcError as failure:
                error = from_rpc(failure)
            await asyncio.sleep(attempts.wait_s(error, monotonic(), random.random()))


class AsyncStreaming(Generic[_Request, _Response]):
    """A method that answers a stream."""

    def __init__(self, inner: Any, settings: Settings) -> None:
        self._inner = inner
        self._settings = settings

    def __call__(
        self,
        request: _Request,
        timeout: float | None = None,
        metadata: Metadata = (),
        **options: Any,
    ) -> AsyncStream[_Response]:
        """Call. `timeout` bounds the whole stream in seconds; None is without end."""
        headers = (*self._settings.caller.metadata(), *metadata)
        call = self._inner(request, timeout=timeout, metadata=headers, **options)
        return AsyncStream(call)


class AsyncStream(Generic[_Response]):
    """The messages of one call.

    Leave it through its `async with` block or `cancel` it: gRPC never ends an abandoned call.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._messages = call.__aiter__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Response:
        try:
            message: _Response = await anext(self._messages)
            return message
        except grpc.RpcError as failure:
            raise from_rpc(failure) from None

    def cancel(self) -> None:
        """End the call; who waits for a message gets asyncio.CancelledError."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


async def pages(call: Callable[[Any], Awaitable[_Response]], request: Any) -> AsyncIterator[_Response]:
    """Walk all pages of a list, short and empty ones included. The request is used up."""
    while True:
        page: Any = await call(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def until(
    look: Callable[[], Awaitable[_Response | None]], what: str, timeout_s: float, poll_s: float
) -> _Response:
    """Look again and again until there is something. Raises TimeoutError."""
    deadline = monotonic() + timeout_s
    while True:
        found = await look()
        if found is not None:
            return found
        if monotonic() + poll_s > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
        await asyncio.sleep(poll_s)
