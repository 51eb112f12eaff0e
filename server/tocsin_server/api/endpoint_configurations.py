"""Endpoint configurations on the wire: typed connections to plain fields and back.

A connection is generic here: the member of the oneof names the kind, its fields are the connection's.
A new kind needs no line in this file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tocsin.v1 import notifications_pb2 as pb

from tocsin_server.api import delivery_options
from tocsin_server.api.auth import Caller
from tocsin_server.api.bounds import is_map
from tocsin_server.api.event_filters import check_where
from tocsin_server.api.redaction import mask
from tocsin_server.api.timestamps import timestamp
from tocsin_server.domain.errors import Reason, TocsinError, Violation, invalid_field, invalid_fields
from tocsin_server.domain.message_templates import check as check_templates
from tocsin_server.domain.notifications import EndpointConfiguration, kept, masked
from tocsin_server.domain.options import DeliveryOptions
from tocsin_server.domain.ports import EndpointKind
from tocsin_server.domain.selection import Selector

PATH = "configuration"
MASK = re.compile(r"\*{4}.{0,4}")
CRITERIA = ("scope", "level", "type", "resource_type", "subtype", "service", "where")
MUTABLE = ("name", "description", "enabled", "selectors", "options")


def draft(sent: pb.EndpointConfiguration, caller: Caller) -> EndpointConfiguration:
    """Make a whole configuration of what a client sent."""
    kind = sent.WhichOneof("connection") or ""
    missing = [Violation(f"{PATH}.name", "is required")] if not sent.name else []
    if not kind:
        kinds = ", ".join(field.name for field in sent.DESCRIPTOR.oneofs_by_name["connection"].fields)
        missing.append(Violation(f"{PATH}.connection", f"set one of {kinds}"))
    if missing:
        raise invalid_fields(missing)
    return EndpointConfiguration(
        id=sent.id,
        account=caller.account,
        kind=kind,
        name=sent.name,
        description=sent.description,
        enabled=sent.enabled if sent.HasField("enabled") else True,
        connection=_fields(getattr(sent, kind)),
        selectors=_selectors(sent),
        options=delivery_options.read(sent.options),
    )


def judge(configuration: EndpointConfiguration, kinds: Mapping[str, EndpointKind], caller: Caller) -> None:
    """Refuse what the bounds of single fields cannot say."""
    for index, selector in enumerate(configuration.selectors):
        if selector.scope == "global":
            caller.require_admin(f"{PATH}.selectors[{index}].scope global")
        if selector.where:
            check_where(selector.where, f"{PATH}.selectors[{index}].where")
    kind = kinds[configuration.kind]
    _judge_options(configuration.options, kind)
    found = kind.check(configuration.connection)
    found += [
        Violation(name, "is the mask of a secret: write the secret itself")
        for name in kind.secret_fields
        if MASK.fullmatch(configuration.connection.get(name, ""))
    ]
    if found:
        prefix = f"{PATH}.{configuration.kind}."
        raise invalid_fields([Violation(prefix + v.path, v.description) for v in found])


def _judge_options(options: DeliveryOptions, kind: EndpointKind) -> None:
    given = {
        "template.subject": options.subject_template,
        "add_notification_payload": options.add_notification_payload,
        "recipients": options.recipients,
    }
    wrong = options.check() + [Violation(name, why) for name, why in kind.refused_options.items() if given[name]]
    if wrong:
        raise invalid_fields([Violation(f"{PATH}.options.{v.path}", v.description) for v in wrong])
    unread = [
        Violation(f"{PATH}.options.{v.path}", v.description) for v in check_templates(options, kind.default_escape)
    ]
    if unread:
        text = f"{unread[0].path}: {unread[0].description}"
        raise TocsinError(Reason.INVALID_TEMPLATE, text, violations=unread)


def with_kept_secrets(
    new: EndpointConfiguration, old: EndpointConfiguration, kinds: Mapping[str, EndpointKind]
) -> EndpointConfiguration:
    """Keep the secrets that were written back as they were shown, unless they would now go elsewhere."""
    connection = dict(new.connection)
    kind = kinds[new.kind]
    for name in kind.secret_fields:
        given, known = connection.get(name, ""), old.connection.get(name, "")
        connection[name] = kept(given, known)
        moved = [f for f in kind.secrets_bound_to.get(name, ()) if connection.get(f) != old.connection.get(f)]
        if known and given == masked(known) and moved:
            text = f"write it anew: {', '.join(moved)} changed, and it would be sent there"
            raise invalid_field(f"{PATH}.{new.kind}.{name}", text)
    return replace(new, connection=connection)


def changed(
    old: EndpointConfiguration,
    sent: pb.EndpointConfiguration,
    paths: Sequence[str],
    kinds: Mapping[str, EndpointKind],
    now: int,
) -> EndpointConfiguration:
    """Give the configuration after an update of the fields that the mask names; none names all."""
    kind = sent.WhichOneof("connection")
    if kind is not None and kind != old.kind:
        raise invalid_field(f"{PATH}.{kind}", f"the kind cannot change: this is a configuration of {old.kind}")
    wanted = set(paths) or {*MUTABLE, old.kind}
    unknown = wanted - {*MUTABLE, old.kind}
    if unknown:
        allowed = ", ".join((*MUTABLE, old.kind))
        raise invalid_field("update_mask", f"{', '.join(sorted(unknown))} cannot be changed; these can: {allowed}")
    if old.kind in wanted and kind is None:
        raise invalid_field(f"{PATH}.{old.kind}", "is required: name it, or leave it out of update_mask")
    changes: dict[str, Any] = {}
    if "name" in wanted:
        if not sent.name:
            raise invalid_field(f"{PATH}.name", "is required: give it, or leave it out of update_mask")
        changes["name"] = sent.name
    if "description" in wanted:
        changes["description"] = sent.description
    if "enabled" in wanted and sent.HasField("enabled"):
        changes["enabled"] = sent.enabled
    if "selectors" in wanted:
        changes["selectors"] = _selectors(sent)
    if "options" in wanted:
        changes["options"] = delivery_options.read(sent.options)
    if kind is not None and kind in wanted:
        new = replace(old, connection=_fields(getattr(sent, kind)))
        kept_connection = with_kept_secrets(new, old, kinds).connection
        changes["connection"] = kinds[kind].succeed(old.connection, kept_connection, now)
    return replace(old, **changes)


def _selectors(sent: pb.EndpointConfiguration) -> tuple[Selector, ...]:
    return tuple(Selector(**{name: getattr(selector, name) for name in CRITERIA}) for selector in sent.selectors)


def answer(configuration: EndpointConfiguration) -> pb.EndpointConfiguration:
    """Give a configuration as a client reads it, its secrets masked."""
    message = pb.EndpointConfiguration(
        id=configuration.id,
        account=configuration.account,
        kind=configuration.kind,
        name=configuration.name,
        description=configuration.description,
        enabled=configuration.enabled,
        selectors=[selector_message(selector) for selector in configuration.selectors],
        create_time=timestamp(configuration.created_at),
        update_time=timestamp(configuration.updated_at),
        options=delivery_options.answer(configuration.options),
        health=delivery_options.health(configuration),
    )
    _fill(getattr(message, configuration.kind), configuration.connection)
    mask(message)
    return message


def selector_message(selector: Selector) -> pb.Selector:
    """Give a selector as a client reads it."""
    return pb.Selector(**dict(zip(CRITERIA, selector.criteria(), strict=True)))


def _fields(connection: Message) -> dict[str, Any]:
    """Give a connection's fields as plain data; enum words are bare: STARTTLS."""
    found: dict[str, Any] = {}
    field: Any
    for field in connection.DESCRIPTOR.fields:
        value = getattr(connection, field.name)
        if is_map(field):
            found[field.name] = {key: value[key] for key in value}
        elif field.is_repeated:
            found[field.name] = list(value)
        elif field.message_type is not None:  # a duration; times are the server's own
            found[field.name] = value.ToMicroseconds() if connection.HasField(field.name) else None
        elif field.type == FieldDescriptor.TYPE_ENUM:
            found[field.name] = _bare(field, value) if value else ""
        else:
            found[field.name] = value
    return found


def _bare(field: Any, number: int) -> str:
    prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    word: str = field.enum_type.values_by_number[number].name
    return word.removeprefix(prefix)


def _fill(message: Message, connection: Mapping[str, Any]) -> None:
    message.SetInParent()
    field: Any
    for field in message.DESCRIPTOR.fields:
        value = connection.get(field.name)
        if field.message_type is not None and not field.is_repeated:
            if value is not None:
                getattr(message, field.name).FromMicroseconds(value)
        elif not value:
            continue
        elif is_map(field):
            getattr(message, field.name).update(value)
        elif field.is_repeated:
            getattr(message, field.name).extend(value)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
            setattr(message, field.name, field.enum_type.values_by_name[prefix + value].number)
        else:
            setattr(message, field.name, value)
