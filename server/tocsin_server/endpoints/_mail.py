"""A mail: its headers, and text and HTML made of the same writing.

Nothing in it is loaded from elsewhere, and nothing that came with an event is markup. Mail about one
resource, or of one alert, belongs to one thread.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import Any
from urllib.parse import quote

from tocsin_server.domain.event_log import Event, Level
from tocsin_server.domain.notifications import Message
from tocsin_server.domain.variables import time_text
from tocsin_server.endpoints.payloads import payload_of

SUBJECT_MAX = 200
ADDRESS_MAX = 254
RECIPIENTS_MAX = 50
ADDRESS = re.compile(r'[^\s@<>(),;:"\\\[\]\x00-\x1f\x7f]+@[^\s@<>(),;:"\\\[\]\x00-\x1f\x7f]+')
WIRE = SMTP.clone(cte_type="7bit", max_line_length=998)  # servers need not take more than 7 bits
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{subject}</title></head>
<body style="margin:0;padding:16px;background:#fff;color:#1a1a1a;font:16px/1.5 system-ui,sans-serif">
<div style="max-width:640px;margin:0 auto;overflow-wrap:anywhere">
{content}
</div></body></html>
"""
TEXT = "margin:0 0 16px;white-space:pre-wrap;overflow-wrap:anywhere"
CODE = f"{TEXT};font:14px/1.4 ui-monospace,monospace;background:#f4f4f4;padding:12px"


@dataclass(frozen=True, slots=True)
class Writing:
    """What a mail says: a heading, facts by their names, sections with or without a title, and links."""

    subject: str
    heading: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    sections: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """Write it as text."""
        parts = [self.heading] if self.heading else []
        if self.facts:
            parts.append("\n".join(f"{name + ':':<10} {value}".rstrip() for name, value in self.facts))
        parts += [f"{title}:\n{text.rstrip()}" if title else text.rstrip() for title, text in self.sections]
        parts += [f"{url}" for _, url in self.links]
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """Write it as HTML that needs nothing else and fits a phone."""
        parts = [f'<h1 style="margin:0 0 16px;font-size:20px">{escape(self.heading)}</h1>'] if self.heading else []
        if self.facts:
            rows = "".join(
                f'<tr><td style="padding:2px 12px 2px 0;color:#666;vertical-align:top">{escape(name)}</td>'
                f'<td style="padding:2px 0">{escape(value)}</td></tr>'
                for name, value in self.facts
            )
            parts.append(f'<table role="presentation" style="margin:0 0 16px;border-spacing:0">{rows}</table>')
        for title, text in self.sections:
            if title:
                parts.append(f'<p style="margin:0 0 4px;color:#666">{escape(title)}</p>')
            parts.append(f'<div style="{CODE if title else TEXT}">{escape(text.rstrip())}</div>')
        parts += [
            f'<p style="margin:0 0 8px"><a href="{escape(url)}">{escape(name)}</a></p>' for name, url in self.links
        ]
        return PAGE.format(subject=escape(self.subject), content="\n".join(parts))


def compose(message: Message, connection: Mapping[str, Any]) -> tuple[EmailMessage, list[str]]:
    """Write the mail and list its recipients; ValueError when an address or a header cannot be used."""
    params = message.params
    mail = EmailMessage(WIRE)
    sender = address(params.get("from") or connection["from_address"])
    named = {name: [address(a) for a in _addresses(params.get(name))] for name in ("to", "cc", "bcc")}
    if not any(named.values()):
        named["to"] = [address(a) for a in message.options.recipients or connection["recipients"]]
    everybody = list(dict.fromkeys([*named["to"], *named["cc"], *named["bcc"]]))
    if len(everybody) > RECIPIENTS_MAX:
        raise ValueError(f"{len(everybody)} recipients, at most {RECIPIENTS_MAX} are allowed")
    mail["From"] = Address(addr_spec=sender)
    for header, name in (("To", "to"), ("Cc", "cc")):
        if named[name]:
            mail[header] = tuple(Address(addr_spec=a) for a in named[name])
    written = writing(message)
    domain = sender.rpartition("@")[2]
    mail["Subject"] = written.subject
    mail["Date"] = format_datetime(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=message.sent_at))
    mail["Message-ID"] = f"<{message.delivery_id}@{domain}>"
    thread = _thread(message)
    if thread:
        mail["In-Reply-To"] = mail["References"] = f"<{thread}.thread@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(written.text())
    mail.add_alternative(written.html(), subtype="html")
    return mail, everybody


