"""The catalogue of event types on the wire. Its checks of payloads are in `payload_checks.py`."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from tocsin.v1 import event_log_pb2 as pb

from tocsin_server.api.auth import Caller
from tocsin_server.api.paging import PageTokens, fitting, page_size
from tocsin_server.api.server import Service
from tocsin_server.api.structs import plain_object, plain_value, struct_of, value_of
from tocsin_server.domain.encoding import SECOND_US
from tocsin_server.domain.errors import Violation, invalid_fields
from tocsin_server.domain.event_types import Catalogue, EventType, Name, PayloadCheck, violations
from tocsin_server.domain.ports import EventTypeStore
from tocsin_server.domain.selection import glob

Branch = pb.ListEventTypesResponse.Branch


class EventTypeService(Service):
    """Registering, removing and listing entries of the catalogue."""

    descriptor = pb.DESCRIPTOR.services_by_name["EventLog"]

    def __init__(self, catalogue: Catalogue, store: EventTypeStore, tokens: PageTokens) -> None:
        self._catalogue = catalogue
        self._store = store
        self._tokens = tokens

    async def register_event_types(
        self, request: pb.RegisterEventTypesRequest, caller: Caller
    ) -> pb.RegisterEventTypesResponse:
        """Store entries, all or none, and check by them from now on."""
        entries = [_entry(sent) for sent in request.event_types]
        found = self._name_violations([entry.name for entry in entries], "event_types")
        for index, entry in enumerate(entries):
            found += violations(entry, f"event_types[{index}]")
        if found:
            raise invalid_fields(found)
        stored = await self._store.register(caller.account, entries)
        self._catalogue.put(caller.account, stored)
        return pb.RegisterEventTypesResponse(event_types=[_message(entry) for entry in stored])

    async def unregister_event_types(
        self, request: pb.UnregisterEventTypesRequest, caller: Caller
    ) -> pb.UnregisterEventTypesResponse:
        """Remove entries."""
        names = [(name.type, name.subtype) for name in request.names]
        found = self._name_violations(names, "names")
        if found:
            raise invalid_fields(found)
        removed = await self._store.unregister(caller.account, names)
        self._catalogue.drop(caller.account, names)
        return pb.UnregisterEventTypesResponse(removed_count=removed)

    def _name_violations(self, names: Sequence[Name], path: str) -> list[Violation]:
        found = [
            Violation(f"{path}[{index}]", "is built in and cannot be changed")
            for index, name in enumerate(names)
            if self._catalogue.is_built_in(name)
        ]
        first: dict[Name, int] = {}
        for index, name in enumerate(names):
            if first.setdefault(name, index) != index:
                found.append(Violation(f"{path}[{index}]", f"is the same type and subtype as {path}[{first[name]}]"))
        return found

    async def list_event_types(self, request: pb.ListEventTypesRequest, caller: Caller) -> pb.ListEventTypesResponse:
        """Answer a page of entries, arranged as a tree."""
        after: tuple[str, ...] = ()
        if request.page_token:
            after = tuple(map(str, self._tokens.read(caller.account, request, request.page_token)))
        wanted = glob(request.type) if request.type else None
        there = [
            entry
            for entry in self._catalogue.entries(caller.account)
            if entry.name > after and (wanted is None or wanted(entry.type))
        ]
        shown = fitting(_message(entry) for entry in there[: page_size(request.page_size)])
        answer = pb.ListEventTypesResponse(types=_tree(shown))
        if len(shown) < len(there):
            last = shown[-1]
            answer.next_page_token = self._tokens.make(caller.account, request, (last.type, last.subtype))
        return answer


def _tree(entries: Sequence[pb.EventType]) -> list[Branch]:
    branches: list[Branch] = []
    for entry in entries:
        if not branches or branches[-1].type != entry.type:
            branches.append(Branch(type=entry.type))
        if entry.subtype:
            branches[-1].subtypes.append(entry)
        else:
            branches[-1].event_type.CopyFrom(entry)
    return branches


def _entry(sent: pb.EventType) -> EventType:
    return EventType(
        sent.type,
        sent.subtype,
        sent.description,
        sent.resource_type,
        int(sent.level),
        plain_object(sent.payload_schema) if sent.HasField("payload_schema") else None,
        PayloadCheck(sent.payload_check or PayloadCheck.OFF),
        plain_value(sent.example) if sent.HasField("example") else None,
    )


def _message(entry: EventType) -> pb.EventType:
    message = pb.EventType(
        type=entry.type,
        subtype=entry.subtype,
        description=entry.description,
        resource_type=entry.resource_type,
        level=pb.Level.ValueType(entry.level),
        payload_check=pb.PayloadCheck.ValueType(entry.check),
        built_in=entry.built_in,
    )
    if entry.schema is not None:
        message.payload_schema.CopyFrom(struct_of(entry.schema))
    if entry.example is not None:
        message.example.CopyFrom(value_of(entry.example))
    if not entry.built_in:
        seconds, rest = divmod(entry.updated_at, SECOND_US)
        message.update_time.CopyFrom(Timestamp(seconds=seconds, nanos=rest * 1000))
    return message
