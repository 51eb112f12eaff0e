"""The checks of payloads that entries of the catalogue ask for, at every append."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.structs import plain_value
from tocsin_server.domain.errors import Violation
from tocsin_server.domain.event_types import Catalogue


def check_payloads(
    catalogue: Catalogue, account: str, events: Iterable[tuple[int, str, pb.Event]]
) -> tuple[Mapping[int, Sequence[Violation]], list[Violation]]:
    """Check the details of events, each given with its index and path, whose types ask for it.

    Gives what only warns, by index, and what an enforced schema forbids, by path.
    """
    warned: dict[int, list[Violation]] = {}
    refused: list[Violation] = []
    for index, path, event in events:
        check = catalogue.check(account, event.type, event.subtype)
        if check is None:
            continue
        found = check.schema.violations(plain_value(event.details), "details")
        if check.enforced:
            refused += [Violation(f"{path}.{violation.path}", violation.description) for violation in found]
        elif found:
            warned[index] = found
    return warned, refused


def warnings_of(violations: Sequence[Violation]) -> list[pb.FieldWarning]:
    """Say violations in an answer."""
    return [pb.FieldWarning(field=v.path[:512], description=v.description) for v in violations]