def _thread(message: Message) -> str:
    """Name the thread: a resource of an account, or an alert; empty when it is about neither."""
    event = message.event
    if event is not None and event.resource["id"]:
        about = ["resource", event.account, event.resource["type"], event.resource["id"]]
    elif message.subject.get("alert_id"):
        about = ["alert", message.subject["alert_id"]]
    else:
        return ""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def writing(message: Message) -> Writing:
    """Say what a message says, in words of one's own where they are given."""
    usual, params = _usual(message), message.params
    subject = _one_line(str(params.get("subject") or usual.subject))
    body = str(params.get("body") or "")
    written = Writing(subject, sections=(("", body),)) if body else usual
    sections = written.sections
    if message.options.add_notification_payload:
        sections += (("Payload", json.dumps(payload_of(message), ensure_ascii=False, indent=2)),)
    return Writing(subject, written.heading, written.facts, sections, _links(message))


def _usual(message: Message) -> Writing:
    if message.event is not None:
        return _of_event(message.event)
    if message.events:
        return _of_digest(message)
    if message.subject.get("alert_id"):
        about = json.dumps(dict(message.subject), ensure_ascii=False, indent=2)
        return Writing(f"Alert {message.subject['alert_id']}", sections=(("", about),))
    return Writing("Test message of tocsin", sections=(("", "If you can read this, the configuration works."),))


def _links(message: Message) -> tuple[tuple[str, str], ...]:
    links: list[tuple[str, str]] = []
    base = message.ui_url.rstrip("/")
    if base and message.event is not None:
        links.append(("Open the event", f"{base}/events/{quote(message.event.id, safe='')}"))
    elif message.alert_link:
        links.append(("Open the alert", message.alert_link))
    elif base:
        links.append(("Open the console", message.ui_url))
    if message.docs_url:
        links.append(("Read the documentation", message.docs_url))
    return tuple(links)


def _of_digest(message: Message) -> Writing:
    """Write about several events: a line each, the newest first."""
    events, group = message.events, message.subject["digest"]["group"]
    errors = sum(event.level is Level.ERROR for event in events)
    common = ", ".join(f"{name} {value}" for name, value in group.items() if value)
    subject = f"[{'ERROR' if errors else 'INFO'}] {len(events)} events" + (f": {common}" if common else "")
    heading = f"{len(events)} events, {errors} of them errors" + (f"; {common}" if common else "") + ":"
    lines = [
        f"{time_text(e.timestamp)}  {e.level.name:<5}  {e.message or e.type}  {_about(e)}".rstrip()
        for e in reversed(events)
    ]
    if message.missing:
        lines.append(f"{message.missing} more cannot be read any more")
    return Writing(subject, heading, sections=(("", "\n".join(lines)),))


def _about(event: Event) -> str:
    return event.resource["id"] or event.source["service"]


def _of_event(event: Event) -> Writing:
    about, resource, source = _about(event), event.resource, event.source
    subject = f"[{event.level.name}] {event.message or event.type}" + (f": {about}" if about else "")
    facts = (
        ("Type", event.type),
        ("Level", event.level.name),
        ("Resource", f"{resource['id']} ({resource['type'] or 'no type'})" if resource["id"] else "none"),
        ("Source", f"{source['service']} {source['host']}".strip() or "unknown"),
        ("Time", time_text(event.timestamp)),
        ("Event", f"{event.id} (position {event.position})"),
    )
    sections: tuple[tuple[str, str], ...] = ()
    if event.details not in (None, "", {}):
        told = (
            event.details if isinstance(event.details, str) else json.dumps(event.details, ensure_ascii=False, indent=2)
        )
        sections = (("Details", told),)
    return Writing(subject, event.message or event.type, facts, sections)


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SUBJECT_MAX else line[: SUBJECT_MAX - 3] + "..."


def _addresses(value: object) -> list[str]:
    # One text is one address: what an event brings into a template cannot add receivers.
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    return [str(part) for part in value] if isinstance(value, list) else []


def address(text: str) -> str:
    """Take one plain address; ValueError for anything else, several of them or a group included."""
    if ADDRESS.fullmatch(text) is None or len(text) > ADDRESS_MAX:
        raise ValueError(f"{text[:64]!r} is not one plain mail address")
    if not text.isascii():
        raise ValueError(f"{text[:64]!r} has characters that are not ASCII")
    try:
        Address(addr_spec=text)
    except (ValueError, IndexError, MessageError) as error:
        raise ValueError(f"{text[:64]!r} is not a mail address") from error
    return text
