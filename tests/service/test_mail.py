"""What a mail says and to whom: text and HTML, links, threads, and nothing that an event could add."""

from __future__ import annotations

import json
import re
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Value
from tocsin.v1 import event_log_pb2 as log_pb
from tocsin.v1 import notifications_pb2 as pb
from tocsin_server.domain.notifications import Message
from tocsin_server.domain.verdicts import Verdict
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.email import Email

from tests.service.test_notifications import created, mail
from tests.support.receivers import Mailbox, plain_of
from tests.support.servers import Api, refused, serving

NASTY = '<script>alert("1")</script> & <img src="https://evil.example.com/x.png">'
CONNECTION = {"host": "127.0.0.1", "port": 9, "from_address": "a@example.com", "recipients": ["b@example.com"]}
# What is not one plain address of ASCII characters.
NO_ADDRESSES = [
    "a@x.de, b@evil.example", "a@x.de,b@evil.example", "a@x.de;b@evil.example", "team: a@x.de, b@evil.example;",
    "Ann <a@x.de>", "<a@x.de>", "a@x.de\r\nBcc: b@evil.example", "a@x.de\nb@evil.example", "a@x.de\x00", "a\x00@x.de",
    "a@x.de b@evil.example", "a@@x.de", "@x.de", "a@", "a", '"a b"@x.de', "a(comment)@x.de", "a..b@x.de", "ä@x.de",
    "a@münchen.example", "a@x.de\x7f", "a\u2028@x.de", "a@[127.0.0.1]", "a" * 260 + "@x.de", " a@x.de",
]  # fmt: skip


class Parts(HTMLParser):
    """The tags of a page, and what their attributes load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "background", "srcset"}
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(message: EmailMessage) -> Parts:
    found = message.get_body(("html",))
    assert isinstance(found, EmailMessage)
    return Parts(str(found.get_content()))


async def test_a_mail_is_readable_as_text_and_as_html(tmp_path: Path, box: Mailbox) -> None:
    """A06, D24: a formatted message; the mail names the object and links to the console and the documentation."""
    settings: dict[str, Any] = {
        "server__ui_url": "https://ui.example.com/",
        "server__docs_url": "https://docs.example.com",
    }
    async with serving(tmp_path, **settings) as api:
        await created(api, mail(box, "ann@example.com"))
        event = await api.append(
            "user.image.failed", level=log_pb.LEVEL_ERROR, message=f"Prüfung {NASTY}",
            resource=log_pb.EventResource(type="image_tag", id="nginx:latest"), details=value({"why": NASTY}),
        )  # fmt: skip
        ((_, message),) = await box.until(1)
    assert message.get_content_type() == "multipart/alternative"
    assert "nginx:latest" in message["Subject"]
    assert message["Subject"].startswith("[ERROR] Prüfung")
    links = [f"https://ui.example.com/events/{event.id}", "https://docs.example.com"]
    text, page = plain_of(message), page_of(message)
    assert [line for line in text.splitlines() if line.startswith("https://")] == links
    assert page.links == links
    for part in (text, page.text):
        assert f"Prüfung {NASTY}" in part
        assert "nginx:latest" in part
        assert json.dumps(NASTY) in part
    assert not page.tags & {"script", "img", "link", "iframe", "form", "object"}
    assert "viewport" in message.as_string()


def value(given: dict[str, str]) -> Value:
    found = Value()
    found.struct_value.update(given)
    return found


async def test_words_of_ones_own_are_no_markup(api: Api, box: Mailbox) -> None:
    """XD24: what an event brings into a template is text in both parts."""
    configuration = mail(box, "ann@example.com")
    configuration.options.template.subject = "{{message}}"
    configuration.options.template.body = "Dear team,\n\n{{message}}"
    await created(api, configuration)
    await api.append("a", message=f"{NASTY}\r\nBcc: eve@example.com")
    ((recipients, message),) = await box.until(1)
    assert recipients == ["ann@example.com"]
    assert message["Bcc"] is None
    assert message["Subject"] == f"{NASTY} Bcc: eve@example.com"
    assert NASTY in page_of(message).text
    assert "script" not in page_of(message).tags
    assert plain_of(message).startswith(f"Dear team,\n\n{NASTY}")


async def test_mail_about_one_resource_is_one_thread(api: Api, box: Mailbox) -> None:
    await created(api, mail(box, "ann@example.com"))
    nginx = log_pb.EventResource(type="image_tag", id="nginx")
    await api.append("a", resource=nginx)
    await box.until(1)
    await api.append("b", resource=nginx)
    await box.until(2)
    await api.append("c", resource=log_pb.EventResource(type="image_tag", id="redis"))
    await box.until(3)
    await api.append("d")
    first, second, other, none = (message for _, message in await box.until(4))
    assert first["References"] == second["References"] == first["In-Reply-To"]
    assert re.fullmatch(r"<[0-9a-f]{32}\.thread@example\.com>", str(first["References"]))
    assert first["Message-ID"] != second["Message-ID"]
    assert other["References"] != first["References"]
    assert none["References"] is None


@pytest.mark.parametrize("given", NO_ADDRESSES, ids=ascii)
async def test_what_is_not_one_address_is_refused(api: Api, box: Mailbox, given: str) -> None:
    """XD24: when it is saved, and when an action has it."""
    for field in ("recipients", "from_address"):
        configuration = mail(box, "ann@example.com")
        if field == "recipients":
            configuration.email.recipients[:] = [given]
        else:
            configuration.email.from_address = given
        refusal = await refused(created(api, configuration))
        assert [name.partition("[")[0] for name in refusal.fields] == [f"configuration.email.{field}"]
    for params in ({"to": [given]}, {"cc": given, "to": "b@example.com"}, {"from": given}):
        if given.strip() == given or params.get("to") == [given]:
            message = Message("d1", 0, params=params, subject={"alert_id": "x"})
            outcome = await Email(Egress(["127.0.0.0/8"])).send(message, CONNECTION)
            assert (outcome.verdict, outcome.reason) == (Verdict.PERMANENT, "RENDER")


async def test_a_thousand_recipients_are_refused(api: Api, box: Mailbox) -> None:
    """XD24."""
    many = [f"a{number}@example.com" for number in range(1000)]
    refusal = await refused(created(api, mail(box, *many)))
    assert list(refusal.fields) == ["configuration.email.recipients"]
    message = Message("d1", 0, params={"to": many}, subject={"alert_id": "x"})
    outcome = await Email(Egress(["127.0.0.0/8"])).send(message, CONNECTION)
    assert (outcome.verdict, outcome.reason) == (Verdict.PERMANENT, "RENDER")


async def test_a_test_message_has_both_parts_too(api: Api, box: Mailbox) -> None:
    configuration = await created(api, mail(box, "ann@example.com"))
    test = pb.TestEndpointConfigurationRequest(id=configuration.id)
    assert (await api.notifications.TestEndpointConfiguration(test)).delivered
    ((_, message),) = await box.until(1)
    assert "the configuration works" in plain_of(message)
    assert "the configuration works" in page_of(message).text
