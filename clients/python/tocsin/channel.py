"""Calls that block: what stands between the stubs and gRPC's channel.

Every call of a stub gets the client's metadata and a deadline, is repeated where that is safe, and
fails with an exception of `tocsin.errors`. gRPC's interceptors could do the same, but not without
taking the types of the stubs away.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message

from tocsin.failures import from_rpc
from tocsin.retries import Attempts, is_repeatable
from tocsin.settings import Settings

Metadata = Sequence[tuple[str, str | bytes]]
Decode = Callable[[bytes], Any]
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response")


def dial(settings: Settings) -> grpc.Channel:
    """Make gRPC's channel. It connects with the first call."""
    credentials = settings.credentials()
    if credentials is None:
        return grpc.insecure_channel(settings.address, settings.channel_options)
    return grpc.secure_channel(settings.address, credentials, settings.channel_options)


class Channel:
    """Looks to a stub like gRPC's channel."""

    def __init__(self, channel: grpc.Channel, settings: Settings) -> None:
        self._channel = channel
        self._settings = settings

    def unary_unary(
        self,
        method: str,
        request_serializer: object,
        response_deserializer: Decode,
        **_: object,
    ) -> Unary[Any, Any]:
        """Make the callable of a method that answers once."""
        inner = self._channel.unary_unary(method, serialize, response_deserializer)
        return Unary(method, inner, self._settings)

    def unary_stream(
        self,
        method: str,
        request_serializer: object,
        response_deserializer: Decode,
        **_: object,
    ) -> Streaming[Any, Any]:
        """Make the callable of a method that answers a stream."""
        inner = self._channel.unary_stream(method, serialize, response_deserializer)
        return Streaming(inner, self._settings)

    def stream_stream(
        self,
        method: str,
        request_serializer: object,
        response_deserializer: Decode,
        **_: object,
    ) -> Streaming[Any, Any]:
        """Make the callable of a method that takes a stream, an iterator of requests, and answers one."""
        inner = self._channel.stream_stream(method, serialize, response_deserializer)
        return Streaming(inner, self._settings)


def serialize(request: Message) -> bytes:
    """Encode a request so that the same request has the same bytes: digests of retries agree."""
    return request.SerializeToString(deterministic=True)


class Unary(Generic[_Request, _Response]):
    """A method that answers once. Of gRPC's ways to call it has this one; it makes no futures."""

    def __init__(self, method: str, inner: Any, settings: Settings) -> None:
        self._method = method
        self._inner = inner
        self._settings = settings

    def __call__(
        self, request: _Request, timeout: float | None = None, metadata: Metadata = (), **options: Any
    ) -> _Response:
        """Call. `timeout` is the deadline in seconds with all retries; None is the client's.

        `options` go to gRPC: wait_for_ready, compression, credentials. Raises TocsinError.
        """
        timeout_s = self._settings.timeout_s if timeout is None else timeout
        attempts = Attempts(
            deadline=time.monotonic() + timeout_s,
            repeatable=is_repeatable(self._method, request),
            backoff=self._settings.backoff,
        )
        headers = (*self._settings.caller.metadata(), *metadata)
        while True:
            try:
                answer: _Response = self._inner(
                    request, timeout=attempts.timeout_s(time.monotonic()), metadata=headers, **options
                )
                return answer
            except grpc.RpcError as failure:
                error = from_rpc(failure)
            time.sleep(attempts.wait_s(error, time.monotonic(), random.random()))


class Streaming(Generic[_Request, _Response]):
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
    ) -> Stream[_Response]:
        """Call. `timeout` bounds the whole stream in seconds; None is without end."""
        headers = (*self._settings.caller.metadata(), *metadata)
        return Stream(self._inner(request, timeout=timeout, metadata=headers, **options))


class Stream(Generic[_Response]):
    """The messages of one call. Leaving its `with` block, or `cancel`, ends the call."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Response:
        try:
            message: _Response = next(self._call)
            return message
        except grpc.RpcError as failure:
            raise from_rpc(failure) from None

    def cancel(self) -> None:
        """End the call; whoever waits for a message gets `Cancelled`."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


def until(look: Callable[[], _Response | None], what: str, timeout_s: float, poll_s: float) -> _Response:
    """Look again and again until there is something. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() + poll_s > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(poll_s)
