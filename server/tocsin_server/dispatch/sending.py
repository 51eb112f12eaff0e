"""Sending once: the message of a delivery is made, given to its kind of endpoint, and the answer is judged.

Whatever goes wrong in making a message ends this delivery and no other.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from tocsin_server.domain.answers import of_no_answer, unmade
from tocsin_server.domain.delivery_ports import Outbox, Sent
from tocsin_server.domain.errors import Reason, TocsinError
from tocsin_server.domain.event_log import Event
from tocsin_server.domain.message_templates import templated
from tocsin_server.domain.notifications import Delivery, EndpointConfiguration, Message, Outcome
from tocsin_server.domain.ports import EndpointKind, Runtime
from tocsin_server.domain.templates import RenderError, TemplateError
from tocsin_server.domain.verdicts import ErrorClass, Verdict

log = structlog.get_logger("tocsin.delivery")


class Sender:
    """Makes one attempt; it is the caller who records it."""

    def __init__(
        self, outbox: Outbox, runtime: Runtime, kinds: Mapping[str, EndpointKind], ui_url: str, docs_url: str
    ) -> None:
        self._outbox = outbox
        self._runtime = runtime
        self._kinds = kinds
        self._ui_url = ui_url
        self._docs_url = docs_url

    async def send(self, row: Delivery, configuration: EndpointConfiguration, frame: bytes | None) -> Sent:
        """Send a delivery once, with its stored event if that is at hand."""
        began_at, began = self._runtime.now(), self._runtime.monotonic()
        outcome = await self._outcome(row, configuration, frame)
        return Sent(outcome, began_at, int((self._runtime.monotonic() - began) * 1e6))

    async def _outcome(self, row: Delivery, configuration: EndpointConfiguration, frame: bytes | None) -> Outcome:
        try:
            event = await self._event(row, frame)
            events, missing = await self._events(row)
        except TocsinError as error:  # the event is damaged or gone: no repeat brings it back
            return unmade(error.message)
        except Exception as error:
            log.exception("the events of a delivery could not be read", delivery_id=row.id)
            return of_no_answer(ErrorClass.INTERNAL, type(error).__name__)
        message = Message(
            delivery_id=row.id,
            sent_at=self._runtime.now(),
            event=event,
            events=tuple(events),
            missing=missing,
            params=row.content,
            subject=row.subject,
            done_recipients=row.recipients,
            ui_url=self._ui_url,
            docs_url=self._docs_url,
            options=configuration.options,
        )
        kind = self._kinds[configuration.kind]
        try:
            message, _ = templated(message, configuration, kind.default_escape)
        except (RenderError, TemplateError) as error:
            return unmade(str(error))
        except Exception as error:  # a fault of ours in the message would come again with each repeat
            log.exception("a message could not be made", delivery_id=row.id)
            return unmade(f"INTERNAL: {type(error).__name__}")
        self._runtime.moment("sending")
        try:
            outcome = await kind.send(message, configuration.connection)
        except Exception as error:
            log.exception("an attempt failed in a way that no kind of endpoint foresaw", delivery_id=row.id)
            text = f"INTERNAL: {type(error).__name__}"
            outcome = Outcome(Verdict.RETRY, error=text, error_class=ErrorClass.INTERNAL)
        self._runtime.moment("sent")
        return outcome

    async def _events(self, row: Delivery) -> tuple[list[Event], int]:
        """Read what a digest tells; one that has lost all its events has nothing to tell."""
        if "digest" not in row.subject:
            return [], 0
        events, missing = await self._outbox.events_of(row.account, row.id)
        if not events:
            raise TocsinError(Reason.EVENT_CORRUPT, f"none of the digest's {missing} events can be read")
        return events, missing

    async def _event(self, row: Delivery, frame: bytes | None) -> Event | None:
        if frame is not None:
            return self._outbox.decode(frame)
        return await self._outbox.event_at(row.event_position) if row.event_position else None
