"""Texts of one's own for notifications: the templates of a configuration, rendered for an event or a digest.

A template sees the event as a webhook has it, its fields by their names and all of them as `event`; in a
digest `events`, `count`, `missing` and `group`. docs/templates.md lists them for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tocsin_server.domain.errors import Violation
from tocsin_server.domain.notifications import EndpointConfiguration, Message
from tocsin_server.domain.options import DeliveryOptions
from tocsin_server.domain.templates import Escape, RenderError, TemplateError, parse, render_noting
from tocsin_server.domain.variables import Variables, event_data

FIELDS = ("subject", "body")
_JSON_BEGINS = frozenset('{["-0123456789tfn')


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be sent; `missing` has the names of templates that have no value."""

    subject: str
    body: str
    content_type: str
    recipients: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def templates_of(options: DeliveryOptions) -> dict[str, str]:
    """Give the templates that are set, by field."""
    both = {"subject": options.subject_template, "body": options.body_template}
    return {name: source for name, source in both.items() if source}


def check(options: DeliveryOptions, default: Escape) -> list[Violation]:
    """Judge the templates of options; paths are relative to the options."""
    found: list[Violation] = []
    for name, source in templates_of(options).items():
        try:
            parse(source)
        except TemplateError as error:
            found.append(Violation(f"template.{name}", str(error)))
    escape = Escape(options.escape or default)
    if escape is Escape.JSON and not found and _never_json(options.body_template):
        found.append(Violation("template.body", "can never be JSON; with escape NONE it may be any text"))
    return found


def _never_json(source: str) -> bool:
    """Tell whether a template begins as no JSON does, or is a text without tags that is none."""
    before, tag, _ = source.partition("{{")
    begin = before.lstrip()[:1]
    return bool(begin and begin not in _JSON_BEGINS) or bool(source and not tag and not is_json(source))


def templated(
    message: Message, configuration: EndpointConfiguration, default: Escape
) -> tuple[Message, tuple[str, ...]]:
    """Render the templates of a configuration into a message, and give the names without a value.

    RenderError when a message cannot be made of this event. Alert actions and tests are left as they are.
    """
    sources = templates_of(configuration.options)
    if not sources or (message.event is None and not message.events):
        return message, ()
    variables = Variables(_values(message, configuration))
    escape = Escape(configuration.options.escape or default)
    params: dict[str, str] = {}
    missing: dict[str, None] = {}
    for name, source in sources.items():
        # A subject is one line of text: nothing in it is markup.
        try:
            params[name], missed = render_noting(source, variables, Escape.NONE if name == "subject" else escape)
        except RenderError as error:
            raise RenderError(f"template.{name}: {error}") from None
        missing |= dict.fromkeys(missed)
    if escape is Escape.JSON and not is_json(params.get("body", "{}")):
        raise RenderError("template.body: is not JSON when rendered; with escape NONE it may be any text")
    return message._replace(params={**message.params, **params}), tuple(missing)


def _values(message: Message, configuration: EndpointConfiguration) -> Mapping[str, object]:
    about: dict[str, object] = {
        "delivery_id": message.delivery_id,
        "configuration": {"id": configuration.id, "name": configuration.name},
        "ui_url": message.ui_url,
    }
    if message.event is not None:
        event = event_data(message.event)
        return {**event, "event": event, **about}
    digest = message.subject["digest"]
    return {
        "events": [event_data(event) for event in message.events],
        "count": len(message.events),
        "missing": message.missing,
        "group": digest["group"],
        **about,
    }


def is_json(text: str | bytes) -> bool:
    """Tell whether a rendered body is JSON; one nested too deep to be read is none."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
