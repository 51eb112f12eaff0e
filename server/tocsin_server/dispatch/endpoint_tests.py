"""Test messages: sent once, at once, whatever waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tocsin_server.dispatch.sending import Sender
from tocsin_server.domain.delivery_ports import Outbox
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.notifications import Attempt, Delivery, EndpointConfiguration, State
from tocsin_server.domain.ports import Runtime
from tocsin_server.domain.settlement import Plan
from tocsin_server.domain.verdicts import Verdict

PLAN = Plan(0.5)
TESTS_MAX = 4  # of one account at a time: each may hang for the whole deadline


class EndpointTests:
    """Sends test messages; see `domain.ports.Tester`."""

    def __init__(self, outbox: Outbox, runtime: Runtime, sender: Sender) -> None:
        self._outbox = outbox
        self._runtime = runtime
        self._sender = sender
        self._under_way: Counter[str] = Counter()
        self.reload_book: Callable[[], None] = lambda: None

    async def test(self, configuration: EndpointConfiguration, stored: bool) -> tuple[Delivery, Attempt]:
        """Send one test message, once; a stored configuration gets a delivery of its own."""
        if self._under_way[configuration.account] >= TESTS_MAX:
            text = f"{TESTS_MAX} tests of the account are under way: wait for one of them"
            raise TocsinError(Reason.TOO_MANY_TESTS, text, retry_s=1.0)
        self._under_way[configuration.account] += 1
        try:
            return await self._test(configuration, stored)
        finally:
            self._under_way[configuration.account] -= 1

    async def _test(self, configuration: EndpointConfiguration, stored: bool) -> tuple[Delivery, Attempt]:
        now = self._runtime.now()
        delivery_id = self._runtime.new_id()
        row = Delivery(
            account=configuration.account,
            id=delivery_id,
            route_key=f"test/{delivery_id}",
            configuration_id=configuration.id,
            kind=configuration.kind,
            state=State.SENDING,
            created_at=now,
            due_at=now,
            attempt=1,
            subject={"test": True},
        )
        if stored:
            await self._outbox.insert(row)
        sent = await self._sender.send(row, configuration, None)
        outcome = sent.outcome
        if stored:
            await self._outbox.settle(row, sent, PLAN)
            if outcome.verdict is Verdict.DELIVERED:
                self.reload_book()  # it may be enabled again
        attempt = Attempt(
            1, sent.began_at, sent.duration_us, outcome.verdict, outcome.status_code, outcome.response_excerpt,
            outcome.error, 0, outcome.error_class,
        )  # fmt: skip
        return row._replace(recipients=outcome.recipients), attempt
