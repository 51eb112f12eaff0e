"""The checks of payloads that entries of the catalogue ask for, at every append."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.structs import plain_value
from tocsin_server.domain.errors import Violation, invalid_fields
from tocsin_server.domain.event_log import Draft
from tocsin_server.domain.event_types import Catalogue


def payload_warnings(
    catalogue: Catalogue, account: str, events: Iterable[pb.Event], drafts: Iterable[Draft], is_batch: bool
) -> Mapping[str, Sequence[Violation]]:
    """Check the details of events whose types ask for it; give what only warns by the event's id.

    TocsinError names by their paths what an enforced schema forbids.
    """
    warned: dict[str, list[Violation]] = {}
    refused: list[Violation] = []
    for index, (event, draft) in enumerate(zip(events, drafts, strict=True)):
        check = catalogue.check(account, event.type, event.subtype)
        if check is None:
            continue
        found = check.schema.violations(plain_value(event.details), "details")
        if check.enforced:
            path = f"events[{index}]" if is_batch else "event"
            refused += [Violation(f"{path}.{violation.path}", violation.description) for violation in found]
        elif found:
            warned[draft.id] = found
    if refused:
        raise invalid_fields(refused)
    return warned


def warnings_of(violations: Sequence[Violation]) -> list[pb.FieldWarning]:
    """Say violations in an answer."""
    return [pb.FieldWarning(field=v.path[:512], description=v.description) for v in violations]
