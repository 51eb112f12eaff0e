"""Both clients behind one blocking face, so that a test of the shared behaviour is written once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from inspect import isawaitable
from typing import Any
from uuid import uuid4

import pytest
import tocsin
from tocsin import Backoff

from examples.demo.server import Server
from tests.client.scripted import Script, serving

# Tests wait for real, so briefly.
QUICK = Backoff(first_s=0.002, most_s=0.01)


class Blocking:
    """Runs what an asyncio object answers to its end; everything else is passed through."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return self._call(found) if callable(found) else self._wrap(found)

    def _call(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            async def run() -> Any:
                found = function(*args, **kwargs)
                return await found if isawaitable(found) else found

            return self._wrap(self._runner.run(run()))

        return call

    def _wrap(self, found: Any) -> Any:
        if hasattr(found, "__anext__") or type(found).__name__.endswith("Stub"):
            return Blocking(found, self._runner)
        return found

    def __iter__(self) -> Iterator[Any]:
        async def step() -> Any:
            return await anext(self._target, None)

        while (item := self._runner.run(step())) is not None:
            yield item

    def __enter__(self) -> Blocking:
        self._run(self._target.__aenter__())
        return self

    def __exit__(self, *raised: Any) -> None:
        self._run(self._target.__aexit__(*raised))

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)


@pytest.fixture
def script() -> Iterator[Script]:
    with serving() as found:
        yield found


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Answer `connect` of either kind; all clients are closed in the end."""
    if request.param == "blocking":
        clients = []

        def dial(address: str, **options: Any) -> Any:
            clients.append(tocsin.connect(address, **{"backoff": QUICK, **options}))
            return clients[-1]

        yield dial
        for client in clients:
            client.close()
        return
    with asyncio.Runner() as runner:
        opened: list[Blocking] = []

        def dial_async(address: str, **options: Any) -> Any:
            async def make() -> tocsin.AsyncClient:
                return tocsin.connect_async(address, **{"backoff": QUICK, **options})

            opened.append(Blocking(runner.run(make()), runner))
            return opened[-1]

        yield dial_async
        for blocking in opened:
            blocking.close()


@pytest.fixture
def client(script: Script, connect: Any) -> Any:
    """Answer a client of either kind, connected to the script."""
    return connect(script.address)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Answer a real server for the tests that leave it alone; each has an account of its own."""
    running = Server(tmp_path_factory.mktemp("shared"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def live(shared: Server, connect: Any) -> Any:
    """Answer a client of either kind, connected to the real server."""
    return connect(shared.address, account=f"account-{uuid4().hex}")
