"""The receivers of the examples take what is right and refuse what is not."""

from __future__ import annotations

import smtplib
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.message import EmailMessage
from queue import Queue

import pytest
import tocsin
from standardwebhooks import Webhook

from examples.receivers import Mail, Mailbox, Post, WebhookReceiver

TIMEOUT_S = 10


def send(url: str, secret: str, body: str) -> int:
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "d1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("d1", now, body),
    }
    request = urllib.request.Request(url, body.encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return int(answer.status)


def test_a_signed_post_is_taken_and_a_forged_one_refused() -> None:
    posts: Queue[Post] = Queue()
    secret = tocsin.new_webhook_secret()
    with WebhookReceiver(posts.put) as receiver:
        url = receiver.expect("/x", secret)
        assert send(url, secret, '{"n": 1}') == 204
        assert posts.get(timeout=TIMEOUT_S) == Post("/x", "d1", {"n": 1})
        for forged in ((url, tocsin.new_webhook_secret()), (url + "/elsewhere", secret)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                send(*forged, '{"n": 2}')
            refused.value.close()
            assert refused.value.code == 401
        assert receiver.refused == 2
    assert posts.empty()


def test_a_mail_is_taken() -> None:
    mails: Queue[Mail] = Queue()
    mail = EmailMessage()
    mail["Subject"], mail["Message-ID"] = "Grüße", "<d1@example.com>"
    mail.set_content("It failed.")
    with (
        Mailbox(mails.put) as mailbox,
        smtplib.SMTP("127.0.0.1", mailbox.port, timeout=TIMEOUT_S) as sender,
    ):
        sender.send_message(mail, "a@example.com", ["b@example.com"])
        assert mails.get(timeout=TIMEOUT_S) == Mail("d1", ("b@example.com",), "Grüße", "It failed.\n")
